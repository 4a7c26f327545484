//! Records and the offsets that they stand for, written together or not at all.

use std::sync::Arc;

use async_trait::async_trait;

use super::publisher::PublishError;
use super::source::Settled;
use crate::domain::record::OutboundRecord;

/// An assignment of a partition: topic, partition, and the number that its records carry.
pub type Assignment = (Arc<str>, i32, u64);

/// Why a transaction was not committed. Nothing of it is visible, and no offset moved.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransactionError {
    /// The same may be tried again.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// These records, by position, will never be accepted.
    #[error("{} records were refused", .0.len())]
    Rejected(Vec<(usize, PublishError)>),
    /// These assignments of partitions are over; whoever has the partitions now gets their records again.
    #[error("{} partitions were taken away", .0.len())]
    Moved(Vec<Assignment>),
    /// This producer can write no more: another one has its name, or it failed for good.
    #[error("the transactional producer ended: {0}")]
    Ended(String),
}

/// Transactions of one consumer group, one at a time.
#[async_trait]
pub trait Transactions: Send + Sync {
    /// Fences off whoever had this producer's name before, and aborts what they left open.
    ///
    /// # Errors
    /// [`TransactionError::Aborted`] when it may be tried again, else [`TransactionError::Ended`].
    async fn init(&self) -> Result<(), TransactionError>;

    /// Writes records, in order, and moves the group's offsets past what is settled, in one transaction.
    ///
    /// # Errors
    /// See [`TransactionError`]; the transaction is aborted before this returns.
    async fn commit(&self, records: &[&OutboundRecord], settled: &[Settled]) -> Result<(), TransactionError>;
}
