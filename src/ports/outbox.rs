//! Messages that wait in the database for their publication.

use async_trait::async_trait;
use tokio::sync::watch;

use super::ledger::{LedgerError, OutboxKind};

/// A message that waits.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Waiting {
    pub id: i64,
    pub kind: OutboxKind,
    pub key: Option<Vec<u8>>,
    pub body: String,
    pub headers_json: String,
}

/// The outbox: written by [`super::ledger::NotificationLedger::settle`], emptied by the relay.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The oldest messages that nobody has reserved, reserved until the time given (milliseconds since 1970).
    ///
    /// # Errors
    /// When the outbox cannot be read.
    async fn reserve(&self, now_ms: i64, until_ms: i64, limit: usize) -> Result<Vec<Waiting>, LedgerError>;

    /// Removes published messages.
    ///
    /// # Errors
    /// When they are still there; they will be published again under the same id.
    async fn remove(&self, ids: &[i64]) -> Result<(), LedgerError>;

    /// Changes whenever this process adds a message.
    fn added(&self) -> watch::Receiver<u64>;
}
