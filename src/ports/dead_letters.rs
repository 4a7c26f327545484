//! Where records go that cannot be processed.

use async_trait::async_trait;

use super::ledger::LedgerError;
use crate::domain::dead_letter::DeadLetter;
use crate::domain::stored_letter::StoredLetter;

/// The dead letters could not be made durable now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("dead letters could not be written: {0}")]
pub struct DeadLetterError(pub String);

/// Parks records durably.
#[async_trait]
pub trait DeadLetterSink: Send + Sync {
    /// Returns only when every letter is durable; until then no offset of theirs may move.
    ///
    /// # Errors
    /// When the letters are not durable; nothing is lost, the caller tries again.
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError>;
}

/// A dead letter whose payload is too large for the topic.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ParkedPayload {
    pub letter: StoredLetter,
    pub payload: Vec<u8>,
}

/// The table for payloads that the dead letter topic cannot hold.
#[async_trait]
pub trait PayloadStore: Send + Sync {
    /// Stores a letter with its payload; storing the payload of the same id again changes nothing.
    ///
    /// # Errors
    /// When it is not durable.
    async fn park_payload(&self, parked: ParkedPayload) -> Result<(), DeadLetterError>;

    /// The bytes parked under an id.
    ///
    /// # Errors
    /// When the table cannot be read.
    async fn parked_payload(&self, id: &str) -> Result<Option<Vec<u8>>, DeadLetterError>;
}

/// The table of all dead letters.
#[async_trait]
pub trait DeadLetterTable: Send + Sync {
    /// Stores letters. One whose id is there already changes nothing, unless it tells of a later failure: then the letter
    /// is open again and says what failed last. All or nothing. Says how many are new.
    ///
    /// # Errors
    /// When nothing was stored.
    async fn record(&self, letters: &[StoredLetter]) -> Result<u64, LedgerError>;
}
