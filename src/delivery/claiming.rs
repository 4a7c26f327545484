//! What a lane takes from the ledger: claimed, prepared, and recorded as begun, so that it may be sent.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::attempt::put_back;
use super::context::{DispatchContext, LaneSettings};
use super::held::Held;
use super::pacing::Pacing;
use super::prepare::{Preparation, Prepared, Ready};
use super::under_way::UnderWay;
use crate::ports::ledger::{AttemptStart, ClaimRequest, Claimed, LedgerError, Settlement};
use crate::resilience::breaker_cell::Permit;

/// However soon something is due, the ledger is not asked more often than this.
const MIN_NAP: Duration = Duration::from_millis(5);

/// What has begun does not wait longer for what can be missed.
const PATIENCE: Duration = Duration::from_millis(200);

/// What was taken. It counts whatever went wrong after it.
#[derive(Default)]
pub struct Taken {
    /// To be sent: their attempts are recorded.
    pub begun: Vec<(Ready, Permit)>,
    /// Decided without an attempt.
    pub decided: Vec<Settlement>,
    /// How many were claimed.
    pub claimed: usize,
    /// When there was no more: how long nothing will be due, as far as can be known.
    pub nap: Option<Duration>,
}

/// Takes from the ledger for one lane.
pub struct Claiming {
    /// What all lanes share.
    pub context: Arc<DispatchContext>,
    /// The lane.
    pub settings: Arc<LaneSettings>,
    /// Whose claims they are.
    pub owner: String,
    /// What the channel's lanes have in hand.
    pub held: Arc<Held>,
    /// Whom they are sending to.
    pub under_way: Arc<UnderWay>,
    /// How fast the lane sends.
    pub pacing: Arc<Pacing>,
}

impl Claiming {
    /// Takes what is due, `room` at most.
    pub async fn take(&self, room: usize) -> (Taken, Result<(), LedgerError>) {
        let mut taken = Taken::default();
        let limit = self.pacing.grant(room).await;
        if limit == 0 {
            taken.nap = Some(self.pacing.until_token());
            return (taken, Ok(()));
        }
        let result = self.claim(limit, &mut taken).await;
        // What is not sent after all costs the provider nothing.
        let unused = limit.saturating_sub(taken.begun.len());
        drop(tokio::time::timeout(PATIENCE, self.pacing.give_back(unused)).await);
        (taken, result)
    }

    async fn claim(&self, limit: usize, taken: &mut Taken) -> Result<(), LedgerError> {
        let now = self.context.clock.now();
        let request = ClaimRequest {
            channel: self.settings.channel,
            lane: self.settings.index,
            stands_in_for: self.settings.stands_in_for(),
            owner: self.owner.clone(),
            now,
            lease_until: now + self.context.lease,
            limit,
        };
        let claimed = self.context.guarded(self.context.ledger.claim(request)).await?;
        taken.claimed = claimed.len();
        self.held.add(claimed.iter().map(|c| c.id.as_str()));
        if claimed.len() == limit {
            return self.begin(claimed, now, taken).await;
        }
        let (begun, nap) = tokio::join!(self.begin(claimed, now, taken), self.nap());
        taken.nap = Some(nap);
        begun
    }

    /// Prepares claimed notifications and records their attempts.
    async fn begin(&self, claimed: Vec<Claimed>, now: Timestamp, taken: &mut Taken) -> Result<(), LedgerError> {
        if claimed.is_empty() {
            return Ok(());
        }
        let preparation = Preparation {
            context: &self.context,
            channel: self.settings.channel,
            held: &self.held,
            under_way: &self.under_way,
            owner: &self.owner,
            now,
        };
        let ids: Vec<String> = claimed.iter().map(|c| c.id.clone()).collect();
        let prepared = self.context.guarded(preparation.run(claimed)).await;
        let Ok(Prepared { ready, settled }) = prepared else {
            // Nobody renews their leases, and whoever takes them over decides anew.
            self.held.remove(ids.iter().map(String::as_str));
            return prepared.map(drop);
        };
        taken.decided.extend(settled);
        let permitted = self.permitted(ready, now, taken);
        let starts: Vec<AttemptStart> = permitted.iter().map(|(ready, _)| self.start(ready, now)).collect();
        if starts.is_empty() {
            return Ok(());
        }
        // Nothing leaves before its attempt is recorded. Whether one is recorded may be unknown: then nobody renews its
        // lease, and whoever takes it over finds the truth in the table.
        let begun = self.context.guarded(self.context.ledger.begin_attempts(&self.owner, &starts)).await;
        let ids: HashSet<&str> = begun.iter().flatten().map(String::as_str).collect();
        for (ready, permit) in permitted {
            if ids.contains(ready.message.id.as_str()) {
                if let Some(recipient) = ready.claimed.recipient.as_ref().filter(|_| !ready.claimed.critical) {
                    self.under_way.begin(&ready.claimed.id, recipient);
                }
                taken.begun.push((ready, permit));
            } else {
                let followers = ready.followers.iter().map(|f| f.id.as_str());
                self.held.remove(std::iter::once(ready.message.id.as_str()).chain(followers));
            }
        }
        begun.map(drop)
    }

    /// Those that the provider's breaker lets pass, unless it asked for a pause meanwhile; the others go back.
    fn permitted(&self, ready: Vec<Ready>, now: Timestamp, taken: &mut Taken) -> Vec<(Ready, Permit)> {
        let mut permitted = Vec::with_capacity(ready.len());
        let paused = !self.pacing.pause_left().is_zero();
        for ready in ready {
            match self.settings.breaker.acquire().filter(|_| !paused) {
                Some(permit) => permitted.push((ready, permit)),
                None => {
                    taken.decided.push(put_back(&ready.claimed, &self.owner, now));
                    taken.decided.extend(ready.followers.iter().map(|f| put_back(f, &self.owner, now)));
                }
            }
        }
        permitted
    }

    fn start(&self, ready: &Ready, now: Timestamp) -> AttemptStart {
        AttemptStart {
            seq: ready.claimed.seq,
            id: ready.message.id.clone(),
            number: ready.message.attempt,
            provider: self.settings.name.clone(),
            template_version: Some(ready.version.clone()),
            started_at: now,
        }
    }

    async fn nap(&self) -> Duration {
        let asked = self.context.ledger.next_due(self.settings.channel, self.settings.index);
        let due = tokio::time::timeout(PATIENCE, asked).await.ok().and_then(Result::ok).flatten();
        let until_due = due.map_or(self.context.poll_interval, |due| {
            Duration::try_from(due.duration_since(self.context.clock.now())).unwrap_or(Duration::ZERO)
        });
        // What is due already was taken by another instance a moment ago, or came due since the claim.
        until_due.clamp(MIN_NAP, self.context.poll_interval.max(MIN_NAP))
    }
}
