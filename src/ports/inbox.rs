//! The inbox: notifications that recipients read in the application itself.

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::ledger::LedgerError;

/// A notification on its way into an inbox.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewEntry {
    /// The notification's id.
    pub id: String,
    pub recipient: String,
    pub subject: Option<String>,
    pub body: String,
    pub template: String,
    pub category: String,
    /// The template's variables: a JSON object.
    pub data_json: String,
}

/// An inbox's entry as it is shown.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Entry {
    pub id: String,
    pub subject: Option<String>,
    pub body: String,
    pub template: String,
    pub category: String,
    pub data: Box<serde_json::value::RawValue>,
    pub created_at: String,
    pub read_at: Option<String>,
    /// Grows with every entry: the cursor.
    #[serde(skip)]
    pub seq: i64,
}

/// Keeps inboxes.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Puts an entry in; one that is there already changes nothing.
    ///
    /// # Errors
    /// When it was not stored.
    async fn put(&self, entry: NewEntry) -> Result<(), LedgerError>;

    /// A recipient's entries, the newest first, from before the cursor.
    ///
    /// # Errors
    /// When they cannot be read.
    async fn entries(&self, recipient: &str, before: Option<i64>, limit: usize) -> Result<Vec<Entry>, LedgerError>;

    /// How many entries are not read.
    ///
    /// # Errors
    /// When they cannot be counted.
    async fn unread(&self, recipient: &str) -> Result<u64, LedgerError>;

    /// Marks one entry, or all, as read; says how many were unread.
    ///
    /// # Errors
    /// When nothing was marked.
    async fn mark_read(&self, recipient: &str, id: Option<&str>) -> Result<u64, LedgerError>;

    /// The recipients whose inboxes this process changes, as it does.
    fn changes(&self) -> broadcast::Receiver<String>;
}
