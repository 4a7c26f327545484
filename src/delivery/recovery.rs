//! Leases: renewing our own, and taking over notifications whose owner is gone.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::attempt::{conclude_interrupted, conclude_interrupted_follower, count_settled, put_back};
use super::context::{DispatchContext, LaneSettings};
use super::decide::{OnUnknown, Rules};
use super::desk::Desk;
use super::held::Held;
use super::lease_watch::LeaseWatch;
use crate::domain::channel::Channel;
use crate::ports::ledger::{Claimed, LedgerError, Settlement};

/// Taken over, and settled, in one transaction at most, but for what travels with it in digests.
const TOGETHER: usize = 500;
/// Taken over after one look: what is left is still over at the next one. Until all are concluded nothing is renewed.
const MOST_TAKEN_OVER: usize = 5_000;
/// Moved out of lanes that are gone in one step…
const FOLDED_TOGETHER: usize = 5_000;
/// …and so many steps at one look.
const MOST_FOLDS: usize = 20;
/// Of three looks per lease the fourth comes a lease after the first, but for the timer's haste.
const WHOLE: f64 = 0.9;
/// Leases that are watched, those first that end first: living owners' move back with each renewal.
const MOST_WATCHED: usize = 50_000;

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
    /// Renews, takes over and tidies up, three times per lease, until `stop`. Tidying takes as long as there is much of
    /// it, so it holds up no lease.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(self.keep(&stop), self.tidy_up(&stop));
    }

    async fn keep(&self, stop: &CancellationToken) {
        let mut watch = LeaseWatch::default();
        let mut looks = self.looks();
        while !is_over(stop, &mut looks).await {
            if let Err(error) = self.once(&mut watch).await {
                // While the database is away no owner can renew: each has a whole lease's time again.
                watch.forget();
                tracing::warn!(channel = %self.channel, %error, "leases could not be renewed");
            }
        }
    }

    async fn tidy_up(&self, stop: &CancellationToken) {
        let mut looks = self.looks();
        while !is_over(stop, &mut looks).await {
            self.tidy().await;
        }
    }

    fn looks(&self) -> Interval {
        let mut interval = tokio::time::interval(self.context.lease / 3);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }

    /// What the lanes do not find by themselves. One step that fails keeps none of the others.
    pub(super) async fn tidy(&self) {
        let now = self.context.clock.now();
        let desk = Desk { ledger: Arc::clone(&self.context.ledger) };
        let steps = [
            ("lanes that are gone", self.fold_lanes().await),
            ("expired notifications", desk.expire(self.channel, self.context.contact_patience, now).await.map(drop)),
            ("digests", self.context.ledger.release_followers(self.channel, now).await.map(drop)),
        ];
        for (what, done) in steps {
            if let Err(error) = done {
                tracing::warn!(channel = %self.channel, %error, "{what} could not be looked after");
            }
        }
    }

    /// A provider that was taken out of the configuration leaves no notification behind, nor does an instance that still
    /// has the old one.
    async fn fold_lanes(&self) -> Result<(), LedgerError> {
        for _ in 0..MOST_FOLDS {
            if self.context.ledger.fold_lanes(self.channel, self.lanes.len() as u16, FOLDED_TOGETHER).await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// One look at the leases.
    pub(super) async fn once(&self, watch: &mut LeaseWatch) -> Result<(), LedgerError> {
        let ledger = &self.context.ledger;
        let now = self.context.clock.now();
        ledger.renew(&self.owner, &self.held.ids(), now + self.context.lease).await?;
        let leases = ledger.leases(self.channel, MOST_WATCHED).await?;
        let whole = self.context.lease.mul_f64(WHOLE);
        let mut over = watch.look(leases, self.context.clock.monotonic(), whole);
        over.truncate(MOST_TAKEN_OVER);
        let lingering = if over.is_empty() { Vec::new() } else { watch.lingering(whole) };
        let mut taken = Vec::new();
        for leases in over.chunks(TOGETHER) {
            taken.extend(ledger.take_over(&self.owner, leases, &lingering, now + self.context.lease).await?);
        }
        if taken.is_empty() {
            return Ok(());
        }
        let interrupted = taken.iter().filter(|(_, provider)| provider.is_some()).count();
        tracing::warn!(channel = %self.channel, notifications = taken.len(), interrupted, "took over from an owner that is gone");
        let mut concluded = self.conclude_all(&taken, now);
        // What travelled with a digest before the digest: should this process end in between, the digest is taken over
        // once more, and the others are with it still.
        concluded.sort_by_key(|settlement| settlement.digest_id.is_none());
        for settlements in concluded.chunks(TOGETHER) {
            self.settle(settlements).await?;
        }
        Ok(())
    }

    /// One that the database refuses must not keep the others.
    async fn settle(&self, settlements: &[Settlement]) -> Result<(), LedgerError> {
        match self.context.ledger.settle(settlements).await {
            Ok(settled) => count_settled(settlements, &settled),
            Err(LedgerError::Rejected(reason)) if settlements.len() == 1 => {
                tracing::error!(reason, notification = settlements[0].id, "a settlement is refused");
            }
            Err(LedgerError::Rejected(_)) => {
                for one in settlements {
                    Box::pin(self.settle(std::slice::from_ref(one))).await?;
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn conclude_all(&self, taken: &[(Claimed, Option<String>)], now: Timestamp) -> Vec<Settlement> {
        let providers = taken.iter().filter_map(|(claimed, provider)| Some((claimed, provider.as_deref()?)));
        let interrupted: HashMap<&str, (&Claimed, &str)> =
            providers.map(|(claimed, provider)| (claimed.id.as_str(), (claimed, provider))).collect();
        let conclude = |(claimed, provider): &(Claimed, Option<String>)| {
            // Whoever has the digest may have what travelled with it.
            match claimed.digest_id.as_deref().and_then(|leader| interrupted.get(leader)) {
                Some((leader, provider)) => self.conclude_follower(leader, provider, claimed, now),
                None => self.conclude(claimed, provider.as_deref(), now),
            }
        };
        taken.iter().map(conclude).collect()
    }

    fn conclude(&self, claimed: &Claimed, interrupted: Option<&str>, now: Timestamp) -> Settlement {
        let Some(provider) = interrupted else {
            let lane = if usize::from(claimed.lane) < self.lanes.len() { claimed.lane } else { 0 };
            return put_back(&Claimed { lane, ..claimed.clone() }, &self.owner, now);
        };
        let (lane, rules) = self.rules_of(provider);
        conclude_interrupted(&Claimed { lane, ..claimed.clone() }, provider, rules, &self.owner, now)
    }

    fn conclude_follower(&self, leader: &Claimed, provider: &str, follower: &Claimed, now: Timestamp) -> Settlement {
        let (lane, rules) = self.rules_of(provider);
        let leader = Claimed { lane, ..leader.clone() };
        conclude_interrupted_follower(&leader, follower, provider, rules, &self.owner, now)
    }

    /// Only the provider that may have a notification knows its idempotency key. If it is no longer there, a person
    /// decides.
    fn rules_of(&self, provider: &str) -> (u16, Rules<'_>) {
        let lane = self.lanes.iter().find(|lane| lane.name == provider);
        let on_unknown = lane.map_or(OnUnknown::Hold, |lane| lane.on_unknown);
        let rules = Rules { lanes: self.lanes.len() as u16, schedule: &self.context.schedule, on_unknown };
        (lane.map_or(0, |lane| lane.index), rules)
    }
}

/// Waits for the next look; true when there is none.
async fn is_over(stop: &CancellationToken, looks: &mut Interval) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        _ = looks.tick() => false,
    }
}
