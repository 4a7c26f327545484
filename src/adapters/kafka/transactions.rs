//! The transactional producer of one consumer group: records and offsets in one transaction.
//!
//! The offsets go with the group's member and generation (KIP-447), so the broker refuses those of a member that lost
//! its partitions without knowing it; the producer's name fences off an older producer of the same name.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client_config::ClientSettings;
use super::publisher::{BatchAcks, Context, Native, classify, enqueue};
use super::tracker::{Partition, Tracker};
use crate::domain::record::OutboundRecord;
use crate::ports::publisher::PublishError;
use crate::ports::source::Settled;
use crate::ports::transactions::{TransactionError, Transactions};

/// One call waits so long; a call that may be repeated is.
const CALL: Duration = Duration::from_secs(5);
/// A step of a transaction is repeated so often before the transaction is aborted.
const REPEATS: u32 = 4;

/// See the module.
pub struct KafkaTransactions {
    producer: Arc<Native>,
    tracker: Arc<Tracker>,
}

impl KafkaTransactions {
    pub(super) fn new(settings: &ClientSettings, name: &str, tracker: Arc<Tracker>) -> Result<Self, KafkaError> {
        let producer: Native = settings.transactional(name).create_with_context(Context)?;
        Ok(Self { producer: Arc::new(producer), tracker })
    }

    /// librdkafka's transaction calls block: they run where that harms nobody.
    async fn call(
        &self,
        call: impl Fn(&Native) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), TransactionError> {
        let producer = Arc::clone(&self.producer);
        let repeated = tokio::task::spawn_blocking(move || {
            let mut result = call(&producer);
            for _ in 0..REPEATS {
                match &result {
                    Err(KafkaError::Transaction(error)) if error.is_retriable() => result = call(&producer),
                    _ => break,
                }
            }
            result
        });
        match repeated.await {
            Ok(result) => result.map_err(|error| read(&error)),
            Err(error) => Err(TransactionError::Ended(error.to_string())),
        }
    }

    async fn write(
        &self,
        records: &[&OutboundRecord],
        positions: Vec<(Partition, i64)>,
        member: Arc<ConsumerGroupMetadata>,
    ) -> Result<(), TransactionError> {
        let batch = BatchAcks::of(records.len());
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = enqueue(&self.producer, record, &batch, index).await {
                batch.fail(index, classify(&error));
                batch.one_less();
            }
        }
        let (rejected, other): (Vec<_>, Vec<_>) =
            batch.collected().await.into_iter().partition(|(_, error)| matches!(error, PublishError::Rejected { .. }));
        if let Some((_, error)) = other.first() {
            // A record that is too large takes its batch with it; the others of that batch fail for its sake.
            return Err(if rejected.is_empty() {
                self.fatal().unwrap_or_else(|| TransactionError::Aborted(error.to_string()))
            } else {
                TransactionError::Rejected(rejected)
            });
        }
        if !rejected.is_empty() {
            return Err(TransactionError::Rejected(rejected));
        }
        self.call(move |producer| {
            let mut offsets = TopicPartitionList::with_capacity(positions.len());
            for ((topic, partition), position) in &positions {
                offsets.add_partition_offset(topic, *partition, Offset::Offset(*position))?;
            }
            producer.send_offsets_to_transaction(&offsets, &member, CALL)
        })
        .await?;
        self.call(|producer| producer.commit_transaction(CALL)).await
    }

    fn fatal(&self) -> Option<TransactionError> {
        let (_, reason) = self.producer.client().fatal_error()?;
        Some(TransactionError::Ended(reason))
    }
}

#[async_trait]
impl Transactions for KafkaTransactions {
    async fn init(&self) -> Result<(), TransactionError> {
        self.call(|producer| producer.init_transactions(CALL)).await
    }

    async fn commit(&self, records: &[&OutboundRecord], settled: &[Settled]) -> Result<(), TransactionError> {
        let (positions, member) = self.tracker.reached(settled).map_err(TransactionError::Moved)?;
        let member = member.ok_or_else(|| TransactionError::Aborted("the group has no member yet".to_owned()))?;
        self.call(|producer| producer.begin_transaction()).await?;
        let written = self.write(records, positions, member).await;
        if let Err(error) = &written
            && !matches!(error, TransactionError::Ended(_))
        {
            // What cannot be aborted is not usable any more.
            let aborted = self.call(|producer| producer.abort_transaction(CALL)).await;
            aborted.map_err(|e| TransactionError::Ended(format!("{error}, and the abort failed: {e}")))?;
        }
        written
    }
}

impl Drop for KafkaTransactions {
    fn drop(&mut self) {
        // Dropping a client blocks: not on the caller's thread.
        let producer = Arc::clone(&self.producer);
        thread::spawn(move || drop(producer));
    }
}

/// What librdkafka asks to be done about an error of its transactions (<https://github.com/confluentinc/librdkafka>,
/// INTRODUCTION.md, "Transactional producer"): abort, or give the producer up.
fn read(error: &KafkaError) -> TransactionError {
    match error {
        KafkaError::Transaction(e) if e.txn_requires_abort() || e.is_retriable() => {
            TransactionError::Aborted(error.to_string())
        }
        KafkaError::Flush(_) => TransactionError::Aborted(error.to_string()),
        _ => TransactionError::Ended(error.to_string()),
    }
}
