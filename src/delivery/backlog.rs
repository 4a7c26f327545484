//! Shows what is not settled: how much of each channel waits in which state, and for how long the oldest has been due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::channel::Channel;
use crate::ports::clock::SharedClock;
use crate::ports::ledger::{NotificationLedger, State, Unsettled};
use crate::telemetry::metric_definitions::{OVERDUE, WAITING};

/// A count of many takes long: the next one waits so many times as long, so that counting stays a small part of the work.
const REST: u32 = 20;

/// See the module.
pub struct Backlog {
    /// Keeps the notifications.
    pub ledger: Arc<dyn NotificationLedger>,
    /// Between two counts, at least.
    pub interval: Duration,
    /// Time.
    pub clock: SharedClock,
}

impl Backlog {
    /// Counts until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let begun = Instant::now();
            match self.ledger.unsettled().await {
                Ok(found) => self.show(&found),
                Err(error) => tracing::debug!(%error, "what waits could not be counted"),
            }
            let rest = self.interval.max(begun.elapsed() * REST);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn show(&self, found: &[Unsettled]) {
        let now = self.clock.now();
        let mut counts: HashMap<(Channel, State), u64> = HashMap::new();
        let mut overdue: HashMap<Channel, Duration> = HashMap::new();
        for part in found {
            *counts.entry((part.channel, part.state)).or_default() += part.count;
            let late = part.due.and_then(|due| Duration::try_from(now.duration_since(due)).ok());
            let oldest = overdue.entry(part.channel).or_default();
            *oldest = late.unwrap_or_default().max(*oldest);
        }
        for channel in Channel::ALL {
            for state in State::ALL.into_iter().filter(|state| !state.is_settled()) {
                let count = counts.get(&(channel, state)).copied().unwrap_or_default();
                gauge!(WAITING, "channel" => channel.as_str(), "state" => state.as_str()).set(count as f64);
            }
            let late = overdue.get(&channel).copied().unwrap_or_default();
            gauge!(OVERDUE, "channel" => channel.as_str()).set(late.as_secs_f64());
        }
    }
}
