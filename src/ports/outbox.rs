//! Messages that wait in the database for their publication.

use async_trait::async_trait;
use tokio::sync::watch;

use super::ledger::{LedgerError, OutboxKind, OutboxMessage};

/// Messages of one kind that wait together: they were settled at once, and are published and removed at once.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Waiting {
    pub id: i64,
    pub kind: OutboxKind,
    pub messages: Vec<OutboxMessage>,
    /// Set for what a stranger's edit made unreadable; there are no messages then.
    pub flaw: Option<Flaw>,
}

/// What waits and cannot be read.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Flaw {
    pub reason: String,
    /// As it stands in the outbox.
    pub text: String,
}

/// Lifecycle events that this process settled a moment ago. The database has them too, reserved for this process until
/// the time given: they can be published without being read there.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct FreshEvents {
    /// As in [`Waiting`], in no particular order.
    pub ids: Vec<i64>,
    pub messages: Vec<OutboxMessage>,
    /// Milliseconds since 1970.
    pub reserved_until_ms: i64,
}

/// Messages that wait together at most.
pub const MOST_TOGETHER: usize = 50;

/// What this process added so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// Batches with messages of any kind.
    pub batches: u64,
    /// Those among them with messages that are not fresh: they have to be reserved.
    pub unreserved: u64,
}

/// The outbox: written by [`super::ledger::NotificationLedger::settle`], emptied by the relay.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// What this process settled a moment ago, each batch once. What is lost on the way from here is found by
    /// [`Self::reserve`] when its reservation ends.
    fn fresh(&self) -> Option<FreshEvents>;

    /// The oldest messages that nobody has reserved, reserved until the time given (milliseconds since 1970): so many
    /// batches of them at most, each of which has [`MOST_TOGETHER`] at most.
    ///
    /// # Errors
    /// When the outbox cannot be read.
    async fn reserve(&self, now_ms: i64, until_ms: i64, limit: usize) -> Result<Vec<Waiting>, LedgerError>;

    /// Removes messages that were published.
    ///
    /// # Errors
    /// When they are still there; they will be published again under the same id.
    async fn remove(&self, ids: &[i64]) -> Result<(), LedgerError>;

    /// Changes whenever this process adds a message. While nobody watches, nothing is kept for [`Self::fresh`].
    fn added(&self) -> watch::Receiver<Added>;
}
