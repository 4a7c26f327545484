//! A corner of the real Kafka for one test: topics and groups behind a prefix of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::events::Headers;
use super::servers::required;
use super::wait::{self, secs};

pub const ORDERS: &str = "order-events";
pub const USERS: &str = "user-events";
pub const PRODUCTS: &str = "product-events";
pub const NOTIFICATIONS: &str = "notification-events";
pub const DEAD_LETTERS: &str = "dead-letter-queue";

/// The service's consumer groups with their topics.
pub const GROUPS: [(&str, &str); 5] = [
    ("notification-service-orders", ORDERS),
    ("notification-service-users", USERS),
    ("notification-service-products", PRODUCTS),
    ("notification-service-delivery", NOTIFICATIONS),
    ("notification-service-dead-letters", DEAD_LETTERS),
];

const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Kafka {
    pub brokers: String,
    pub prefix: String,
}

/// A record as it stands on a topic.
#[derive(Debug, Clone)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl Record {
    /// A header as text; panics unless it is there exactly once.
    #[track_caller]
    pub fn header(&self, name: &str) -> String {
        let found: Vec<_> = self.headers.iter().filter(|(n, _)| n == name).collect();
        let [(_, Some(value))] = found[..] else { panic!("one header `{name}` is expected: {:?}", self.headers) };
        String::from_utf8(value.clone()).expect("UTF-8")
    }

    pub fn has_header(&self, name: &str, value: Option<&[u8]>) -> bool {
        self.headers.iter().any(|(n, v)| n == name && v.as_deref() == value)
    }
}

impl Kafka {
    pub fn corner() -> Self {
        Self { brokers: required("TEST_KAFKA_BROKERS"), prefix: format!("it-{}.", super::unique()) }
    }

    /// The real name of a topic or a group.
    pub fn named(&self, logical: &str) -> String {
        format!("{}{logical}", self.prefix)
    }

    /// Everything on a topic that is committed, from its beginning to its present end, by partition and offset.
    #[track_caller]
    pub fn read(&self, logical: &str) -> Vec<Record> {
        self.read_as(logical, "read_committed")
    }

    /// With what aborted transactions left as well.
    #[track_caller]
    pub fn read_uncommitted(&self, logical: &str) -> Vec<Record> {
        self.read_as(logical, "read_uncommitted")
    }

