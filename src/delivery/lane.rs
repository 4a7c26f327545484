//! A lane: the notifications of one channel that wait for one provider. Lanes share nothing but the ledger, so a slow
//! or dead provider delays nobody else.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use metrics::{Histogram, histogram};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::attempt::{Answered, conclude, conclude_follower, count_settled, outcome, put_back};
use super::corrections::{Lesson, learn, lesson};
use super::decide::OnUnknown;
use super::held::Held;
use super::pacing::{Pacing, Together};
use super::prepare::{Preparation, Prepared, Ready};
use super::rules::{HouseRules, Throttle};
use super::schedule::Schedule;
use super::templates::Templates;
use super::under_way::UnderWay;
use super::unsubscribe::UnsubscribeLinks;
use crate::domain::channel::Channel;
use crate::domain::error::panic_message;
use crate::ports::clock::SharedClock;
use crate::ports::contacts::Contacts;
use crate::ports::ledger::{AttemptStart, ClaimRequest, Claimed, LedgerError, NotificationLedger, Settlement};
use crate::ports::provider::{Accepted, Provider, SendError};
use crate::ports::rate::SharedRate;
use crate::resilience::breaker::{CallOutcome, Position};
use crate::resilience::breaker_cell::{BreakerCell, Permit};
use crate::resilience::retry::Waits;
use crate::telemetry::events;
use crate::telemetry::metric_definitions::DELIVERY_SECONDS;

/// After the first answer, others are waited for this long: settling together is what makes settling fast.
const GATHER: Duration = Duration::from_millis(1);

/// A provider that does not keep its time-out is given up so much later.
const OVERTIME: Duration = Duration::from_secs(2);

/// However soon something is due, the ledger is not asked more often than this.
const MIN_NAP: Duration = Duration::from_millis(5);

/// What all lanes share.
pub struct DispatchContext {
    /// Keeps the notifications.
    pub ledger: Arc<dyn NotificationLedger>,
    /// The recipients directory, which learns from answers too.
    pub contacts: Arc<dyn Contacts>,
    /// Their words.
    pub templates: Arc<Templates>,
    /// What holds for all recipients.
    pub house: HouseRules,
    /// How many a recipient gets.
    pub throttle: Option<Throttle>,
    /// Links to refuse more.
    pub unsubscribe: Option<UnsubscribeLinks>,
    /// For how long a notification waits for a contact.
    pub contact_patience: Duration,
    /// Waits between rounds.
    pub schedule: Schedule,
    /// Time.
    pub clock: SharedClock,
    /// In front of the database.
    pub database: Arc<BreakerCell>,
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// Claimed together at most.
    pub batch: usize,
    /// Sends under way at once, per lane; a provider that slows down gets less.
    pub max_in_flight: usize,
    /// How often the ledger is asked without being told of new work: for what other instances add.
    pub poll_interval: Duration,
}

/// A provider in its place within a channel.
pub struct LaneSettings {
    /// The channel.
    pub channel: Channel,
    /// Position of the provider within the channel.
    pub index: u16,
    /// Providers of the channel.
    pub lanes: u16,
    /// The provider's name.
    pub name: String,
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// How long a send may take.
    pub timeout: Duration,
    /// What to do when nobody knows whether it took a notification.
    pub on_unknown: OnUnknown,
    /// Calls a second at most.
    pub max_per_second: Option<u32>,
    /// Who keeps that rate for all instances, and the breaker in front.
    pub shared_rate: Option<(Arc<dyn SharedRate>, Arc<BreakerCell>)>,
    /// In front of the provider.
    pub breaker: Arc<BreakerCell>,
}

/// One lane at work.
pub struct Lane {
    context: Arc<DispatchContext>,
    settings: Arc<LaneSettings>,
    owner: String,
    held: Arc<Held>,
    under_way: Arc<UnderWay>,
    pacing: Pacing,
    delivery_seconds: Histogram,
}

/// What is to be written down.
#[derive(Default)]
struct Settled {
    settlements: Vec<Settlement>,
    /// For the directory, once the settlements are durable.
    lessons: Vec<Lesson>,
}

struct Answer {
    claimed: Claimed,
    followers: Vec<Claimed>,
    to: String,
    number: u32,
    probe: bool,
    took: Duration,
    lesson: Option<Lesson>,
    result: Result<Accepted, SendError>,
}

impl Lane {
    /// A lane whose claims carry the owner's name.
    pub fn new(
        context: Arc<DispatchContext>,
        settings: Arc<LaneSettings>,
        owner: String,
        held: Arc<Held>,
        under_way: Arc<UnderWay>,
    ) -> Self {
        let together = settings.shared_rate.clone().map(|(rate, breaker)| Together { rate, breaker });
        let clock = Arc::clone(&context.clock);
        let pacing = Pacing::new(clock, settings.max_per_second, together, context.max_in_flight);
        let delivery_seconds = histogram!(DELIVERY_SECONDS);
        Self { context, settings, owner, held, under_way, pacing, delivery_seconds }
    }

