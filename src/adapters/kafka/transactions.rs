//! The transactional producer of one consumer group: records and offsets in one transaction.
//!
//! The offsets go with the group's member and generation (KIP-447), so the broker refuses those of a member that lost
//! its partitions without knowing it; the producer's name fences off an older producer of the same name.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Mutex;

use super::client_config::ClientSettings;
use super::publisher::{BatchAcks, Context, Native, classify, enqueue};
use super::tracker::{Partition, Tracker};
use crate::domain::record::OutboundRecord;
use crate::ports::publisher::PublishError;
use crate::ports::source::Settled;
use crate::ports::transactions::{TransactionError, Transactions};

/// One call waits so long; a call that may be repeated is.
const CALL: Duration = Duration::from_secs(5);
/// It is repeated so often before the producer is given up.
const REPEATS: u32 = 1;

/// See the module.
pub struct KafkaTransactions {
    settings: ClientSettings,
    name: String,
    tracker: Arc<Tracker>,
    /// A producer that failed in a transaction is given up: the next of its name aborts what it left open. That is
    /// certain, where librdkafka's way back from a failed transaction depends on how it failed.
    producer: Mutex<Option<Producer>>,
}

impl KafkaTransactions {
    pub(super) fn new(settings: &ClientSettings, name: &str, tracker: Arc<Tracker>) -> Self {
        Self { settings: settings.clone(), name: name.to_owned(), tracker, producer: Mutex::new(None) }
    }

    /// The producer, able to begin a transaction.
    async fn ready<'a>(&self, slot: &'a mut Option<Producer>) -> Result<&'a Producer, TransactionError> {
        if slot.is_none() {
            let producer = Producer::new(&self.settings, &self.name)?;
            producer.call(|native| native.init_transactions(CALL)).await?;
            *slot = Some(producer);
        }
        slot.as_ref().ok_or_else(|| TransactionError::Aborted("no producer".to_owned()))
    }
}

#[async_trait]
impl Transactions for KafkaTransactions {
    async fn init(&self) -> Result<(), TransactionError> {
        self.ready(&mut *self.producer.lock().await).await.map(drop)
    }

    async fn commit(&self, records: &[&OutboundRecord], settled: &[Settled]) -> Result<(), TransactionError> {
        let mut slot = self.producer.lock().await;
        let producer = self.ready(&mut slot).await?;
        let (positions, member) = self.tracker.reached(settled).map_err(TransactionError::Moved)?;
        let member = member.ok_or_else(|| TransactionError::Aborted("the group has no member yet".to_owned()))?;
        let error = match producer.write(records, positions, member).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let aborted = match error {
            TransactionError::Rejected(_) => producer.call(|native| native.abort_transaction(CALL)).await.is_ok(),
            _ => false,
        };
        if !aborted {
            *slot = None;
        }
        Err(error)
    }
}

/// One incarnation of the producer.
struct Producer(Option<Arc<Native>>);

impl Producer {
    fn new(settings: &ClientSettings, name: &str) -> Result<Self, TransactionError> {
        let native = settings.transactional(name).create_with_context(Context);
        native.map(|native: Native| Self(Some(Arc::new(native)))).map_err(|e| TransactionError::Ended(e.to_string()))
    }

    fn native(&self) -> Result<&Arc<Native>, TransactionError> {
        self.0.as_ref().ok_or_else(|| TransactionError::Aborted("the producer is gone".to_owned()))
    }

    /// librdkafka's transaction calls block: they run where that harms nobody.
    async fn call(
        &self,
        call: impl Fn(&Native) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), TransactionError> {
        let native = Arc::clone(self.native()?);
        let repeated = tokio::task::spawn_blocking(move || {
            let mut result = call(&native);
            for _ in 0..REPEATS {
                match &result {
                    Err(KafkaError::Transaction(error)) if error.is_retriable() => result = call(&native),
                    _ => break,
                }
            }
            result.map_err(|error| failed(&native, error.to_string()))
        });
        repeated.await.map_err(|error| TransactionError::Aborted(error.to_string()))?
    }

    async fn write(
        &self,
        records: &[&OutboundRecord],
        positions: Vec<(Partition, i64)>,
        member: Arc<ConsumerGroupMetadata>,
    ) -> Result<(), TransactionError> {
        self.call(|native| native.begin_transaction()).await?;
        let native = self.native()?;
        let batch = BatchAcks::of(records.len());
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = enqueue(native, record, &batch, index).await {
                batch.fail(index, classify(&error));
                batch.one_less();
            }
        }
        let failures = batch.collected().await;
        // A record that is too large takes its batch with it; the others of that batch fail for its sake.
        let (rejected, other): (Vec<_>, Vec<_>) =
            failures.into_iter().partition(|(_, error)| matches!(error, PublishError::Rejected { .. }));
        if !rejected.is_empty() {
            return Err(TransactionError::Rejected(rejected));
        }
        if let Some((_, error)) = other.first() {
            return Err(failed(native, error.to_string()));
        }
        self.call(move |native| {
            let mut offsets = TopicPartitionList::with_capacity(positions.len());
            for ((topic, partition), position) in &positions {
                offsets.add_partition_offset(topic, *partition, Offset::Offset(*position))?;
            }
            native.send_offsets_to_transaction(&offsets, &member, CALL)
        })
        .await?;
        self.call(|native| native.commit_transaction(CALL)).await
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Dropping a client blocks: not on the caller's thread.
        let native = self.0.take();
        thread::spawn(move || drop(native));
    }
}

/// A failed transaction may be tried again by another producer, unless this one was fenced off.
fn failed(native: &Native, why: String) -> TransactionError {
    match native.client().fatal_error().filter(|(code, _)| is_fenced(*code)) {
        Some((_, reason)) => TransactionError::Ended(reason),
        None => TransactionError::Aborted(why),
    }
}

/// Another producer took the name, or the coordinator gave this one up.
fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::FencedInstanceId
    )
}
