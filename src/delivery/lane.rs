//! A lane: the notifications of one channel that wait for one provider. Lanes share nothing but the ledger, so a slow
//! or dead provider delays nobody else.
//!
//! Three things go on at once and wait for each other only where they must: batches are taken from the ledger, what was
//! taken before them is with the provider, and what is answered is written down.

use std::iter::once;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use metrics::{Histogram, histogram};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Answered, conclude, conclude_follower, count_settled, outcome};
use super::claiming::{Claiming, Taken};
use super::context::{DispatchContext, LaneSettings};
use super::corrections::{Lesson, learn};
use super::decide::MIN_RATE_LIMIT_WAIT;
use super::held::Held;
use super::pacing::{Pacing, Together};
use super::sending::{Answer, send};
use super::under_way::UnderWay;
use crate::domain::channel::Channel;
use crate::ports::ledger::{LedgerError, Settlement};
use crate::ports::provider::SendError;
use crate::resilience::breaker::Position;
use crate::resilience::retry::Waits;
use crate::telemetry::events;
use crate::telemetry::metric_definitions::DELIVERY_SECONDS;

/// After the first answer, others are waited for this long: large batches are what makes settling and claiming fast.
const GATHER: Duration = Duration::from_millis(3);

/// Written down together at most.
const MOST_SETTLED: usize = 1000;

/// Batches that are taken at once while there are more than one holds: one is prepared while the database works on the
/// other.
const TAKING: usize = 2;

/// What is to be written down.
#[derive(Default)]
struct Settled {
    settlements: Vec<Settlement>,
    /// For the directory, once the settlements are durable.
    lessons: Vec<Lesson>,
}

/// What was done with the ledger.
enum Done {
    Taken {
        /// How many were asked for.
        room: usize,
        taken: Taken,
        result: Result<(), LedgerError>,
    },
    /// What could not be written down is still there.
    Settled(Settled, Result<(), LedgerError>),
}

/// One lane at work.
pub struct Lane {
    claiming: Arc<Claiming>,
    delivery_seconds: Histogram,
    /// With the provider.
    sends: JoinSet<Answer>,
    /// With the ledger.
    tasks: JoinSet<Done>,
    /// How many of the tasks take a batch, and how much they may take together.
    taking: usize,
    reserved: usize,
    /// The last batch was full, so there are more.
    is_behind: bool,
    settled: Settled,
    /// Settlements that one of the tasks writes down.
    writing: usize,
    /// An answer waits for company until then.
    gather_until: Instant,
    /// Nothing is due before then, as far as is known.
    nap_until: Instant,
    /// Something new may be due all the same.
    is_woken: bool,
    claim_trouble: Trouble,
    settle_trouble: Trouble,
}

/// The ledger is left alone for a while after it failed.
struct Trouble {
    until: Instant,
    waits: Waits,
}

impl Trouble {
    fn new() -> Self {
        let waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        Self { until: Instant::now(), waits }
    }