    /// Claims, sends and settles until `stop`; then waits for the answers that are due and settles them.
    ///
    /// # Errors
    /// When a send was lost: whoever is built in this place takes over what this one held.
    pub async fn run(self, stop: CancellationToken) -> Result<(), String> {
        let mut sends: JoinSet<Answer> = JoinSet::new();
        let mut settled = Settled::default();
        let mut paused_until = Duration::ZERO;
        let mut work = self.context.ledger.work();
        let mut trouble = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            if stop.is_cancelled() && sends.is_empty() && settled.settlements.is_empty() {
                return Ok(());
            }
            work.mark_unchanged();
            let turn = self.turn(&mut sends, &mut settled, paused_until, &stop).await;
            let claimed = match turn {
                Ok(claimed) => {
                    trouble.reset();
                    claimed
                }
                Err(error) => {
                    tracing::warn!(channel = %self.settings.channel, %error, "the lane waits for the ledger");
                    tokio::time::sleep(trouble.next_wait()).await;
                    continue;
                }
            };
            let idle = claimed == 0;
            if let Some(answer) = self.wait(&mut sends, &mut work, paused_until, idle, &stop).await {
                tokio::time::sleep(GATHER).await;
                self.take_answer(answer?, sends.len(), &mut settled, &mut paused_until);
                while let Some(answer) = sends.try_join_next() {
                    self.take_answer(answer.map_err(lost)?, sends.len(), &mut settled, &mut paused_until);
                }
            }
        }
    }

    /// Settles what is answered, and claims and starts what there is room for. Returns how many were claimed.
    async fn turn(
        &self,
        sends: &mut JoinSet<Answer>,
        settled: &mut Settled,
        paused_until: Duration,
        stop: &CancellationToken,
    ) -> Result<usize, LedgerError> {
        let mut decided = Vec::new();
        let settling = self.write_down(settled);
        let (settling, claimed) = if self.context.throttle.is_some() {
            // What a recipient got lately is counted in the ledger or among what is under way, never in both.
            let settling = settling.await;
            (settling, self.claim(sends, &mut decided, paused_until, stop).await)
        } else {
            tokio::join!(settling, self.claim(sends, &mut decided, paused_until, stop))
        };
        settled.settlements.append(&mut decided);
        settling.and(claimed)
    }

    /// Settles what is answered; what was learnt from the answers comes after.
    async fn write_down(&self, settled: &mut Settled) -> Result<(), LedgerError> {
        if settled.settlements.is_empty() {
            return Ok(());
        }
        self.settle(&mut settled.settlements).await?;
        learn(&*self.context.contacts, std::mem::take(&mut settled.lessons)).await;
        Ok(())
    }

    /// Claims and starts what there is room for.
    async fn claim(
        &self,
        sends: &mut JoinSet<Answer>,
        decided: &mut Vec<Settlement>,
        paused_until: Duration,
        stop: &CancellationToken,
    ) -> Result<usize, LedgerError> {
        if stop.is_cancelled() || self.context.clock.monotonic() < paused_until {
            return Ok(0);
        }
        let limit = self.pacing.grant(self.room(sends.len())).await;
        if limit == 0 {
            return Ok(0);
        }
        let now = self.context.clock.now();
        let request = ClaimRequest {
            channel: self.settings.channel,
            lane: self.settings.index,
            owner: self.owner.clone(),
            now,
            lease_until: now + self.context.lease,
            limit,
        };
        let claimed = match self.guarded(self.context.ledger.claim(request)).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.pacing.give_back(limit).await;
                return Err(error);
            }
        };
        let count = claimed.len();
        self.held.add(claimed.iter().map(|c| c.id.as_str()));
        let before = sends.len();
        let started = match count {
            0 => Ok(()),
            _ => self.start(claimed, sends, decided, now).await,
        };
        // What is not sent after all costs the provider nothing.
        self.pacing.give_back(limit.saturating_sub(sends.len() - before)).await;
        started.map(|()| count)
    }

    /// Settles a batch; when the database refuses its content, each one singly, so that one cannot hold up the others.
    async fn settle(&self, settled: &mut Vec<Settlement>) -> Result<(), LedgerError> {
        match self.guarded(self.context.ledger.settle(settled)).await {
            Ok(taken) => {
                self.let_go(settled);
                count_settled(settled, &taken);
            }
            Err(LedgerError::Rejected(reason)) if settled.len() == 1 => {
                tracing::error!(reason, notification = settled[0].id, "a settlement is refused; its lease will expire");
                self.let_go(settled);
            }
            Err(LedgerError::Rejected(_)) => {
                while let Some(one) = settled.pop() {
                    let mut one = vec![one];
                    if let Err(error) = Box::pin(self.settle(&mut one)).await {
                        settled.append(&mut one);
                        return Err(error);
                    }
                }
            }
            Err(error) => return Err(error),
        }
        settled.clear();
        Ok(())
    }

    fn let_go(&self, settled: &[Settlement]) {
        self.held.remove(settled.iter().map(|s| s.id.as_str()));
        self.under_way.end(settled.iter().map(|s| s.id.as_str()));
    }

    /// How many may be claimed: bounded by what is under way, and by what the breaker lets pass.
    fn room(&self, under_way: usize) -> usize {
        match self.settings.breaker.position() {
            Position::Open => 0,
            Position::HalfOpen => usize::from(under_way == 0),
            Position::Closed => {
                let limit = self.pacing.limit();
                let room = limit.saturating_sub(under_way).min(self.context.batch);
                // Small claims cost as much as large ones: wait until there is room for a good part of a batch.
                let worthwhile = limit.min(self.context.batch).div_ceil(4);
                if room >= worthwhile || under_way == 0 { room } else { 0 }
            }
        }
    }

    /// Prepares claimed notifications, records their attempts, and sends them.
    async fn start(
        &self,
        claimed: Vec<Claimed>,
        sends: &mut JoinSet<Answer>,
        settled: &mut Vec<Settlement>,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let preparation = Preparation {
            context: &self.context,
            channel: self.settings.channel,
            held: &self.held,
            under_way: &self.under_way,
            owner: &self.owner,
            now,
        };
        let ids: Vec<String> = claimed.iter().map(|c| c.id.clone()).collect();
        let prepared = self.guarded(preparation.run(claimed)).await;
        let Ok(Prepared { ready, settled: decided }) = prepared else {
            // Nobody renews their leases, and whoever takes them over decides anew.
            self.held.remove(ids.iter().map(String::as_str));
            return prepared.map(drop);
        };
        settled.extend(decided);
        let mut permitted = Vec::with_capacity(ready.len());
        for ready in ready {
            match self.settings.breaker.acquire() {
                Some(permit) => permitted.push((ready, permit)),
                None => {
                    settled.push(put_back(&ready.claimed, &self.owner, now));
                    settled.extend(ready.followers.iter().map(|f| put_back(f, &self.owner, now)));
                }
            }
        }
        let starts: Vec<AttemptStart> = permitted
            .iter()
            .map(|(ready, _)| AttemptStart {
                seq: ready.claimed.seq,
                id: ready.message.id.clone(),
                number: ready.message.attempt,
                provider: self.settings.name.clone(),
                template_version: Some(ready.version.clone()),
                started_at: now,
            })
            .collect();
        if starts.is_empty() {
            return Ok(());
        }
        // Nothing leaves before its attempt is recorded. Whether one is recorded may be unknown: then nobody renews its
        // lease, and whoever takes it over finds the truth in the table.
        let begun = self.guarded(self.context.ledger.begin_attempts(&self.owner, &starts)).await;
        let begun_ids: HashSet<&str> = begun.iter().flatten().map(String::as_str).collect();
        for (ready, permit) in permitted {
            if begun_ids.contains(ready.message.id.as_str()) {
                if let Some(recipient) = ready.claimed.recipient.as_ref().filter(|_| !ready.claimed.critical) {
                    self.under_way.begin(&ready.claimed.id, recipient);
                }
                sends.spawn(self.send(ready, permit));
            } else {
                let followers = ready.followers.iter().map(|f| f.id.as_str());
                self.held.remove(std::iter::once(ready.message.id.as_str()).chain(followers));
            }
        }
        begun.map(drop)
    }

    fn send(&self, ready: Ready, permit: Permit) -> impl Future<Output = Answer> + Send + 'static {
        let (settings, context) = (Arc::clone(&self.settings), Arc::clone(&self.context));
        let Ready { message, claimed, followers, .. } = ready;
        async move {
            let started = context.clock.monotonic();
            let provider = Arc::clone(&settings.provider);
            let (to, number, probe) = (message.to.clone(), message.attempt, permit.is_probe());
            // A provider that panics loses its answer, not the notification.
            let sending = AssertUnwindSafe(provider.send(&message)).catch_unwind();
            // Providers keep their own time-out, and say what it means; this one is for those that hang all the same.
            let patience = settings.timeout + OVERTIME;
            let result = match tokio::time::timeout(patience, sending).await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => {
                    let problem = panic_message(&*panic);
                    Err(SendError::Unknown(format!("the provider's code panicked: {problem}")))
                }
                Err(_) => Err(SendError::Unknown(format!("no answer within {} ms", patience.as_millis()))),
            };
            let took = context.clock.monotonic().saturating_sub(started);
            permit.report(match &result {
                Err(SendError::Transient(_) | SendError::Unknown(_)) => CallOutcome::Failure(1),
                // A refusal or a rate limit shows that the provider is there.
                Ok(_)
                | Err(
                    SendError::Permanent(_)
                    | SendError::Gone { .. }
                    | SendError::Suppressed(_)
                    | SendError::RateLimited { .. },
                ) => CallOutcome::Success,
            });
            let lesson = lesson(&claimed, to.as_deref(), &result);
            let to = to.unwrap_or_else(|| "administrators".to_owned());
            Answer { claimed, followers, to, number, probe, took, lesson, result }
        }
    }

    fn take_answer(&self, answer: Answer, under_way: usize, settled: &mut Settled, paused_until: &mut Duration) {
        let now = self.context.clock.now();
        if let Err(SendError::RateLimited { retry_after, .. }) = &answer.result {
            *paused_until = (*paused_until).max(self.context.clock.monotonic() + *retry_after);
        }
        if answer.result.is_ok() {
            let seconds = now.duration_since(answer.claimed.caused_at).as_secs_f64().max(0.0);
            self.delivery_seconds.record(seconds);
        }
        let concluded = Answered {
            claimed: &answer.claimed,
            to: &answer.to,
            number: answer.number,
            probe: answer.probe,
            duration: answer.took,
            result: &answer.result,
        };
        let failed = matches!(answer.result, Err(SendError::Transient(_) | SendError::Unknown(_)));
        self.pacing.answered(answer.took, under_way + 1, failed);
        events::provider_answered(&self.settings.name, outcome(&answer.result).as_str());
        let (settings, schedule) = (&self.settings, &self.context.schedule);
        settled.settlements.push(conclude(&concluded, settings, schedule, &self.owner, now));
        let fare = |follower| conclude_follower(&concluded, follower, settings, schedule, &self.owner, now);
        settled.settlements.extend(answer.followers.iter().map(fare));
        settled.lessons.extend(answer.lesson);
    }

    /// Waits for an answer, for work, for the end of a pause, or for the stop.
    async fn wait(
        &self,
        sends: &mut JoinSet<Answer>,
        work: &mut tokio::sync::watch::Receiver<u64>,
        paused_until: Duration,
        idle: bool,
        stop: &CancellationToken,
    ) -> Option<Result<Answer, String>> {
        let nap = if self.room(sends.len()) == 0 {
            // An answer or the breaker wakes the lane.
            self.context.poll_interval
        } else if idle {
            self.nap(paused_until).await
        } else {
            // There was work, so there may be more.
            Duration::ZERO
        };
        let mut position = self.settings.breaker.watch();
        let stopping = stop.is_cancelled();
        tokio::select! {
            Some(answer) = sends.join_next(), if !sends.is_empty() => Some(answer.map_err(lost)),
            Ok(()) = work.changed(), if !stopping => None,
            Ok(()) = position.changed(), if !stopping => None,
            () = stop.cancelled(), if !stopping => None,
            () = tokio::time::sleep(nap) => None,
        }
    }

    /// How long there is nothing to do, as far as can be known.
    async fn nap(&self, paused_until: Duration) -> Duration {
        let now = self.context.clock.monotonic();
        if paused_until > now {
            return paused_until - now;
        }
        let until_token = self.pacing.until_token();
        if !until_token.is_zero() {
            return until_token;
        }
        let due = self.context.ledger.next_due(self.settings.channel, self.settings.index).await.ok().flatten();
        let until_due = due.map_or(self.context.poll_interval, |due| {
            Duration::try_from(due.duration_since(self.context.clock.now())).unwrap_or(Duration::ZERO)
        });
        // What is due already was taken by another instance a moment ago, or will be claimed in the next turn.
        until_due.clamp(MIN_NAP, self.context.poll_interval.max(MIN_NAP))
    }

    /// Tells the database's breaker how it went.
    async fn guarded<T>(&self, operation: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        // The actor's probe has a short deadline; an operation of the lane may take long.
        let permit = self.context.database.acquire_closed();
        let result = operation.await;
        if let Some(permit) = permit {
            permit.report(match &result {
                Err(LedgerError::Unavailable(_)) => CallOutcome::Failure(1),
                Ok(_) | Err(LedgerError::Rejected(_)) => CallOutcome::Success,
            });
        }
        result
    }
}

fn lost(error: JoinError) -> String {
    format!("a send was lost: {error}")
}
