//! The loop of a consumer group: take, decide, make durable, settle. One loop for both stages.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all, select_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use super::admission::{Fate, Passed, UnderWay};
use super::key_order::KeyOrder;
use super::retries::{Attempt, Retries};
use super::stage::Stage;
use super::verdict::{Verdict, letter, verdict};
use crate::domain::dead_letter::DeadLetter;
use crate::domain::record::Record;
use crate::ports::clock::SharedClock;
use crate::ports::dead_letters::DeadLetterSink;
use crate::ports::source::{EventSource, Settled, SourceEnded};
use crate::resilience::breaker::Position;
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::retry::{RetryPolicy, Waits};
use crate::telemetry::group_metrics::GroupMetrics;

/// After a stop, acknowledgements are waited for so long when a breaker is open.
const LAST_ACKS: Duration = Duration::from_secs(1);

/// Bounds of the loop.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records decided together.
    pub batch: usize,
    /// Records taken and not settled, over all batches.
    pub in_flight: usize,
    /// Bytes of these records.
    pub in_flight_bytes: usize,
}

/// Everything the loop works with.
pub struct Engine<S: Stage> {
    /// Where records come from.
    pub source: Arc<dyn EventSource>,
    /// What is done with them.
    pub stage: Arc<S>,
    /// Where those go that cannot be processed.
    pub dead_letters: Arc<dyn DeadLetterSink>,
    /// How transient failures are tried again.
    pub retry: RetryPolicy,
    /// Bounds.
    pub limits: Limits,
    /// Time.
    pub clock: SharedClock,
    /// Counts.
    pub metrics: Arc<GroupMetrics>,
}

/// A batch whose effects are durable.
struct Finished {
    settled: Vec<Settled>,
    bytes: usize,
    events: Vec<u64>,
}

impl<S: Stage> Engine<S> {
    /// Runs until `stop`, then finishes what is in hand and returns. What is cancelled comes again.
    ///
    /// # Errors
    /// [`SourceEnded`] when the source has to be built anew.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SourceEnded> {
        let retries = Retries::new(KeyOrder::default(), self.retry, Arc::clone(&self.metrics));
        let (batches, under_way) = (FuturesUnordered::new(), UnderWay::default());
        Loop { engine: self, retries, batches, under_way, in_flight: 0, bytes: 0 }.run(stop).await
    }
}

struct Loop<S: Stage> {
    engine: Engine<S>,
    retries: Retries,
    batches: FuturesUnordered<BoxFuture<'static, Finished>>,
    under_way: UnderWay,
    in_flight: usize,
    bytes: usize,
}

impl<S: Stage> Loop<S> {
    async fn run(mut self, stop: CancellationToken) -> Result<(), SourceEnded> {
        loop {
            let draining = stop.is_cancelled();
            if draining && self.batches.is_empty() && self.retries.is_empty() {
                return Ok(());
            }
            let room = self.engine.limits.in_flight.saturating_sub(self.in_flight + self.retries.held());
            let source = Arc::clone(&self.engine.source);
            let stage = Arc::clone(&self.engine.stage);
            let full = self.bytes + self.retries.held_bytes() >= self.engine.limits.in_flight_bytes;
            let batch = if full { 0 } else { room.min(self.engine.limits.batch) };
            let take = async {
                all_closed(&*stage).await;
                source.next_batch(batch).await
            };
            tokio::select! {
                biased;
                () = stop.cancelled(), if !draining => {}
                // What is in hand cannot be finished now; unsettled, it comes again.
                () = stuck(&*stage), if draining => return Ok(()),
                Some(finished) = self.batches.next() => self.settle(finished),
                Some(mut attempts) = self.retries.next() => {
                    // Its new owner has them by now: what is written here would come behind what it writes.
                    attempts.retain(|attempt| self.engine.source.is_current(&attempt.record));
                    self.start(attempts, &stop).await;
                }
                taken = take, if !draining && batch > 0 => {
                    let records = taken?;
                    self.engine.metrics.consumed(records.len());
                    self.start(records.into_iter().map(Attempt::from).collect(), &stop).await;
                }
            }
        }
    }

    fn settle(&mut self, Finished { settled, bytes, events }: Finished) {
        self.under_way.end(&events);
        self.in_flight -= settled.len();
        self.bytes -= bytes;
        self.engine.source.settle(&settled);
    }

    /// Decides about records in order, begins their effects, and leaves their settlement to a future.
    async fn start(&mut self, attempts: VecDeque<Attempt>, stop: &CancellationToken) {
        let now = self.engine.clock.now();
        let mut settled = Vec::with_capacity(attempts.len());
        let mut acting = Vec::new();
        let mut letters = Vec::new();
        let mut bytes = 0;
        for Attempt { record, earlier } in attempts {
            let Some(record) = self.retries.hold(record) else { continue };
            let size = record.size();
            match verdict(&*self.engine.stage, &record, earlier, &self.engine.retry, now) {
                Verdict::Skip => {
                    self.engine.metrics.skipped();
                    settled.push(Settled::from(record));
                    bytes += size;
                }
                Verdict::Act(effect) => acting.push((record, effect)),
                Verdict::Retry(failure) => self.retries.schedule(record, failure),
                Verdict::Dead(letter) => {
                    letters.push(*letter);
                    settled.push(Settled::from(record));
                    bytes += size;
                }
            }
        }
        let Some((acting, effects)) = self.admit(acting, &mut settled, stop).await else { return };
        let records = settled.len() + acting.len();
        if records == 0 {
            return;
        }
        bytes += acting.iter().map(Record::size).sum::<usize>();
        let stage = Arc::clone(&self.engine.stage);
        let events = effects.iter().filter_map(|effect| stage.event(effect)).map(|id| self.under_way.begin(id));
        let events: Vec<u64> = events.collect();
        let Some(durable) = self.meanwhile(stage.begin(effects), stop).await else { return };
        self.in_flight += records;
        self.bytes += bytes;
        let finish = self.finish(durable, acting, letters, settled);
        self.batches.push(Box::pin(async move { Finished { settled: finish.await, bytes, events } }));
    }

