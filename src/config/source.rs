//! `[[routing.sources]]`: where domain events come from beside Kafka.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, rule, within};

/// `[[routing.sources]]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct SourceConfig {
    /// What it is.
    pub kind: SourceKind,
    /// The key of the Redis stream.
    pub stream: String,
    /// See [`SourceConfig::group`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Names this instance among the consumers of the group; `None` = by `kafka.instance_id`, or anew at each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// The field of an entry that holds the event.
    #[serde(default = "default_field")]
    pub field: String,
    /// See [`SourceConfig::claim_idle`].
    #[serde(default = "default_claim_idle_ms")]
    pub claim_idle_ms: u64,
    /// An entry that is delivered more often is a dead letter.
    #[serde(default = "default_max_deliveries")]
    pub max_deliveries: u64,
    /// A longer stream is trimmed; `None` = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trim_max_length: Option<u64>,
}

fn default_field() -> String {
    "event".to_owned()
}

fn default_claim_idle_ms() -> u64 {
    60_000
}

fn default_max_deliveries() -> u64 {
    5
}

/// Kinds of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A consumer group of a Redis stream.
    RedisStream,
}

impl SourceConfig {
    /// The consumer group's name.
    pub fn group(&self) -> String {
        self.group.clone().unwrap_or_else(|| format!("notification-service-{}", self.stream))
    }

    /// Entries without a sign of life from their consumer for so long are taken over.
    pub fn claim_idle(&self) -> Duration {
        Duration::from_millis(self.claim_idle_ms)
    }

    pub(super) fn validate(&self, key: &str, mistakes: &mut Vec<Mistake>) {
        rule(mistakes, !self.stream.is_empty(), &format!("{key}.stream"), "must not be empty");
        rule(mistakes, !self.field.is_empty(), &format!("{key}.field"), "must not be empty");
        let named = |name: &Option<String>| name.as_deref().is_none_or(|name| !name.is_empty());
        rule(mistakes, named(&self.group), &format!("{key}.group"), "must not be empty");
        rule(mistakes, named(&self.consumer), &format!("{key}.consumer"), "must not be empty");
        within(mistakes, &format!("{key}.claim_idle_ms"), self.claim_idle_ms, 2000..=MAX_MS);
        // The first two may be in company; only those after them tell an entry from what was in hand beside it.
        within(mistakes, &format!("{key}.max_deliveries"), self.max_deliveries, 3..=1000);
        let length = self.trim_max_length.is_none_or(|length| length >= 1);
        rule(mistakes, length, &format!("{key}.trim_max_length"), "must be at least 1, not 0");
    }
}
