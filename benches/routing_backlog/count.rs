//! Counting what came out, by reading it.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use uuid::Uuid;

use crate::cluster::{Cluster, Stall};
use crate::machine::thousands;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    pub event_id: &'a str,
    pub event_type: &'a str,
}

#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub distinct: u64,
    pub duplicates: u64,
    /// Records that are no requests.
    pub others: u64,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [distinct, duplicates, others] = [self.distinct, self.duplicates, self.others].map(thousands);
        write!(f, "{distinct} distinct requests (duplicates: {duplicates}, other records: {others})")
    }
}

pub fn requests(cluster: &Cluster, topic: &str) -> Result<Found> {
    let partitions = cluster.partitions(topic)?;
    let mut config = cluster.settings.admin();
    config.set("group.id", format!("{topic}-count")).set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut read, mut others, mut ids, mut stall) = (0, 0, HashSet::new(), Stall::new());
    let mut unread = partitions;
    while unread > 0 {
        stall.check(read)?;
        let message = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(_))) => {
                unread -= 1;
                continue;
            }
            Some(message) => message?,
        };
        read += 1;
        match request_id(message.payload().unwrap_or_default()) {
            Some(id) => {
                ids.insert(id);
            }
            None => others += 1,
        }
    }
    let distinct = ids.len() as u64;
    Ok(Found { distinct, duplicates: read - others - distinct, others })
}

pub fn request_id(value: &[u8]) -> Option<Uuid> {
    let request: Request<'_> = serde_json::from_slice(value).ok()?;
    (request.event_type == "NotificationRequested").then(|| Uuid::parse_str(request.event_id).ok())?
}
