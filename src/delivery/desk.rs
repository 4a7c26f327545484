//! Settles notifications out of their turn: cancelled, expired, replaced by newer ones, or erased with their recipient.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::attempt::{count_settled, not_sent};
use crate::domain::channel::Channel;
use crate::ports::ledger::{LedgerError, NewNotification, NotificationLedger, Selection, Settlement, State};

/// Seized together at most.
const BATCH: usize = 500;

/// See the module.
pub struct Desk {
    /// Keeps the notifications.
    pub ledger: Arc<dyn NotificationLedger>,
    /// Names whoever settles. A claim that it leaves behind is taken over when its lease is over.
    pub owner: String,
    /// How long such a claim holds.
    pub lease: Duration,
}

impl Desk {
    /// Settles those that a new notification replaces.
    ///
    /// # Errors
    /// When some may still be waiting.
    pub async fn supersede(&self, new: &NewNotification) -> Result<u64, LedgerError> {
        let Some(about) = new.handling.about.clone() else { return Ok(0) };
        let selection = Selection::SupersededBy {
            about,
            recipient: new.request.recipient.clone(),
            templates: new.handling.supersedes.clone(),
            except: new.request.id.clone(),
            caused_at: new.request.caused_at,
        };
        let reason = format!("superseded by {}", new.request.id);
        self.call_off(&selection, State::Suppressed, "superseded", &reason, new.received_at).await
    }

    /// Cancels a waiting notification. False when it does not wait.
    ///
    /// # Errors
    /// When it may not be cancelled.
    pub async fn cancel(&self, id: &str, now: Timestamp) -> Result<bool, LedgerError> {
        let selection = Selection::Ids(vec![id.to_owned()]);
        let cancelled = self.call_off(&selection, State::Cancelled, "cancelled", "cancelled by request", now).await?;
        Ok(cancelled > 0)
    }

    /// Cancels all that wait for a recipient who is to be erased.
    ///
    /// # Errors
    /// When some may still wait.
    pub async fn cancel_all_of(&self, recipient: &str, now: Timestamp) -> Result<u64, LedgerError> {
        let selection = Selection::Recipient(recipient.to_owned());
        self.call_off(&selection, State::Cancelled, "erased", "the recipient was erased", now).await
    }

    /// Settles those of a channel whose time is over, and those whose contact never came.
    ///
    /// # Errors
    /// When some may still be waiting.
    pub async fn expire(&self, channel: Channel, patience: Duration, now: Timestamp) -> Result<u64, LedgerError> {
        let expired = Selection::Expired { channel, by: now };
        let expired = self.call_off(&expired, State::Expired, "expired", "its time is over", now).await?;
        let forgotten = Selection::Forgotten { channel, waiting_since: now - patience };
        let reason = "no contact of the recipient became known in time";
        Ok(expired + self.call_off(&forgotten, State::Expired, "no_contact", reason, now).await?)
    }

    async fn call_off(
        &self,
        selection: &Selection,
        state: State,
        code: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<u64, LedgerError> {
        let mut total = 0;
        loop {
            let seized = self.ledger.seize(selection, &self.owner, now + self.lease, BATCH).await?;
            if seized.is_empty() {
                return Ok(total);
            }
            let settlements: Vec<Settlement> =
                seized.iter().map(|claimed| not_sent(claimed, &self.owner, state, code, reason, now)).collect();
            let taken = self.ledger.settle(&settlements).await?;
            count_settled(&settlements, &taken);
            total += taken.len() as u64;
        }
    }
}
