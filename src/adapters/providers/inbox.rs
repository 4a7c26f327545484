//! The `inbox` provider: puts notifications into the recipient's inbox in the service's own database.

use std::sync::Arc;

use async_trait::async_trait;

use crate::ports::inbox::{Inbox, NewEntry};
use crate::ports::ledger::LedgerError;
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// Fills inboxes.
pub struct InboxProvider {
    inbox: Arc<dyn Inbox>,
}

impl InboxProvider {
    /// A provider over the inboxes.
    pub fn new(inbox: Arc<dyn Inbox>) -> Self {
        Self { inbox }
    }
}

#[async_trait]
impl Provider for InboxProvider {
    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        let recipient = message
            .recipient
            .clone()
            .ok_or_else(|| SendError::Permanent("the notification has no recipient, and so no inbox".into()))?;
        let entry = NewEntry {
            id: message.id.clone(),
            recipient,
            subject: message.subject.clone(),
            body: message.body.clone(),
            template: message.template.clone(),
            category: message.category.clone(),
            data_json: message.data.get().to_owned(),
        };
        // Never unknown: an entry that did get in is not doubled by the next try.
        match self.inbox.put(entry).await {
            Ok(()) => Ok(Accepted { receipt: Some(message.id.clone()), ..Accepted::default() }),
            Err(error @ LedgerError::Unavailable(_)) => Err(SendError::Transient(error.to_string())),
            Err(error @ LedgerError::Rejected(_)) => Err(SendError::Permanent(error.to_string())),
        }
    }
}
