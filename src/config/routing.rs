//! `[routing]`: the stage that turns domain events into requests for notifications.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dedup::DedupConfig;
use super::mistake::{MAX_MS, Mistake, is_faulty, rule, within};
use super::route::RouteConfig;
use super::source::SourceConfig;
use crate::handlers::DeclarativeRoute;

/// `[routing]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[allow(missing_docs)]
pub struct RoutingConfig {
    /// False when another instance does this stage.
    pub enabled: bool,
    pub guarantee: Guarantee,
    /// Of a transient failure of one record.
    pub max_retries: u32,
    pub retry_initial_ms: u64,
    pub retry_max_ms: u64,
    /// Records that are decided together.
    pub batch: usize,
    /// Records that are taken and not yet settled.
    pub max_in_flight: usize,
    pub dedup: DedupConfig,
    /// Declarative routes beside the built-in handlers.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    /// Where events come from beside Kafka.
    #[serde(default)]
    pub sources: Vec<SourceConfig>,
}

/// What holds between an event and its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub enum Guarantee {
    /// A request may appear twice, with the same `eventId`.
    AtLeastOnce,
    /// Outputs, dead letters and offsets are one transaction: a `read_committed` reader sees each once.
    ExactlyOnce,
}

impl TryFrom<String> for Guarantee {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "at_least_once" => Ok(Self::AtLeastOnce),
            "exactly_once" => Ok(Self::ExactlyOnce),
            _ => Err(format!("`{text}` is unknown, expected `at_least_once` or `exactly_once`")),
        }
    }
}

impl RoutingConfig {
    /// The wait before the first retry; doubled each time.
    pub fn retry_initial(&self) -> Duration {
        Duration::from_millis(self.retry_initial_ms)
    }

    /// No wait before a retry is longer.
    pub fn retry_max(&self) -> Duration {
        Duration::from_millis(self.retry_max_ms)
    }

    /// The declarative routes, ready for the registry.
    pub fn routes(&self) -> Vec<DeclarativeRoute> {
        self.routes.iter().map(RouteConfig::compile).collect()
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        within(mistakes, "routing.retry_initial_ms", self.retry_initial_ms, 1..=MAX_MS);
        within(mistakes, "routing.retry_max_ms", self.retry_max_ms, 1..=MAX_MS);
        if !is_faulty(mistakes, "routing.retry_initial_ms") {
            let holds = self.retry_max_ms >= self.retry_initial_ms;
            rule(mistakes, holds, "routing.retry_max_ms", "must not be less than routing.retry_initial_ms");
        }
        within(mistakes, "routing.batch", self.batch as u64, 1..=10_000);
        if !is_faulty(mistakes, "routing.batch") {
            let holds = self.max_in_flight >= self.batch;
            rule(mistakes, holds, "routing.max_in_flight", "must not be less than routing.batch");
        }
        for (index, route) in self.routes.iter().enumerate() {
            route.validate(&format!("routing.routes[{index}]"), mistakes);
        }
        for (index, source) in self.sources.iter().enumerate() {
            let (key, before) = (format!("routing.sources[{index}]"), &self.sources[..index]);
            source.validate(&key, mistakes);
            let twice = before.iter().any(|other| other.stream == source.stream);
            rule(mistakes, !twice, &format!("{key}.stream"), "is the stream of another source");
            let twice = before.iter().any(|other| other.group() == source.group());
            rule(
                mistakes,
                !twice,
                &format!("{key}.group"),
                format!("`{}` is the group of another source", source.group()),
            );
        }
    }
}
