//! Settles notifications out of their turn: cancelled, expired, replaced by newer ones, or erased with their recipient.
//! Each is taken and settled in one transaction; what is being sent is not waiting, and is left alone.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::attempt::{count_settled_all, not_sent, superseded};
use crate::domain::channel::Channel;
use crate::ports::ledger::{Claimed, LedgerError, NewNotification, NotificationLedger, OUT_OF_TURN, Selection, State};

/// Settled in one transaction at most.
const BATCH: usize = 500;
/// Transactions in a row; the rest comes with the next call.
const BATCHES: usize = 10;

/// See the module.
#[derive(Clone)]
pub struct Desk {
    /// Keeps the notifications.
    pub ledger: Arc<dyn NotificationLedger>,
}

impl Desk {
    /// Adds requests, and settles what they replace. Says how many are new.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn add(&self, batch: &[NewNotification]) -> Result<u64, LedgerError> {
        let replaced =
            |new: &NewNotification, old: &Claimed| superseded(old, OUT_OF_TURN, &new.request.id, new.received_at);
        let inserted = self.ledger.insert(batch, &replaced).await?;
        count_settled_all(&inserted.replaced);
        Ok(inserted.new)
    }

    /// Cancels a waiting notification. False when it does not wait.
    ///
    /// # Errors
    /// When it is not cancelled.
    pub async fn cancel(&self, id: &str, now: Timestamp) -> Result<bool, LedgerError> {
        let selection = Selection::Ids(vec![id.to_owned()]);
        let cancelled = self.call_off(&selection, State::Cancelled, "cancelled", "cancelled by request", now).await?;
        Ok(cancelled > 0)
    }

    /// Cancels all that wait for a recipient who is to be erased. Says how many are being sent at this moment.
    ///
    /// # Errors
    /// When some may still wait.
    pub async fn cancel_all_of(&self, recipient: &str, now: Timestamp) -> Result<u64, LedgerError> {
        let selection = Selection::Recipient(recipient.to_owned());
        self.call_off(&selection, State::Cancelled, "erased", "the recipient was erased", now).await?;
        self.ledger.unsettled_of(recipient).await
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
        let verdict = |claimed: &Claimed| not_sent(claimed, OUT_OF_TURN, state, code, reason, now);
        let mut total = 0;
        for _ in 0..BATCHES {
            let settled = self.ledger.call_off(selection, BATCH, &verdict).await?;
            count_settled_all(&settled);
            total += settled.len() as u64;
            if settled.len() < BATCH {
                break;
            }
        }
        Ok(total)
    }
}
