//! `[kafka]`: the cluster, the names and sizes of the topics, and any property of the client library.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, at_least, rule, within};
use super::secret::masked_properties;
use crate::domain::catalog::{TopicNames, topics};

/// The value of `kafka.brokers` that asks for a cluster inside the process.
const EMBEDDED: &str = "embedded";

/// `[kafka]`.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct KafkaConfig {
    /// `host:port,…`, or `embedded`.
    pub brokers: String,
    /// Shown in the brokers' logs and quotas.
    pub client_id: String,
    /// In front of every topic and group id.
    pub prefix: String,
    /// Names this instance among those of its groups, over restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Of topics that the service creates.
    pub replication_factor: i32,
    /// See [`KafkaConfig::ack_timeout`].
    pub ack_timeout_ms: u64,
    /// Where a group without a committed offset begins.
    pub auto_offset_reset: AutoOffsetReset,
    /// Of topics that the service creates.
    pub partitions: Partitions,
    /// Any librdkafka property.
    #[serde(default, serialize_with = "masked_properties")]
    pub properties: BTreeMap<String, String>,
}

/// Where a group without a committed offset begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum AutoOffsetReset {
    Earliest,
    Latest,
    /// Nowhere: the group stops, and the service is not ready.
    Error,
}

impl AutoOffsetReset {
    /// The value of the librdkafka property `auto.offset.reset`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Latest => "latest",
            Self::Error => "error",
        }
    }
}

/// `[kafka.partitions]`: the number of partitions of each topic.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub struct Partitions {
    pub order_events: i32,
    pub user_events: i32,
    pub product_events: i32,
    pub notification_events: i32,
    pub dead_letter_queue: i32,
    pub audit_events: i32,
}

impl Partitions {
    /// Every topic by its logical name, with its number of partitions.
    pub fn all(&self) -> [(&'static str, i32); 6] {
        [
            (topics::ORDERS, self.order_events),
            (topics::USERS, self.user_events),
            (topics::PRODUCTS, self.product_events),
            (topics::NOTIFICATIONS, self.notification_events),
            (topics::DEAD_LETTERS, self.dead_letter_queue),
            (topics::AUDIT, self.audit_events),
        ]
    }
}

impl KafkaConfig {
    /// True when the cluster runs inside the process.
    pub fn is_embedded(&self) -> bool {
        self.brokers == EMBEDDED
    }

    /// After that, records without an acknowledgement count as failures for the breaker.
    pub fn ack_timeout(&self) -> Duration {
        Duration::from_millis(self.ack_timeout_ms)
    }

    /// The topics' names in the cluster.
    pub fn topics(&self) -> TopicNames {
        TopicNames::new(&self.prefix)
    }

    /// A consumer group's id in the cluster.
    pub fn group(&self, logical: &str) -> String {
        format!("{}{logical}", self.prefix)
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        rule(mistakes, !self.brokers.trim().is_empty(), "kafka.brokers", "must not be empty");
        let wrong = self.brokers.split(',').map(str::trim).find(|broker| !is_broker(broker));
        let problem = format!("`{}` is not of the form host:port", wrong.unwrap_or_default());
        rule(mistakes, wrong.is_none(), "kafka.brokers", problem);
        rule(mistakes, !self.client_id.is_empty(), "kafka.client_id", "must not be empty");
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let problem = "may contain only letters, digits, `.`, `_` and `-`";
        rule(mistakes, self.prefix.chars().all(allowed), "kafka.prefix", problem);
        // Kafka's limit for a topic is 249.
        rule(mistakes, self.prefix.len() <= 200, "kafka.prefix", "must not be longer than 200 characters");
        at_least(mistakes, "kafka.replication_factor", self.replication_factor.into(), 1);
        let named = self.instance_id.as_deref().is_none_or(is_plain_name);
        rule(mistakes, named, "kafka.instance_id", "may have 1 to 200 letters, digits, `.`, `_` and `-`");
        within(mistakes, "kafka.ack_timeout_ms", self.ack_timeout_ms, 1..=MAX_MS);
        let own = !self.properties.contains_key("transactional.id");
        let problem = "is chosen by the service; see kafka.instance_id";
        rule(mistakes, own, "kafka.properties.\"transactional.id\"", problem);
        for (topic, partitions) in self.partitions.all() {
            at_least(mistakes, &format!("kafka.partitions.{topic}"), partitions.into(), 1);
        }
    }
}

fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=200).contains(&name.len()) && name.chars().all(plain)
}

/// A broker may have a protocol in front and may leave the port out, as librdkafka allows.
fn is_broker(text: &str) -> bool {
    let address = text.split_once("://").map_or(text, |(_, address)| address);
    let host = match address.rsplit_once(':') {
        Some((host, _)) if address.ends_with(']') && host.starts_with('[') => address,
        Some((host, port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => host,
        Some(_) => return false,
        None => address,
    };
    !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/')
}

impl fmt::Debug for KafkaConfig {
    // The properties may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, client_id, prefix, .. } = self;
        let mut debug = f.debug_struct("KafkaConfig");
        debug.field("brokers", brokers).field("client_id", client_id).field("prefix", prefix).finish_non_exhaustive()
    }
}
