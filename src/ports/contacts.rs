//! The recipients directory.

use async_trait::async_trait;

use super::ledger::LedgerError;
use crate::domain::recipient::Recipient;

/// Knows how recipients are reached.
#[async_trait]
pub trait Contacts: Send + Sync {
    /// Adds to what is known: absent fields keep their value. Wakes what waits for these contacts. In order.
    ///
    /// # Errors
    /// When nothing of it was stored.
    async fn learn(&self, recipients: Vec<Recipient>) -> Result<(), LedgerError>;

    /// What is known about one recipient.
    ///
    /// # Errors
    /// When the directory cannot be read.
    async fn recipient(&self, id: &str) -> Result<Option<Recipient>, LedgerError>;
}
