//! The cluster and the topics of a round.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use notification_service::adapters::kafka::ClientSettings;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::machine::{progress, thousands};
use crate::service::{SERVICE, service_command};
use crate::{ANSWER, INTERRUPTED, PATIENCE};

const COPY_PARTITIONS: i32 = 3;

pub struct Cluster {
    pub settings: ClientSettings,
    pub admin: AdminClient<DefaultClientContext>,
    /// In no group: answers questions about offsets.
    pub observer: BaseConsumer,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    pub fn new(brokers: String) -> Result<Self> {
        let client_id = "routing-backlog".to_owned();
        let settings = ClientSettings { brokers, client_id, properties: Default::default() };
        let admin = settings.admin().create()?;
        let observer = settings.admin().create()?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Self { settings, admin, observer, runtime })
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// With librdkafka's defaults, but for one: a consumer that has fetched ahead enough would rest for a second, which
    /// is longer than what it has lasts.
    pub fn consumer_config(&self, group: &str) -> ClientConfig {
        let mut config = self.settings.admin();
        config.set("group.id", group).set("auto.offset.reset", "earliest").set("fetch.queue.backoff.ms", "20");
        config
    }

    pub fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        Ok(self.consumer_config(group).create()?)
    }

    /// The positions of a group, seen from outside of it.
    pub fn positions_of(&self, group: &str, topic: &str) -> Result<Positions> {
        Ok(Positions { consumer: self.consumer(group)?, topic: topic.to_owned(), partitions: self.partitions(topic)? })
    }

    pub fn partitions(&self, topic: &str) -> Result<i32> {
        let metadata = self.observer.fetch_metadata(Some(topic), ANSWER)?;
        let count = metadata.topics().iter().map(|topic| topic.partitions().len()).sum::<usize>();
        ensure!(count > 0, "there is no topic {topic}");
        Ok(i32::try_from(count)?)
    }

    /// The sum of the end offsets; the number of records, as nothing here compacts, expires or uses transactions.
    pub fn end_of(&self, topic: &str) -> Result<u64> {
        self.end_of_partitions(topic, self.partitions(topic)?)
    }

    pub fn end_of_partitions(&self, topic: &str, partitions: i32) -> Result<u64> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..partitions {
            asked.add_partition_offset(topic, partition, Offset::End)?;
        }
        // One request for all partitions, other than with `fetch_watermarks`.
        let answer = self.observer.offsets_for_times(asked, ANSWER)?;
        let ends = answer.elements().into_iter().map(|element| match element.offset() {
            Offset::Offset(end) => Ok(u64::try_from(end)?),
            other => bail!("no end offset of {topic}: {:?}, {other:?}", element.error()),
        });
        ends.sum()
    }
}

/// How far a group has come in a topic.
pub struct Positions {
    consumer: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl Positions {
    pub fn sum(&self) -> Result<u64> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions {
            asked.add_partition(&self.topic, partition);
        }
        let answer = self.consumer.committed_offsets(asked, ANSWER)?;
        let positions = answer.elements().into_iter().map(|element| match element.offset() {
            Offset::Offset(position) => Ok(u64::try_from(position)?),
            _ => Ok(0),
        });
        positions.sum()
    }
}

/// The topics of a round, which exist until this is dropped.
pub struct Topics<'a> {
    pub cluster: &'a Cluster,
    pub prefix: &'a str,
}

impl Topics<'_> {
    pub fn orders(&self) -> String {
        format!("{}order-events", self.prefix)
    }

    pub fn requests(&self) -> String {
        format!("{}notification-events", self.prefix)
    }

    pub fn dead_letters(&self) -> String {
        format!("{}dead-letter-queue", self.prefix)
    }

    pub fn copy(&self) -> String {
        format!("{}bare-copy", self.prefix)
    }

    pub fn create(&self) -> Result<()> {
        let output = service_command(&self.cluster.settings.brokers, self.prefix)
            .args(["topics", "create"])
            .output()
            .with_context(|| format!("{SERVICE} cannot be run"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`topics create` ended with {}: {said}", output.status);
        let copy = self.copy();
        let plan = NewTopic::new(&copy, COPY_PARTITIONS, TopicReplication::Fixed(1));
        let made = self.cluster.runtime.block_on(self.cluster.admin.create_topics([&plan], &admin_options()))?;
        made.into_iter().try_for_each(|made| made.map(drop)).map_err(|(topic, code)| anyhow!("topic {topic}: {code}"))
    }
}

impl Drop for Topics<'_> {
    fn drop(&mut self) {
        let names = self.cluster.observer.fetch_metadata(None, ANSWER).map(|metadata| {
            let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
            names.filter(|name| name.starts_with(self.prefix)).collect::<Vec<_>>()
        });
        let deleted = names.and_then(|names| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.cluster.runtime.block_on(self.cluster.admin.delete_topics(&names, &admin_options()))
        });
        if let Err(error) = deleted {
            progress(&format!("topics {}* could not be deleted: {error}", self.prefix));
        }
    }
}

pub fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER))
}

/// Notices when nothing moves any more, and when a signal asks for the end.
pub struct Stall {
    pub count: u64,
    pub since: Instant,
}

impl Stall {
    pub fn new() -> Self {
        Self { count: 0, since: Instant::now() }
    }

    pub fn check(&mut self, count: u64) -> Result<()> {
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        if count != self.count {
            *self = Self { count, since: Instant::now() };
        }
        ensure!(self.since.elapsed() < PATIENCE, "nothing moved for {PATIENCE:?} after {} records", thousands(count));
        Ok(())
    }
}
