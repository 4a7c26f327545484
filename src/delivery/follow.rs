//! Keeps in touch with the other instances that share the ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ports::ledger::NotificationLedger;
use crate::resilience::retry::Waits;

/// A connection that held so long was a good one.
const STABLE: Duration = Duration::from_secs(30);

/// Follows the other instances until `stop`, however often the connection breaks.
pub async fn follow_others(ledger: Arc<dyn NotificationLedger>, stop: CancellationToken) {
    let mut waits = Waits::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        let begun = tokio::time::Instant::now();
        tokio::select! {
            () = stop.cancelled() => return,
            ended = ledger.follow_others() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "other instances are not heard");
                }
            }
        }
        if begun.elapsed() > STABLE {
            waits.reset();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(waits.next_wait()) => {}
        }
    }
}
