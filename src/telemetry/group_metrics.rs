//! The counters of one consumer group, looked up once instead of per record.

use metrics::{Counter, counter};

use super::metric_definitions::{CONSUMED, DUPLICATES_SKIPPED, PROCESSING_ERRORS, RETRIES, SKIPPED};
use super::metrics_server::expose;

/// The counters of one consumer group.
pub struct GroupMetrics {
    topic: String,
    group: String,
    consumed: Counter,
    skipped: Counter,
    retries: Counter,
    duplicates: Counter,
}

impl GroupMetrics {
    /// Exposes the group's series from the start.
    pub fn new(topic: &str, group: &str, stage: &'static str, classes: &[&'static str]) -> Self {
        let labels = [("topic", topic.to_owned()), ("consumer_group", group.to_owned())];
        for class in classes {
            let [topic, group] = labels.clone();
            expose(PROCESSING_ERRORS, &[topic, group, ("class", (*class).to_owned())]);
        }
        let metrics = Self {
            topic: topic.to_owned(),
            group: group.to_owned(),
            consumed: counter!(CONSUMED, &labels),
            skipped: counter!(SKIPPED, &labels),
            retries: counter!(RETRIES, "stage" => stage),
            duplicates: counter!(DUPLICATES_SKIPPED, "stage" => stage),
        };
        metrics.consumed.increment(0);
        metrics.skipped.increment(0);
        metrics.retries.increment(0);
        metrics.duplicates.increment(0);
        metrics
    }

    /// So many records were taken.
    pub fn consumed(&self, records: usize) {
        self.consumed.increment(records as u64);
    }

    /// A record was skipped.
    pub fn skipped(&self) {
        self.skipped.increment(1);
    }

    /// A record was skipped, for its event was processed before.
    pub fn duplicate(&self) {
        self.duplicates.increment(1);
        self.skipped();
    }

    /// A record will be tried again.
    pub fn retried(&self) {
        self.retries.increment(1);
    }

    /// A record could not be processed.
    pub fn failed(&self, class: &'static str) {
        counter!(
            PROCESSING_ERRORS,
            "topic" => self.topic.clone(), "consumer_group" => self.group.clone(), "class" => class
        )
        .increment(1);
    }
}