    fn heed(&mut self, channel: Channel, result: Result<(), LedgerError>) {
        match result {
            Ok(()) => self.waits.reset(),
            Err(error) => {
                tracing::warn!(%channel, %error, "the lane waits for the ledger");
                self.until = Instant::now() + self.waits.next_wait();
            }
        }
    }
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
        let pacing = Arc::new(Pacing::new(clock, settings.max_per_second, together, settings.max_in_flight));
        let now = Instant::now();
        Self {
            claiming: Arc::new(Claiming { context, settings, owner, held, under_way, pacing }),
            delivery_seconds: histogram!(DELIVERY_SECONDS),
            sends: JoinSet::new(),
            tasks: JoinSet::new(),
            taking: 0,
            reserved: 0,
            is_behind: false,
            settled: Settled::default(),
            writing: 0,
            gather_until: now,
            nap_until: now,
            is_woken: false,
            claim_trouble: Trouble::new(),
            settle_trouble: Trouble::new(),
        }
    }

    /// Claims, sends and settles until `stop`; then waits for the answers that are due and settles them.
    ///
    /// # Errors
    /// When a send was lost: whoever is built in this place takes over what this one held.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        let mut work = self.context().ledger.work();
        let LaneSettings { breaker, breakers_before, .. } = &*self.claiming.settings;
        // Its own provider's, and those of the lanes that it may have to stand in for.
        let mut positions: Vec<_> = once(breaker).chain(breakers_before).map(|breaker| breaker.watch()).collect();
        loop {
            let stopping = stop.is_cancelled();
            self.settle_if_due();
            if !stopping {
                self.claim_if_due(&mut work);
            }
            if stopping && self.is_idle() {
                return Ok(());
            }
            let wake = self.wake();
            tokio::select! {
                Some(done) = self.tasks.join_next() => self.take_done(done.map_err(lost)?),
                Some(answer) = self.sends.join_next() => {
                    self.take_answer(answer.map_err(lost)?);
                    while let Some(answer) = self.sends.try_join_next() {
                        self.take_answer(answer.map_err(lost)?);
                    }
                }
                Ok(()) = work.changed(), if !stopping => self.is_woken = true,
                () = any_changed(&mut positions), if !stopping => self.is_woken = true,
                () = stop.cancelled(), if !stopping => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn context(&self) -> &DispatchContext {
        &self.claiming.context
    }

    /// True when nothing is under way and nothing is left to be written down.
    fn is_idle(&self) -> bool {
        self.sends.is_empty() && self.tasks.is_empty() && self.settled.settlements.is_empty()
    }

    /// True while more answers are about to come.
    fn is_gathering(&self, now: Instant) -> bool {
        now < self.gather_until && !self.sends.is_empty()
    }

    fn settle_if_due(&mut self) {
        let now = Instant::now();
        let nothing = self.settled.settlements.is_empty() || self.is_gathering(now);
        if self.writing > 0 || nothing || now < self.settle_trouble.until {
            return;
        }
        // What a recipient got lately is counted in the ledger or among what is under way, never in both.
        if self.taking > 0 && self.context().throttle.is_some() {
            return;
        }
        let mut settled = std::mem::take(&mut self.settled);
        if settled.settlements.len() > MOST_SETTLED {
            self.settled.settlements = settled.settlements.split_off(end_of_batch(&settled.settlements));
            // They come after their settlements, the last of which may be among the rest.
            self.settled.lessons = std::mem::take(&mut settled.lessons);
        }
        self.writing = settled.settlements.len();
        self.tasks.spawn(write_down(Arc::clone(&self.claiming), settled));
    }

    fn claim_if_due(&mut self, work: &mut watch::Receiver<u64>) {
        let now = Instant::now();
        let resting = (now < self.nap_until && !self.is_woken) || self.is_gathering(now);
        let paused = !self.claiming.pacing.pause_left().is_zero();
        if resting || paused || now < self.claim_trouble.until || !self.may_take() {
            return;
        }
        let room = self.room();
        if room == 0 {
            return;
        }
        // Whatever is added from now on may be missed, and wakes the lane again.
        work.mark_unchanged();
        self.is_woken = false;
        self.taking += 1;
        self.reserved += room;
        let claiming = Arc::clone(&self.claiming);
        self.tasks.spawn(async move {
            let (taken, result) = claiming.take(room).await;
            Done::Taken { room, taken, result }
        });
    }

    /// One batch is taken at a time, unless there is more than that.
    fn may_take(&self) -> bool {
        // What cannot be written down must not pile up.
        if self.writing + self.settled.settlements.len() > 2 * self.context().max_in_flight {
            return false;
        }
        if self.context().throttle.is_some() {
            return self.taking == 0 && self.writing == 0;
        }
        self.taking == 0 || (self.taking < TAKING && (self.is_behind || self.is_woken))
    }

    /// How many may be claimed: bounded by what is under way, and by what the breaker lets pass.
    fn room(&self) -> usize {
        let under_way = self.sends.len() + self.reserved;
        let breaker = &self.claiming.settings.breaker;
        match breaker.position() {
            Position::Open => 0,
            // Sends from before may hang for long yet: they are no reason to wait with the probe.
            Position::HalfOpen => usize::from(self.reserved == 0 && !breaker.turns_away()),
            Position::Closed => {
                let limit = self.claiming.pacing.limit();
                let batch = self.context().batch;
                let room = limit.saturating_sub(under_way).min(batch);
                // Small claims cost as much as large ones: wait until there is room for a good part of a batch.
                let worthwhile = limit.min(batch).div_ceil(4);
                if room >= worthwhile || under_way == 0 { room } else { 0 }
            }
        }
    }

    /// When to look again if nothing happens.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let pause = now + self.claiming.pacing.pause_left();
        [self.gather_until, self.nap_until, self.claim_trouble.until, self.settle_trouble.until, pause]
            .into_iter()
            .filter(|at| *at > now)
            .fold(now + self.context().poll_interval, Instant::min)
    }

    fn take_done(&mut self, done: Done) {
        let channel = self.claiming.settings.channel;
        match done {
            Done::Taken { room, taken: Taken { begun, mut decided, claimed, nap }, result } => {
                self.taking -= 1;
                self.reserved -= room;
                self.is_behind = claimed == room;
                self.nap_until = Instant::now() + nap.unwrap_or_default();
                for (ready, permit) in begun {
                    let Claiming { settings, context, .. } = &*self.claiming;
                    self.sends.spawn(send(Arc::clone(settings), Arc::clone(context), ready, permit));
                }
                self.settled.settlements.append(&mut decided);
                self.claim_trouble.heed(channel, result);
            }
            Done::Settled(mut left, result) => {
                left.settlements.append(&mut self.settled.settlements);
                left.lessons.append(&mut self.settled.lessons);
                self.settled = left;
                self.writing = 0;
                self.settle_trouble.heed(channel, result);
            }
        }
    }

    fn take_answer(&mut self, answer: Answer) {
        let Claiming { context, settings, owner, pacing, .. } = &*self.claiming;
        if self.settled.settlements.is_empty() {
            self.gather_until = Instant::now() + GATHER;
        }
        let now = context.clock.now();
        if let Err(SendError::RateLimited { retry_after, .. }) = &answer.result {
            pacing.pause((*retry_after).max(MIN_RATE_LIMIT_WAIT));
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
        pacing.answered(answer.took, self.sends.len() + 1, failed);
        events::provider_answered(&settings.name, outcome(&answer.result).as_str());
        let settled = &mut self.settled;
        settled.settlements.push(conclude(&concluded, settings, &context.schedule, owner, now));
        let fare = |follower| conclude_follower(&concluded, follower, settings, &context.schedule, owner, now);
        settled.settlements.extend(answer.followers.iter().map(fare));
        settled.lessons.extend(answer.lesson);
    }
}

/// Waits until one of them, of which there is at least one, moves. The lane holds their breakers, so none of them ends.
async fn any_changed(positions: &mut [watch::Receiver<Position>]) {
    drop(select_all(positions.iter_mut().map(|position| Box::pin(position.changed()))).await);
}

/// Where the first batch ends: a digest is settled whole, whatever became of it. After a crash in between what travelled
/// with it would be sent again, and a leader that is due again would leave without the others.
fn end_of_batch(settlements: &[Settlement]) -> usize {
    let travelled = |settlement: &&Settlement| settlement.digest_id.is_some();
    MOST_SETTLED + settlements.iter().skip(MOST_SETTLED).take_while(travelled).count()
}

/// Settles what is answered; what was learnt from the answers comes after.
async fn write_down(claiming: Arc<Claiming>, mut settled: Settled) -> Done {
    let result = settle(&claiming, &mut settled.settlements).await;
    if result.is_ok() {
        learn(&*claiming.context.contacts, std::mem::take(&mut settled.lessons)).await;
    }
    Done::Settled(settled, result)
}

/// Settles a batch; when the database refuses its content, each one singly, so that one cannot hold up the others.
async fn settle(claiming: &Claiming, settled: &mut Vec<Settlement>) -> Result<(), LedgerError> {
    match claiming.context.guarded(claiming.context.ledger.settle(settled)).await {
        Ok(taken) => {
            let_go(claiming, settled);
            count_settled(settled, &taken);
        }
        Err(LedgerError::Rejected(reason)) if settled.len() == 1 => {
            tracing::error!(reason, notification = settled[0].id, "a settlement is refused; its lease will expire");
            let_go(claiming, settled);
        }
        Err(LedgerError::Rejected(_)) => {
            while let Some(one) = settled.pop() {
                let mut one = vec![one];
                if let Err(error) = Box::pin(settle(claiming, &mut one)).await {
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

fn let_go(claiming: &Claiming, settled: &[Settlement]) {
    claiming.held.remove(settled.iter().map(|s| s.id.as_str()));
    claiming.under_way.end(settled.iter().map(|s| s.id.as_str()));
}

fn lost(error: JoinError) -> String {
    format!("a send was lost: {error}")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::delivery::attempt::put_back;
    use crate::delivery::state_tests::claimed;
    use crate::ports::ledger::{AttemptEnd, Outcome, State};

    #[test]
    fn a_batch_does_not_end_within_a_digest() {
        let waits = put_back(&claimed(), "o", Timestamp::UNIX_EPOCH);
        let end = AttemptEnd { number: 1, outcome: Outcome::Accepted, duration_ms: 1, receipt: None, error: None };
        let leads = Settlement { state: State::Sent, attempt: Some(end), ..waits.clone() };
        let travelled = Settlement { digest_id: Some("n".into()), ..waits.clone() };
        let mut all = vec![waits; MOST_SETTLED - 2];
        all.push(leads.clone());
        all.extend(vec![travelled; 5]);
        all.extend([leads.clone(), leads]);
        assert_eq!(end_of_batch(&all), MOST_SETTLED + 4);
    }
}
