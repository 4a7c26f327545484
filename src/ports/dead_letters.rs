//! Where records go that cannot be processed.

use async_trait::async_trait;

use crate::domain::dead_letter::DeadLetter;

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

/// A dead letter's payload that is too large for the topic.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ParkedPayload {
    pub id: String,
    pub letter_json: String,
    pub payload: Vec<u8>,
    pub parked_at_ms: i64,
}

/// The table for payloads that the dead letter topic cannot hold.
#[async_trait]
pub trait PayloadStore: Send + Sync {
    /// Stores a payload; storing the same id again changes nothing.
    ///
    /// # Errors
    /// When it is not durable.
    async fn park_payload(&self, payload: ParkedPayload) -> Result<(), DeadLetterError>;

    /// The bytes parked under an id.
    ///
    /// # Errors
    /// When the table cannot be read.
    async fn parked_payload(&self, id: &str) -> Result<Option<Vec<u8>>, DeadLetterError>;
}
