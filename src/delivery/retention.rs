//! Removes settled notifications, and dead letters that were dealt with, when their time is over, so that the ledger never
//! grows without bound.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ports::clock::SharedClock;
use crate::ports::ledger::NotificationLedger;

/// How often it is looked whether there is something to remove.
const LOOK: Duration = Duration::from_secs(60);
/// Removed in one transaction: few enough to hold up nobody.
const STEP: usize = 500;
/// Between two steps, for whoever waits for the database.
const BREATH: Duration = Duration::from_millis(10);

/// See the module.
pub struct Retention {
    /// Keeps the notifications.
    pub ledger: Arc<dyn NotificationLedger>,
    /// For how long settled ones stay.
    pub keep: Duration,
    /// Time.
    pub clock: SharedClock,
}

impl Retention {
    /// Removes what is old until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let before = self.clock.now() - self.keep;
            let mut wait = LOOK;
            match self.ledger.retire(before, STEP).await {
                Ok(0) => {}
                Ok(removed) => {
                    tracing::debug!(removed, "settled notifications were removed");
                    wait = BREATH;
                }
                Err(error) => tracing::warn!(%error, "settled notifications could not be removed"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}
