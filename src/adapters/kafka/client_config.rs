//! librdkafka's configuration: our defaults, then the operator's properties, then what safety does not leave open.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

/// What every client of this process shares.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// `host:port,…`.
    pub brokers: String,
    /// Shown in the brokers' logs and quotas.
    pub client_id: String,
    /// Any librdkafka property.
    pub properties: BTreeMap<String, String>,
}

/// A property that librdkafka does not take.
#[derive(Debug, Clone, thiserror::Error)]
#[error("kafka.properties: {0}")]
pub struct InvalidProperty(String);

impl From<KafkaError> for InvalidProperty {
    fn from(error: KafkaError) -> Self {
        Self(error.to_string())
    }
}

/// A batch, in bytes.
const BATCH_BYTES: u64 = 262_144;

/// Properties that only producers know (librdkafka's CONFIGURATION.md, column P); consumers would warn about them.
const PRODUCER_ONLY: [&str; 24] = [
    "transactional.id",
    "transaction.timeout.ms",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "queue.buffering.max.messages",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.ms",
    "queue.buffering.backpressure.threshold",
    "linger.ms",
    "message.send.max.retries",
    "retries",
    "compression.codec",
    "compression.type",
    "compression.level",
    "batch.num.messages",
    "batch.size",
    "delivery.report.only.error",
    "sticky.partitioning.linger.ms",
    "request.required.acks",
    "acks",
    "request.timeout.ms",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "partitioner",
];

/// Properties that only consumers know (column C).
const CONSUMER_ONLY: [&str; 30] = [
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "coordinator.query.interval.ms",
    "max.poll.interval.ms",
    "enable.auto.commit",
    "auto.commit.interval.ms",
    "enable.auto.offset.store",
    "queued.min.messages",
    "queued.max.messages.kbytes",
    "fetch.wait.max.ms",
    "fetch.queue.backoff.ms",
    "fetch.message.max.bytes",
    "max.partition.fetch.bytes",
    "fetch.max.bytes",
    "fetch.min.bytes",
    "fetch.error.backoff.ms",
    "isolation.level",
    "enable.partition.eof",
    "check.crcs",
    "auto.offset.reset",
    "offset.store.method",
    "offset.store.path",
    "consume.callback.max.messages",
    "allow.auto.create.topics",
];

/// After this time the coordinator ends a transaction by itself.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

impl ClientSettings {
    /// For asking about the cluster and changing it.
    pub fn admin(&self) -> ClientConfig {
        let mut config = self.base();
        self.apply(&mut config, |name| !PRODUCER_ONLY.contains(&name) && !CONSUMER_ONLY.contains(&name));
        config
    }

    /// With batches of so many bytes at most, if that is less than usual and the operator does not say otherwise.
    pub fn with_batches_of(&self, bytes: u64) -> Option<Self> {
        if bytes >= BATCH_BYTES || self.properties.contains_key("batch.size") {
            return None;
        }
        let mut fitting = self.clone();
        fitting.properties.insert("batch.size".to_owned(), bytes.to_string());
        Some(fitting)
    }

