//! Leases: renewing our own, and taking over notifications whose owner is gone.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::attempt::{conclude_interrupted, put_back};
use super::lane::{DispatchContext, LaneSettings};
use crate::domain::channel::Channel;
use crate::ports::ledger::{LedgerError, Settlement};

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
    /// The channel's providers, in order.
    pub lanes: Vec<Arc<LaneSettings>>,
}

impl LeaseKeeper {
    /// Renews and takes over, three times per lease, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.context.lease / 3);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            if let Err(error) = self.once().await {
                tracing::warn!(channel = %self.channel, %error, "leases could not be renewed");
            }
        }
    }

    async fn once(&self) -> Result<(), LedgerError> {
        let ledger = &self.context.ledger;
        let now = self.context.clock.now();
        ledger.renew(&self.owner, now + self.context.lease).await?;
        loop {
            let until = now + self.context.lease;
            let taken = ledger.take_over(self.channel, &self.owner, now, until, TAKE_OVER).await?;
            if taken.is_empty() {
                return Ok(());
            }
            let interrupted = taken.iter().filter(|(_, provider)| provider.is_some()).count();
            tracing::warn!(channel = %self.channel, notifications = taken.len(), interrupted, "took over from an owner that is gone");
            let settlements: Vec<Settlement> = taken
                .iter()
                .map(|(claimed, interrupted)| match (interrupted, self.lane_of(claimed.lane)) {
                    (Some(_), Some(lane)) => {
                        conclude_interrupted(claimed, lane, &self.context.schedule, &self.owner, now)
                    }
                    _ => put_back(claimed, &self.owner, now),
                })
                .collect();
            ledger.settle(&settlements).await?;
        }
    }

    fn lane_of(&self, index: u16) -> Option<&LaneSettings> {
        self.lanes.get(usize::from(index)).or(self.lanes.first()).map(|lane| &**lane)
    }
}
