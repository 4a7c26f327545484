//! Reads a topic from its present end, outside any group: for the load test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::client_config::ClientSettings;
use super::poller::copy_headers;
use crate::domain::record::Headers;

/// A record that appeared.
#[derive(Debug)]
pub struct Followed {
    /// The record's value.
    pub value: Vec<u8>,
    /// The record's headers.
    pub headers: Headers,
    /// When it was seen.
    pub seen: Instant,
}

/// Follows until it is dropped.
pub struct Follower {
    records: mpsc::Receiver<Followed>,
    seen: usize,
    stop: Arc<AtomicBool>,
}

impl Follower {
    /// Begins at the end that the topic has now; returns when that is known. Blocks.
    ///
    /// # Errors
    /// When no broker answers in time, or the topic is missing.
    pub fn start(settings: &ClientSettings, topic: &str, timeout: Duration) -> Result<Self, KafkaError> {
        // A group id is required by librdkafka, but nothing is joined or committed.
        let mut config = settings.consumer("notification-service-follower", "latest");
        config.set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
        let partitions = metadata.topics().first().map_or(0, |t| t.partitions().len());
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions as i32 {
            let (_, end) = consumer.fetch_watermarks(topic, partition, timeout)?;
            assignment.add_partition_offset(topic, partition, Offset::Offset(end))?;
        }
        consumer.assign(&assignment)?;
        let (send, records) = mpsc::channel(10_000);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                    let value = message.payload().map(<[u8]>::to_vec).unwrap_or_default();
                    let followed = Followed { value, headers: copy_headers(&message), seen: Instant::now() };
                    if send.blocking_send(followed).is_err() {
                        break;
                    }
                }
            }
        });
        Ok(Self { records, seen: 0, stop })
    }

    /// The next record; `None` when the follower's thread ended.
    pub async fn next(&mut self) -> Option<Followed> {
        let record = self.records.recv().await;
        self.seen += usize::from(record.is_some());
        record
    }

    /// The next record, if there is one now.
    pub fn try_next(&mut self) -> Option<Followed> {
        let record = self.records.try_recv().ok();
        self.seen += usize::from(record.is_some());
        record
    }

    /// How many records it has given out.
    pub fn seen(&self) -> usize {
        self.seen
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