    #[track_caller]
    fn read_as(&self, logical: &str, isolation: &str) -> Vec<Record> {
        let mut records = Vec::new();
        self.for_each(logical, isolation, |record| records.push(record));
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Reads a topic from its beginning to its present end, each partition in its order, and keeps nothing.
    #[track_caller]
    pub fn for_each(&self, logical: &str, isolation: &str, mut see: impl FnMut(Record)) {
        let topic = self.named(logical);
        let mut config = self.config("reader");
        config.set("isolation.level", isolation).set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut unread = BTreeSet::new();
        let mut assignment = TopicPartitionList::new();
        for (partition, start, _) in ends(&consumer, &topic) {
            assignment.add_partition_offset(&topic, partition, Offset::Offset(start)).expect("an offset");
            unread.insert(partition);
        }
        consumer.assign(&assignment).expect("assigned");
        let mut last = Instant::now();
        while !unread.is_empty() {
            assert!(last.elapsed() < secs(60), "{topic} cannot be read to its end: {unread:?}");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    see(record(&message));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    unread.remove(&partition);
                }
                // Errors pass: the client connects anew by itself.
                Some(Err(_)) | None => {}
            }
        }
    }

    /// Removes what stands on a topic now, as retention does.
    #[track_caller]
    pub fn cut(&self, logical: &str) {
        let topic = self.named(logical);
        let mut upto = TopicPartitionList::new();
        for (partition, _, end) in ends(&self.consumer("reader"), &topic) {
            upto.add_partition_offset(&topic, partition, Offset::Offset(end)).expect("an offset");
        }
        super::runtime().block_on(self.admin().delete_records(&upto, &AdminOptions::new())).expect("Kafka answers");
    }

    /// Lets a topic take no larger batches.
    #[track_caller]
    pub fn limit(&self, logical: &str, bytes: u32) {
        let (topic, bytes) = (self.named(logical), bytes.to_string());
        let limit = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", &bytes);
        let limited = super::runtime().block_on(self.admin().alter_configs(&[limit], &AdminOptions::new()));
        limited.expect("Kafka answers")[0].as_ref().expect("it is taken");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().expect("a client")
    }

    /// How many records stand on a topic.
    pub fn count(&self, logical: &str) -> u64 {
        let ends = ends(&self.consumer("reader"), &self.named(logical));
        ends.into_iter().map(|(_, start, end)| (end - start).unsigned_abs()).sum()
    }

    /// Waits until every group has committed the end of its topic.
    #[track_caller]
    pub fn wait_until_drained(&self, within: Duration) {
        self.wait_for_groups(&GROUPS, within);
    }

    /// Waits until the groups of the routing stage have committed the ends of their topics.
    #[track_caller]
    pub fn wait_until_routed(&self, within: Duration) {
        self.wait_for_groups(&GROUPS[..3], within);
    }

    /// How many dead letters the table's group has not committed.
    #[track_caller]
    pub fn letters_behind(&self) -> i64 {
        let (group, topic) = GROUPS[4];
        behind(&self.consumer(group), &self.named(topic), ANSWER).expect("Kafka answers")
    }

    /// True when a group of the routing stage has something left to do, or a transaction open: then nobody is told how
    /// far it has come.
    pub fn is_routing(&self) -> bool {
        GROUPS[..3].iter().any(|(group, topic)| {
            let (consumer, topic) = (self.consumer(group), self.named(topic));
            behind(&consumer, &topic, secs(1)).is_none_or(|records| records > 0)
        })
    }

    #[track_caller]
    fn wait_for_groups(&self, groups: &[(&str, &str)], within: Duration) {
        let consumers: Vec<_> = groups.iter().map(|(group, topic)| (self.consumer(group), self.named(topic))).collect();
        let waiting = || -> i64 {
            consumers
                .iter()
                .map(|(consumer, topic)| behind(consumer, topic, ANSWER).unwrap_or(i64::from(u32::MAX)))
                .sum()
        };
        let drained = wait::until_or_end(within, || (waiting() == 0).then_some(()));
        assert!(drained.is_some(), "{} records are not committed within {within:?}", waiting());
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        self.config(group).create().expect("a consumer")
    }

    fn config(&self, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("group.id", self.named(group));
        config.set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        config
    }
}

/// Partitions with their start and end.
fn ends(consumer: &BaseConsumer, topic: &str) -> Vec<(i32, i64, i64)> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).expect("Kafka answers");
    let partitions = metadata.topics().iter().flat_map(|found| found.partitions()).map(|partition| partition.id());
    let ends: Vec<_> = partitions
        .map(|partition| {
            // After an outage the partition may have no leader for a moment.
            let answer = || consumer.fetch_watermarks(topic, partition, ANSWER).ok();
            let (start, end) = wait::until("Kafka answers", ANSWER, answer);
            (partition, start, end)
        })
        .collect();
    assert!(!ends.is_empty(), "there is no topic {topic}");
    ends
}

/// Records between what the consumer's group has committed and the end. Without a member it can be asked by anyone.
fn behind(consumer: &BaseConsumer, topic: &str, within: Duration) -> Option<i64> {
    let ends = ends(consumer, topic);
    let mut asked = TopicPartitionList::new();
    for (partition, ..) in &ends {
        asked.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(asked, within).ok()?;
    let offset = |partition| match committed.find_partition(topic, partition).map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => Some(offset),
        _ => None,
    };
    Some(ends.into_iter().map(|(partition, start, end)| end - offset(partition).unwrap_or(start)).sum())
}

fn record(message: &impl rdkafka::Message) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}
