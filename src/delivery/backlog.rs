//! Shows what is not settled: how much of each channel waits in which state, and for how long the oldest has been due.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use metrics::gauge;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::channel::Channel;
use crate::ports::clock::SharedClock;
use crate::ports::ledger::{LedgerError, NotificationLedger};
use crate::telemetry::metric_definitions::{OVERDUE, WAITING};

/// A count of many takes long: the next one waits so many times as long, so that counting stays a small part of the work…
const REST: u32 = 20;
/// …but no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// See the module.
pub struct Backlog {
    /// Keeps the notifications.
    pub ledger: Arc<dyn NotificationLedger>,
    /// Lanes of the channel that has most.
    pub lanes: u16,
    /// Between two looks, at least.
    pub interval: Duration,
    /// Time.
    pub clock: SharedClock,
}

impl Backlog {
    /// Looks until `stop`. While the ledger cannot be read the numbers stay as they are.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.show_ages() => {}
            () = self.show_counts() => {}
        }
    }

    async fn show_ages(&self) {
        loop {
            if let Err(error) = self.show_age().await {
                tracing::debug!(%error, "it is not known what is due");
            }
            tokio::time::sleep(self.interval).await;
        }
    }

    /// Each is the first entry of an index, however many wait.
    async fn show_age(&self) -> Result<(), LedgerError> {
        for channel in Channel::ALL {
            let mut first: Option<Timestamp> = None;
            for lane in 0..self.lanes {
                let due = self.ledger.next_due(channel, lane).await?;
                first = [first, due].into_iter().flatten().min();
            }
            let late = first.and_then(|due| Duration::try_from(self.clock.now().duration_since(due)).ok());
            gauge!(OVERDUE, "channel" => channel.as_str()).set(late.unwrap_or_default().as_secs_f64());
        }
        Ok(())
    }

    async fn show_counts(&self) {
        loop {
            let begun = Instant::now();
            if let Err(error) = self.show_count().await {
                tracing::warn!(%error, "what waits could not be counted");
            }
            tokio::time::sleep((begun.elapsed() * REST).min(LONGEST_REST).max(self.interval)).await;
        }
    }

    async fn show_count(&self) -> Result<(), LedgerError> {
        for channel in Channel::ALL {
            for (state, count) in self.ledger.unsettled(channel).await? {
                gauge!(WAITING, "channel" => channel.as_str(), "state" => state.as_str()).set(count as f64);
            }
        }
        Ok(())
    }
}
