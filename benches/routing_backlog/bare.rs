//! The fastest that this machine could do: a loop that copies records from topic to topic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedHeaders, Message as _};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::cluster::{Cluster, Stall, Topics};
use crate::machine::{cpu_seconds, progress};
use crate::produce::Sender;
use crate::{ANSWER, Load};

pub struct Bare {
    pub elapsed: Duration,
    pub cpu: f64,
}

pub fn copy(cluster: &Cluster, topics: &Topics<'_>, events: u64) -> Result<Bare> {
    let (from, to) = (topics.orders(), topics.copy());
    let cpu_before = cpu_seconds("self")?;
    let consumer = cluster.consumer(&to)?;
    let mut sender = Sender::new(&cluster.settings)?;
    consumer.subscribe(&[&from])?;
    let mut began = None;
    let mut stall = Stall::new();
    while sender.sent < events {
        match consumer.poll(Duration::from_millis(1)) {
            Some(Ok(message)) => {
                began.get_or_insert_with(Instant::now);
                let headers = message.headers().map(BorrowedHeaders::detach);
                sender.send(&to, message.key(), message.payload(), headers)?;
            }
            Some(Err(error)) => progress(&format!("the bare loop's consumer goes on after an error: {error}")),
            None => {
                sender.producer.poll(Duration::ZERO);
                stall.check(sender.sent)?;
            }
        }
    }
    sender.finish()?;
    let elapsed = began.map(|began| began.elapsed()).context("no record")?;
    Ok(Bare { elapsed, cpu: cpu_seconds("self")? - cpu_before })
}

/// The same in transactions: records and offsets together, the next one begun when the last one is committed.
pub fn copy_in_transactions(cluster: &Cluster, topics: &Topics<'_>, load: Load) -> Result<Bare> {
    let (from, to) = (topics.orders(), topics.copy());
    let cpu_before = cpu_seconds("self")?;
    let consumer: BaseConsumer = cluster.consumer_config(&to).set("enable.auto.commit", "false").create()?;
    let mut sender = Sender::transactional(&cluster.settings, &to)?;
    sender.producer.init_transactions(ANSWER)?;
    consumer.subscribe(&[&from])?;
    let mut began = None;
    let mut stall = Stall::new();
    while sender.sent < load.events {
        let end = load.events.min(sender.sent + load.per_transaction);
        let mut positions: BTreeMap<i32, i64> = BTreeMap::new();
        while sender.sent < end {
            match consumer.poll(Duration::from_millis(1)) {
                Some(Ok(message)) => {
                    if positions.is_empty() {
                        began.get_or_insert_with(Instant::now);
                        sender.producer.begin_transaction()?;
                    }
                    positions.insert(message.partition(), message.offset() + 1);
                    let headers = message.headers().map(BorrowedHeaders::detach);
                    sender.send(&to, message.key(), message.payload(), headers)?;
                }
                Some(Err(error)) => progress(&format!("the bare loop's consumer goes on after an error: {error}")),
                None => {
                    sender.producer.poll(Duration::ZERO);
                    stall.check(sender.sent)?;
                }
            }
        }
        // The acknowledgements are awaited by polling: librdkafka's own flush waits in steps of 100 ms.
        sender.finish()?;
        let mut offsets = TopicPartitionList::new();
        for (partition, position) in positions {
            offsets.add_partition_offset(&from, partition, Offset::Offset(position))?;
        }
        let member = consumer.group_metadata().context("no member")?;
        sender.producer.send_offsets_to_transaction(&offsets, &member, ANSWER)?;
        sender.producer.commit_transaction(ANSWER)?;
    }
    let elapsed = began.map(|began| began.elapsed()).context("no record")?;
    Ok(Bare { elapsed, cpu: cpu_seconds("self")? - cpu_before })
}
