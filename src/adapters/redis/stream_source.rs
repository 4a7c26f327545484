//! A consumer group of a Redis stream as a source of events. Unlike Kafka's, its entries are acknowledged one by one, and
//! what is not stays pending in Redis under this consumer's name until it comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::Client;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::stream_commands::{Names, StreamCommands};
use super::stream_entry::Reading;
use super::stream_hand::Hand;
use super::stream_keeper::{End, Keeper};
use super::stream_reader::Reader;
use crate::domain::record::Record;
use crate::ports::source::{EventSource, PauseReason, Settled, SourceEnded, SourceStatus};

/// How a group consumes a stream.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// `redis://…` or `rediss://…`.
    pub url: String,
    /// The group.
    pub group: String,
    /// Names this consumer among those of its group.
    pub consumer: String,
    /// The name is used for this process only.
    pub passing_name: bool,
    /// How entries become records.
    pub reading: Reading,
    /// Entries read and not acknowledged, at most.
    pub most: usize,
    /// Entries idle for so long are taken from their consumer.
    pub claim_idle: Duration,
    /// See [`Keeper::trim_max_length`].
    pub trim_max_length: Option<u64>,
}

/// See the module.
pub struct RedisStreamSource {
    hand: Arc<Hand>,
    stream: Arc<str>,
    stop: CancellationToken,
    orderly: Arc<AtomicBool>,
    ended: watch::Receiver<bool>,
}

impl RedisStreamSource {
    /// Starts reading on this runtime; Redis need not be there yet.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn start(settings: StreamSettings, io: &Handle) -> Result<Arc<Self>, SourceEnded> {
        let StreamSettings { group, consumer, reading, claim_idle, .. } = settings;
        let client = Client::open(settings.url).map_err(|e| SourceEnded(format!("redis.url: {e}")))?;
        let stream = Arc::clone(&reading.stream);
        let names = Names { stream: Arc::clone(&stream), group: group.clone(), consumer };
        let (hand, stop) = (Arc::new(Hand::default()), CancellationToken::new());
        let reader = Reader {
            commands: StreamCommands::new(client.clone(), names.clone()),
            reading,
            hand: Arc::clone(&hand),
            most: settings.most,
            claim_idle,
            stop: stop.clone(),
        };
        let keeper = Keeper {
            commands: StreamCommands::new(client, names),
            group,
            hand: Arc::clone(&hand),
            claim_idle,
            trim_max_length: settings.trim_max_length,
            leaves: settings.passing_name,
        };
        let orderly = Arc::new(AtomicBool::new(false));
        let (ended_in, ended) = watch::channel(false);
        io.spawn(keep_reading(reader, keeper, Arc::clone(&orderly), ended_in));
        Ok(Arc::new(Self { hand, stream, stop, orderly, ended }))
    }
}

/// Both halves, until the stop. What the reader's last answer brings is handed back too, so the keeper ends after it.
async fn keep_reading(reader: Reader, keeper: Keeper, orderly: Arc<AtomicBool>, ended: watch::Sender<bool>) {
    let read_out = CancellationToken::new();
    let end = || if orderly.load(Ordering::Acquire) { End::Orderly } else { End::Abrupt };
    let reading = async {
        reader.run().await;
        read_out.cancel();
    };
    futures::future::join(reading, keeper.run(read_out.clone(), end)).await;
    let _ = ended.send(true);
}

#[async_trait]
impl EventSource for RedisStreamSource {
    async fn next_batch(&self, max: usize) -> Result<Vec<Record>, SourceEnded> {
        let mut ended = self.ended.clone();
        loop {
            let records = self.hand.take(max);
            if !records.is_empty() {
                return Ok(records);
            }
            tokio::select! {
                () = self.hand.queued.notified() => {}
                _ = ended.wait_for(|ended| *ended) => return Err(SourceEnded("its reader ended".to_owned())),
            }
        }
    }

    fn settle(&self, records: &[Settled]) {
        self.hand.settle(records);
    }

    fn pause(&self, reason: PauseReason) {
        self.hand.set_pause(reason, true);
    }

    fn resume(&self, reason: &PauseReason) {
        self.hand.set_pause(reason.clone(), false);
    }

    fn status(&self) -> SourceStatus {
        self.hand.status(&self.stream)
    }

    async fn close(&self, deadline: Duration) {
        self.orderly.store(true, Ordering::Release);
        self.stop.cancel();
        let mut ended = self.ended.clone();
        if tokio::time::timeout(deadline, ended.wait_for(|ended| *ended)).await.is_err() {
            tracing::warn!(
                stream = &*self.stream,
                "the consumer does not close in time; what it has in hand comes again"
            );
        }
    }
}

impl Drop for RedisStreamSource {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
