//! A `read_committed` reader that follows the requests while the run goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::probe;
use crate::support::kafka::{Kafka, NOTIFICATIONS};

/// Of each topic, as the configuration has it by default.
pub const PARTITIONS: i32 = 3;

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    /// Arrivals of probes by their key.
    probes: Mutex<HashMap<Vec<u8>, Instant>>,
}

/// Reads on until its last copy is dropped.
#[derive(Clone)]
pub struct Watch(Arc<Seen>);

impl Watch {
    /// Follows the topic from its beginning.
    pub fn over(kafka: &Kafka) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka.brokers).set("group.id", kafka.named("watch")).set("log_level", "0");
        config.set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        config.set("reconnect.backoff.max.ms", "500").set("fetch.wait.max.ms", "50");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let topic = kafka.named(NOTIFICATIONS);
            all.add_partition_offset(&topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&all).expect("assigned");
        let seen = Arc::new(Seen::default());
        let wanted = Arc::downgrade(&seen);
        thread::spawn(move || {
            while let Some(seen) = wanted.upgrade() {
                // Errors pass: the client connects anew by itself.
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
                seen.requests.fetch_add(1, Ordering::Relaxed);
                if let Some(key) = message.key().filter(|key| probe::is_probe(key)) {
                    seen.probes.lock().expect("no panic").entry(key.to_vec()).or_insert_with(Instant::now);
                }
            }
        });
        Self(seen)
    }

    /// Requests so far, copies included.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// When the request of a probe arrived.
    pub fn arrival(&self, key: &[u8]) -> Option<Instant> {
        self.0.probes.lock().expect("no panic").get(key).copied()
    }
}
