//! Where events go.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;

use crate::domain::record::OutboundRecord;

/// Why a record was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// This record will never be accepted, such as one that is too large.
    #[error("{reason}")]
    Rejected {
        /// Stable, snake_case.
        code: &'static str,
        /// What the broker said.
        reason: String,
    },
    /// The broker cannot be reached or cannot work now; the record may or may not have been written.
    #[error("Kafka is unavailable: {0}")]
    Unavailable(String),
}

/// Resolves when every record is durable or has failed, to the failures by position in the batch.
pub type Acks = BoxFuture<'static, Vec<(usize, PublishError)>>;

/// Writes records durably, in order per key.
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// Hands all records to the producer, in order, waiting for room in its bounded queue. They are durable only when
    /// the returned [`Acks`] say so.
    async fn publish(&self, records: &[OutboundRecord]) -> Acks;

    /// Waits until nothing is in flight, at most this long. True when all is written.
    async fn flush(&self, deadline: Duration) -> bool;
}
