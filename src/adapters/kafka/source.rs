//! A consumer group's source. The librdkafka consumer lives on a thread of its own, which polls whatever happens:
//! handlers never delay it, and it is never dropped on an arbiter.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, watch};

use super::client_config::ClientSettings;
use super::poller::Poller;
use super::tracker::Tracker;
use super::transactions::KafkaTransactions;
use crate::domain::record::Record;
use crate::ports::source::{EventSource, PauseReason, Settled, SourceEnded, SourceStatus};

/// Batches between the poll thread and the group's loop.
const QUEUED_BATCHES: usize = 2;

/// How a group consumes.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Brokers and properties.
    pub client: ClientSettings,
    /// The group's id.
    pub group: String,
    /// A static member's name (KIP-345): its restart moves nobody's partitions.
    pub member: Option<String>,
    /// What it subscribes to.
    pub topics: Vec<Arc<str>>,
    /// `earliest` or `latest`, for a group without a committed offset.
    pub auto_offset_reset: String,
    /// Records handed over together.
    pub batch: usize,
    /// How long a rebalance waits for work in hand.
    pub revoke_patience: Duration,
    /// Offsets are committed by [`KafkaSource::transactions`], not by the consumer.
    pub transactional: bool,
}

pub(super) type Batch = Result<Vec<Record>, SourceEnded>;

/// See the module.
pub struct KafkaSource {
    group: String,
    tracker: Arc<Tracker>,
    queue: Mutex<Queue>,
    stop: Arc<AtomicBool>,
    ended: watch::Receiver<bool>,
}

struct Queue {
    batches: mpsc::Receiver<Batch>,
    rest: VecDeque<Record>,
}

impl KafkaSource {
    /// Starts consuming.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration, or no thread can be had.
    pub fn start(settings: SourceSettings) -> Result<Arc<Self>, SourceEnded> {
        let tracker = Arc::new(Tracker::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (batches_in, batches) = mpsc::channel(QUEUED_BATCHES);
        let (ended_in, ended) = watch::channel(false);
        let group = settings.group.clone();
        let name = format!("poll-{}", settings.topics.first().map_or("", |topic| topic));
        let poller = Poller::new(settings, &tracker, &stop, batches_in)?;
        thread::Builder::new()
            .name(name)
            .spawn(move || {
                poller.run();
                let _ = ended_in.send(true);
            })
            .map_err(|e| SourceEnded(format!("no thread for the consumer: {e}")))?;
        let queue = Mutex::new(Queue { batches, rest: VecDeque::new() });
        Ok(Arc::new(Self { group, tracker, queue, stop, ended }))
    }

    /// Transactions that move this group's offsets, by a producer with this name. The same name is the same producer
    /// for ever: a new one fences the old one off.
    pub fn transactions(&self, client: &ClientSettings, name: &str) -> KafkaTransactions {
        KafkaTransactions::new(client, &self.group, name, Arc::clone(&self.tracker))
    }
}

#[async_trait]
impl EventSource for KafkaSource {
    async fn next_batch(&self, max: usize) -> Result<Vec<Record>, SourceEnded> {
        let mut queue = self.queue.lock().await;
        loop {
            if queue.rest.is_empty() {
                let ended = || SourceEnded("its thread ended".to_owned());
                queue.rest = queue.batches.recv().await.ok_or_else(ended)??.into();
            }
            let take = max.min(queue.rest.len());
            let records = self.tracker.take(queue.rest.drain(..take).collect());
            if !records.is_empty() {
                return Ok(records);
            }
        }
    }

    fn is_current(&self, record: &Record) -> bool {
        let partition = (Arc::clone(&record.at.topic), record.at.partition);
        self.tracker.assignment(&partition) == Some(record.assignment)
    }

    fn settle(&self, records: &[Settled]) {
        self.tracker.settle(records);
    }

    fn pause(&self, reason: PauseReason) {
        self.tracker.set_pause(reason, true);
    }

    fn resume(&self, reason: &PauseReason) {
        self.tracker.set_pause(reason.clone(), false);
    }

    fn status(&self) -> SourceStatus {
        self.tracker.status()
    }

    async fn close(&self, deadline: Duration) {
        self.stop.store(true, Ordering::Release);
        let mut ended = self.ended.clone();
        if tokio::time::timeout(deadline, ended.wait_for(|e| *e)).await.is_err() {
            tracing::warn!("the consumer does not close in time; the broker will notice its absence");
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
