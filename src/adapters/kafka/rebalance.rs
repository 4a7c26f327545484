//! The consumer's callbacks: what happens to partitions in a rebalance, and where librdkafka's log lines go.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::tracker::{Moved, Partition, Tracker};
use crate::telemetry::events;

/// librdkafka's log lines and errors, as structured logs.
pub fn forward_log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        // Connection losses repeat every second; the monitor reports the outage once.
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        RDKafkaLogLevel::Error => tracing::debug!(facility, message, "librdkafka"),
        RDKafkaLogLevel::Warning if facility == "CONFWARN" => {}
        _ => tracing::debug!(facility, message, "librdkafka"),
    }
}

/// The context of a group's consumer.
pub struct GroupContext {
    pub tracker: Arc<Tracker>,
    pub group: String,
    /// How long a revoke waits for work in hand.
    pub patience: Duration,
    /// Offsets are stored for the consumer to commit; else transactions commit them.
    pub stores: bool,
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // The only word that librdkafka gives of it; a group's first start is not told in this way.
        if facility == "OFFSET" && matches!(level, RDKafkaLogLevel::Warning) {
            let (topic, _) =
                message.rsplit_once("]: offset reset").and_then(|(at, _)| at.rsplit_once(" [")).unwrap_or_default();
            events::offset_out_of_range(topic.rsplit(' ').next().unwrap_or_default(), message);
        }
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(group = self.group, %error, reason, "consumer error");
    }
}

impl ConsumerContext for GroupContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(revoked) = rebalance else { return };
        let partitions = plain(revoked);
        if consumer.assignment_lost() {
            // Somebody else owns them already: storing or finishing anything now would be a zombie's work.
            tracing::warn!(group = self.group, partitions = partitions.len(), "partitions lost");
            return self.tracker.lose(&partitions);
        }
        self.tracker.set_member(consumer.group_metadata());
        let positions = self.tracker.revoke(&partitions, self.patience);
        tracing::info!(group = self.group, partitions = partitions.len(), "partitions revoked");
        if self.stores {
            // librdkafka commits what is stored before it gives the partitions up.
            store(consumer, &positions);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.tracker.set_member(consumer.group_metadata());
        let Rebalance::Assign(assigned) = rebalance else { return };
        let partitions = plain(assigned);
        tracing::info!(group = self.group, partitions = partitions.len(), "partitions assigned");
        for partition in partitions {
            self.tracker.assign(partition);
        }
        self.tracker.join();
        if self.tracker.is_paused()
            && let Err(error) = consumer.pause(assigned)
        {
            tracing::warn!(group = self.group, %error, "new partitions could not be paused");
        }
    }
}

/// Stores positions for the next commit. Each is the offset to go on with.
pub fn store(consumer: &BaseConsumer<GroupContext>, positions: &[Moved]) {
    if positions.is_empty() {
        return;
    }
    if let Err(error) = consumer.store_offsets(&list(positions.iter())) {
        tracing::debug!(%error, "offsets were not stored: the partition is someone else's by now");
    }
    let back = list(positions.iter().filter(|moved| moved.back));
    if back.count() > 0
        && let Err(error) = consumer.commit(&back, CommitMode::Async)
    {
        tracing::warn!(%error, "an offset that went back was not committed");
    }
}

fn list<'a>(positions: impl Iterator<Item = &'a Moved>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for Moved { partition: (topic, partition), position, .. } in positions {
        // Cannot fail for an ordinary offset; one that is not stored is only committed later.
        let _ = list.add_partition_offset(topic, *partition, Offset::Offset(*position));
    }
    list
}

/// Native lists are not kept: one that outlives its consumer blocks the consumer's end (rust-rdkafka #453).
fn plain(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|e| (Arc::from(e.topic()), e.partition())).collect()
}