    /// Drops the effects of events that had them before, and lets those wait that another record has in hand. `None`
    /// when the service stops and this cannot be known now.
    async fn admit(
        &mut self,
        acting: Vec<(Record, S::Effect)>,
        settled: &mut Vec<Settled>,
        stop: &CancellationToken,
    ) -> Option<(Vec<Record>, Vec<S::Effect>)> {
        let stage = Arc::clone(&self.engine.stage);
        let candidates: Vec<_> = acting.iter().map(|(record, effect)| (record, effect)).collect();
        let sorted = self.under_way.sort(&*stage, &candidates);
        let fates = self.meanwhile(sorted.ask(&*stage), stop).await?;
        let mut passed = Passed::default();
        let mut admitted = (Vec::with_capacity(acting.len()), Vec::with_capacity(acting.len()));
        for ((record, effect), fate) in acting.into_iter().zip(fates) {
            // One that waits, waits before all later ones of its key.
            let record = self.retries.hold(record);
            let fate = passed.next(record.as_ref().map(|_| fate));
            let Some(record) = record else { continue };
            match fate {
                Fate::Act => admitted.extend([(record, effect)]),
                Fate::Duplicate | Fate::With(_) => {
                    self.engine.metrics.duplicate();
                    settled.push(Settled::from(record));
                }
                Fate::Wait { own } => self.retries.postpone(record, own || !stop.is_cancelled()),
            }
        }
        Some(admitted)
    }

    /// Earlier batches go on while this one waits: theirs are the time-outs that open the breaker. `None` when the
    /// service stops and a breaker is open.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>, stop: &CancellationToken) -> Option<T> {
        let stage = Arc::clone(&self.engine.stage);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                Some(finished) = self.batches.next() => self.settle(finished),
                () = stop.cancelled().then(|()| stuck(&*stage)) => return None,
            }
        }
    }

    /// Waits until everything is durable, effects and dead letters, and says what is settled.
    fn finish(
        &self,
        durable: super::stage::Durable,
        acting: Vec<Record>,
        mut letters: Vec<DeadLetter>,
        mut settled: Vec<Settled>,
    ) -> impl Future<Output = Vec<Settled>> + Send + 'static {
        let sink = Arc::clone(&self.engine.dead_letters);
        let stage = self.engine.stage.name();
        let metrics = Arc::clone(&self.engine.metrics);
        async move {
            let mut failed = HashSet::new();
            for (index, failure) in durable.await {
                // Two refused outputs of one record are one dead letter.
                if let Some(record) = acting.get(index).filter(|_| failed.insert(index)) {
                    letters.push(letter(stage, record, failure));
                }
            }
            for letter in &letters {
                metrics.failed(letter.failure.class.as_str());
            }
            park_until_durable(&*sink, letters).await;
            settled.extend(acting.into_iter().map(Settled::from));
            settled
        }
    }
}

/// The offset waits for the dead letter, however long its topic is away.
async fn park_until_durable(sink: &dyn DeadLetterSink, letters: Vec<DeadLetter>) {
    if letters.is_empty() {
        return;
    }
    let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
    while let Err(error) = sink.park(letters.clone()).await {
        tracing::warn!(%error, letters = letters.len(), "dead letters wait: their offsets do not move");
        tokio::time::sleep(waits.next_wait()).await;
    }
}

/// Waits until every breaker of the stage lets calls pass.
pub(super) async fn all_closed<S: Stage>(stage: &S) {
    while stage.breakers().iter().any(|b| b.position() != Position::Closed) {
        join_all(stage.breakers().iter().map(|b| b.closed())).await;
    }
}

/// Waits until a breaker is open and nothing gets done any more. Acknowledgements may be on their way, above all when an
/// operator opened it: what they are for would be written a second time after the next start.
pub(super) async fn stuck<S: Stage>(stage: &S) {
    any_open(stage).await;
    tokio::time::sleep(LAST_ACKS).await;
}

/// Waits until one of them does not.
async fn any_open<S: Stage>(stage: &S) {
    let opened = |breaker: &Arc<BreakerCell>| {
        let mut position = breaker.watch();
        async move { drop(position.wait_for(|p| *p != Position::Closed).await) }.boxed()
    };
    if stage.breakers().is_empty() {
        return std::future::pending().await;
    }
    select_all(stage.breakers().iter().map(opened)).await;
}
