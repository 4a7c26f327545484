//! The recipients directory: how people are reached, what they want to get, and which addresses get nothing.

use async_trait::async_trait;
use jiff::Timestamp;

use super::ledger::LedgerError;
use crate::domain::channel::Channel;
use crate::domain::preferences::{OptOut, Preferences};
use crate::domain::recipient::Recipient;

/// An address that nothing is sent to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Suppression {
    pub channel: Channel,
    pub address: String,
    /// `bounce`, `complaint`, or whatever an operator says.
    pub reason: String,
    pub created_at: String,
}

/// What an erasure removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Erased {
    pub recipients: u64,
    pub preferences: u64,
    pub inbox_entries: u64,
    /// Kept as counts, without anything personal.
    pub notifications: u64,
    pub dead_letters: u64,
}

/// Knows how recipients are reached.
#[async_trait]
pub trait Contacts: Send + Sync {
    /// Adds to what is known: absent fields keep their value. What waits for these contacts is due now. In order.
    ///
    /// # Errors
    /// When nothing of it was stored.
    async fn learn(&self, recipients: Vec<Recipient>, now: Timestamp) -> Result<(), LedgerError>;

    /// Replaces what is known about a recipient. What waits for the contact is due now.
    ///
    /// # Errors
    /// When nothing of it was stored.
    async fn put(&self, recipient: Recipient, now: Timestamp) -> Result<(), LedgerError>;

    /// What is known about one recipient.
    ///
    /// # Errors
    /// When the directory cannot be read.
    async fn recipient(&self, id: &str) -> Result<Option<Recipient>, LedgerError>;

    /// Removes devices that no longer exist.
    ///
    /// # Errors
    /// When none was removed.
    async fn forget_devices(&self, id: &str, tokens: &[String]) -> Result<(), LedgerError>;

    /// Removes everything personal about a recipient from every table; counts stay. What is waiting for the recipient
    /// must have been settled before. A dead letter from before `now` that is recorded later is emptied then.
    ///
    /// # Errors
    /// When nothing was removed.
    async fn erase(&self, id: &str, now: Timestamp) -> Result<Erased, LedgerError>;

    /// What a recipient wants to get.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn preferences(&self, id: &str) -> Result<Option<Preferences>, LedgerError>;

    /// Replaces what a recipient wants to get.
    ///
    /// # Errors
    /// When nothing was stored.
    async fn set_preferences(&self, id: &str, preferences: &Preferences) -> Result<(), LedgerError>;

    /// Adds a refusal to what a recipient wants.
    ///
    /// # Errors
    /// When nothing was stored.
    async fn refuse(&self, id: &str, refusal: OptOut) -> Result<(), LedgerError>;

    /// Adds addresses that nothing is sent to; one that is there keeps its reason. Returns them as they are stored, in no
    /// order, each once whatever its spellings.
    ///
    /// # Errors
    /// When none was stored.
    async fn suppress(
        &self,
        channel: Channel,
        addresses: &[String],
        reason: &str,
    ) -> Result<Vec<Suppression>, LedgerError>;

    /// Removes an address from them. False when it was none of them.
    ///
    /// # Errors
    /// When it was not removed.
    async fn unsuppress(&self, channel: Channel, address: &str) -> Result<bool, LedgerError>;

    /// Suppressed addresses in order, after this one and so many more.
    ///
    /// # Errors
    /// When they cannot be read.
    async fn suppressions(
        &self,
        after: Option<(String, String)>,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Suppression>, LedgerError>;
}