    /// For producers: idempotent, every record acknowledged by all replicas.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        // While the broker is away records stay in the producer's queue, in order, and are written when it returns;
        // a record that timed out could be overtaken by a later one of its key. The queue is bounded.
        config.set("message.timeout.ms", "0");
        config.set("queue.buffering.max.messages", "100000");
        config.set("queue.buffering.max.kbytes", "65536");
        config.set("linger.ms", "0.5");
        config.set("compression.type", "lz4");
        // A broker that refuses one record as too large refuses its whole batch: keep the company small.
        config.set("batch.size", BATCH_BYTES.to_string());
        self.apply(&mut config, |name| !CONSUMER_ONLY.contains(&name));
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        config
    }

    /// For transactions under this name.
    pub fn transactional(&self, name: &str) -> ClientConfig {
        let mut config = self.producer();
        config.set("transactional.id", name);
        // What a dead instance left open blocks read_committed readers for so long, unless its name comes back sooner.
        let timeout_ms = TRANSACTION_TIMEOUT.as_millis().to_string();
        config.set("transaction.timeout.ms", &timeout_ms);
        config.set("message.timeout.ms", &timeout_ms);
        // A transaction is one batch already, and it waits for every acknowledgement.
        config.set("linger.ms", "0");
        // The coordinator answers the first request after a commit with `retry` while it still writes its markers.
        config.set("retry.backoff.ms", "2");
        config
    }

    /// For consumer groups: offsets are stored by hand, behind the settled watermark.
    pub fn consumer(&self, group: &str, auto_offset_reset: &str) -> ClientConfig {
        let mut config = self.base();
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config.set("auto.commit.interval.ms", "1000");
        config.set("auto.offset.reset", auto_offset_reset);
        // A member that the broker's restart left behind blocks the next rebalance until its session is over: this
        // bounds how long a group stands still after an outage that was longer than the session.
        config.set("session.timeout.ms", "10000");
        // A member hears of a rebalance with its next heartbeat, and until all have heard of it nobody can commit or
        // leave.
        config.set("heartbeat.interval.ms", "1000");
        // A group whose topic has no leader while it starts, as after an outage, only joins with the next look at the
        // topic; by default that is five minutes later.
        config.set("topic.metadata.refresh.interval.ms", "5000");
        // Bounds what librdkafka fetches ahead, per client: the rest waits in the broker.
        config.set("queued.max.messages.kbytes", "16384");
        // The default of a second is longer than this queue lasts when a backlog is worked off.
        config.set("fetch.queue.backoff.ms", "20");
        config.set("fetch.wait.max.ms", "100");
        self.apply(&mut config, |name| !PRODUCER_ONLY.contains(&name));
        config.set("group.id", group);
        config.set("group.protocol", "classic");
        // The end of a partition is told: what lies between the last record and the end may be no records at all.
        config.set("enable.partition.eof", "true");
        // Offsets of a transaction under way count as unstable, and are waited for: exactly-once rests on it.
        config.set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "true");
        config.set("enable.auto.offset.store", "false");
        config.set("allow.auto.create.topics", "false");
        config
    }

    /// Checks the operator's properties against librdkafka.
    ///
    /// # Errors
    /// [`InvalidProperty`] with librdkafka's own words.
    pub fn check(&self) -> Result<(), InvalidProperty> {
        for config in [self.producer(), self.consumer("check", "earliest")] {
            config.create_native_config()?;
        }
        Ok(())
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", &self.client_id);
        // Notice a broker's return soon: the promise is one recovery time-out plus ten seconds.
        config.set("reconnect.backoff.ms", "100");
        config.set("reconnect.backoff.max.ms", "2000");
        config.set("socket.keepalive.enable", "true");
        // A connection that died in silence is given up after this time, not after a minute.
        config.set("socket.timeout.ms", "10000");
        // librdkafka's property `debug` chooses what it tells; without it nothing below a warning is of interest.
        let chatty = self.properties.contains_key("debug");
        config.set_log_level(if chatty { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Warning });
        config
    }

    fn apply(&self, config: &mut ClientConfig, known: impl Fn(&str) -> bool) {
        for (name, value) in &self.properties {
            if known(name) {
                config.set(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> ClientSettings {
        ClientSettings {
            brokers: "localhost:1".into(),
            client_id: "test".into(),
            properties: properties.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        }
    }

    #[test]
    fn safety_critical_properties_cannot_be_overridden() {
        let settings =
            settings(&[("acks", "0"), ("enable.idempotence", "false"), ("enable.auto.offset.store", "true")]);
        assert_eq!(settings.producer().get("acks"), Some("all"));
        assert_eq!(settings.producer().get("enable.idempotence"), Some("true"));
        assert_eq!(settings.consumer("g", "earliest").get("enable.auto.offset.store"), Some("false"));
    }

    #[test]
    fn each_client_gets_the_properties_it_knows() {
        let settings = settings(&[("linger.ms", "7"), ("session.timeout.ms", "6000"), ("security.protocol", "ssl")]);
        assert_eq!(settings.producer().get("linger.ms"), Some("7"));
        assert_eq!(settings.producer().get("session.timeout.ms"), None);
        assert_eq!(settings.consumer("g", "earliest").get("session.timeout.ms"), Some("6000"));
        assert_eq!(settings.consumer("g", "earliest").get("linger.ms"), None);
        assert_eq!(settings.admin().get("security.protocol"), Some("ssl"));
        settings.check().expect("all known");
    }

    #[test]
    fn batches_are_as_small_as_topics_want_them_unless_the_operator_says_otherwise() {
        let size = |settings: ClientSettings| settings.producer().get("batch.size").map(str::to_owned);
        let usual = settings(&[]);
        assert_eq!(size(usual.clone()).as_deref(), Some("262144"));
        assert!(usual.with_batches_of(262_144).is_none());
        assert_eq!(usual.with_batches_of(9_000).and_then(size).as_deref(), Some("9000"));
        assert!(settings(&[("batch.size", "20000")]).with_batches_of(9_000).is_none());
    }

    #[test]
    fn an_unknown_property_is_named() {
        let error = settings(&[("no.such.thing", "1")]).check().expect_err("unknown").to_string();
        assert!(error.contains("no.such.thing"), "{error}");
    }
}
