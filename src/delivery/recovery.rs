//! Leases: renewing our own, and taking over notifications whose owner is gone.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::attempt::{conclude_interrupted, put_back};
use super::held::Held;
use super::lane::{DispatchContext, LaneSettings};
use crate::domain::channel::Channel;
use crate::ports::ledger::{Claimed, LedgerError, Settlement};

/// Taken over together at most.
const TAKE_OVER: usize = 500;

/// Keeps the leases of one channel's dispatcher.
pub struct LeaseKeeper {
    /// What the lanes share.
    pub context: Arc<DispatchContext>,
    /// The channel.
    pub channel: Channel,
    /// Names this dispatcher in its claims.
    pub owner: String,
    /// What the channel's lanes have in hand.
    pub held: Arc<Held>,
    /// The channel's providers, in order.
    pub lanes: Vec<Arc<LaneSettings>>,
}

impl LeaseKeeper {
    /// Renews and takes over, three times per lease, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut renewing_since: Option<Duration> = None;
        let mut interval = tokio::time::interval(self.context.lease / 3);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            // After an outage of the database every lease has expired, those of living owners too: only when all of
            // them had the time to renew, what is still expired belongs to nobody.
            let now = self.context.clock.monotonic();
            let patient = renewing_since.is_some_and(|since| now.saturating_sub(since) >= self.context.lease);
            match self.once(patient).await {
                Ok(()) => {
                    renewing_since.get_or_insert(now);
                }
                Err(error) => {
                    renewing_since = None;
                    tracing::warn!(channel = %self.channel, %error, "leases could not be renewed");
                }
            }
        }
    }

    async fn once(&self, take_over: bool) -> Result<(), LedgerError> {
        let ledger = &self.context.ledger;
        let now = self.context.clock.now();
        ledger.renew(&self.owner, &self.held.ids(), now + self.context.lease).await?;
        if !take_over {
            return Ok(());
        }
        loop {
            let until = now + self.context.lease;
            let taken = ledger.take_over(self.channel, &self.owner, now, until, TAKE_OVER).await?;
            if taken.is_empty() {
                return Ok(());
            }
            let interrupted = taken.iter().filter(|(_, provider)| provider.is_some()).count();
            tracing::warn!(channel = %self.channel, notifications = taken.len(), interrupted, "took over from an owner that is gone");
            let settlements: Vec<Settlement> =
                taken.iter().map(|(claimed, interrupted)| self.conclude(claimed, interrupted.is_some(), now)).collect();
            ledger.settle(&settlements).await?;
        }
    }

    fn conclude(&self, claimed: &Claimed, interrupted: bool, now: Timestamp) -> Settlement {
        // A provider may have been taken out of the configuration meanwhile.
        let known = usize::from(claimed.lane) < self.lanes.len();
        let claimed = Claimed { lane: if known { claimed.lane } else { 0 }, ..claimed.clone() };
        match self.lane_of(claimed.lane) {
            Some(lane) if interrupted => conclude_interrupted(&claimed, lane, &self.context.schedule, &self.owner, now),
            _ => put_back(&claimed, &self.owner, now),
        }
    }

    fn lane_of(&self, index: u16) -> Option<&LaneSettings> {
        self.lanes.get(usize::from(index)).or(self.lanes.first()).map(|lane| &**lane)
    }
}
