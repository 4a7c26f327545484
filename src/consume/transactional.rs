//! The loop of a consumer group whose outputs, dead letters and offsets are one transaction per batch.
//!
//! While one transaction is under way, what arrives is decided and gathered for the next: batches are small while there
//! is little to do, and grow with the backlog. Offsets only move in transactions, so a record's effects are never
//! committed without it: a record that waits for a retry holds back the later ones of its partition.

use std::collections::VecDeque;
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::admission::{Fate, Passed, UnderWay};
use super::durable_publish::refusal;
use super::engine::{Limits, all_closed, stuck};
use super::key_order::KeyOrder;
use super::letters::{LetterPress, Size, tell};
use super::retries::{Attempt, Retries};
use super::stage::TransactionalStage;
use super::verdict::{Verdict, letter, verdict};
use crate::domain::dead_letter::DeadLetter;
use crate::domain::record::{OutboundRecord, Record};
use crate::ports::clock::SharedClock;
use crate::ports::publisher::PublishError;
use crate::ports::source::{EventSource, Settled, SourceEnded};
use crate::ports::transactions::{TransactionError, Transactions};
use crate::resilience::breaker::CallOutcome;
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::retry::{RetryPolicy, Waits};
use crate::telemetry::group_metrics::GroupMetrics;

/// Everything the loop works with.
pub struct TransactionalEngine<S: TransactionalStage> {
    /// Where records come from.
    pub source: Arc<dyn EventSource>,
    /// What is done with them.
    pub stage: Arc<S>,
    /// Where everything goes.
    pub transactions: Arc<dyn Transactions>,
    /// In front of them.
    pub breaker: Arc<BreakerCell>,
    /// A transaction that takes longer counts as a failure; it is waited for all the same.
    pub ack_timeout: Duration,
    /// Makes records of dead letters.
    pub press: LetterPress,
    /// How transient failures are tried again.
    pub retry: RetryPolicy,
    /// Bounds; a transaction takes half of what may be in flight.
    pub limits: Limits,
    /// Time.
    pub clock: SharedClock,
    /// Counts.
    pub metrics: Arc<GroupMetrics>,
}

enum What<E> {
    Skip,
    /// Its event had its effect before, or has it in this very transaction.
    Repeated,
    Act(E),
    Dead {
        letter: Box<DeadLetter>,
        size: Size,
    },
}

impl<E> What<E> {
    fn effect(&self) -> Option<&E> {
        match self {
            Self::Act(effect) => Some(effect),
            Self::Skip | Self::Repeated | Self::Dead { .. } => None,
        }
    }
}

struct Item<E> {
    record: Record,
    what: What<E>,
}

struct Batch<E> {
    items: Vec<Item<E>>,
    bytes: usize,
    events: Vec<u64>,
}

impl<E> Default for Batch<E> {
    fn default() -> Self {
        Self { items: Vec::new(), bytes: 0, events: Vec::new() }
    }
}

impl<S: TransactionalStage> TransactionalEngine<S> {
    /// Runs until `stop`, then finishes the transaction in hand and returns. What is cancelled comes again.
    ///
    /// # Errors
    /// [`SourceEnded`] when source and producer have to be built anew.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SourceEnded> {
        let parts = Arc::new(self);
        tokio::select! {
            begun = parts.begin() => begun?,
            () = stop.cancelled() => return Ok(()),
        }
        let retries = Retries::new(KeyOrder::by_partition(), parts.retry, Arc::clone(&parts.metrics));
        Loop {
            parts,
            retries,
            committing: None,
            committed: Vec::new(),
            under_way: UnderWay::default(),
            next: Batch::default(),
        }
        .run(stop)
        .await
    }

    async fn begin(&self) -> Result<(), SourceEnded> {
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            let permit = self.breaker.granted().await;
            match self.transactions.init().await {
                Ok(()) => {
                    permit.report(CallOutcome::Success);
                    return Ok(());
                }
                Err(TransactionError::Ended(why)) => return Err(SourceEnded(why)),
                Err(error) => {
                    permit.report(CallOutcome::Failure(1));
                    tracing::warn!(%error, "transactions cannot begin yet");
                    tokio::time::sleep(waits.next_wait()).await;
                }
            }
        }
    }

    /// Commits a batch, however long the brokers are away, and returns what was settled with it.
    async fn commit(&self, mut batch: Batch<S::Effect>) -> Result<Vec<Settled>, SourceEnded> {
        let begun = self.clock.monotonic();
        let mut effects: Vec<&mut S::Effect> = batch
            .items
            .iter_mut()
            .filter_map(|item| match &mut item.what {
                What::Act(effect) => Some(effect),
                What::Skip | What::Repeated | What::Dead { .. } => None,
            })
            .collect();
        self.stage.prepare(&mut effects).await;
        let mut waits = Waits::new(Duration::from_millis(20), Duration::from_secs(2));
        while !batch.items.is_empty() {
            match self.attempt(&batch).await {
                Ok(settled) => {
                    self.count(&batch, self.clock.monotonic().saturating_sub(begun)).await;
                    return Ok(settled);
                }
                Err((TransactionError::Ended(why), _)) => return Err(SourceEnded(why)),
                Err((TransactionError::Aborted(why), _)) => {
                    tracing::warn!(why, records = batch.items.len(), "a transaction was aborted and is tried again");
                    tokio::time::sleep(waits.next_wait()).await;
                }
                Err((TransactionError::Moved(assignments), _)) => {
                    // Records of a later assignment of the same partition may be in the batch already: they stay.
                    let over = |record: &Record| {
                        assignments.iter().any(|(topic, partition, assignment)| {
                            (*assignment, *partition) == (record.assignment, record.at.partition)
                                && *topic == record.at.topic
                        })
                    };
                    batch.items.retain(|item| !over(&item.record));
                }
                Err((TransactionError::Rejected(refused), owners)) => {
                    for (position, error) in refused {
                        self.refuse(&mut batch.items[owners[position]], error);
                    }
                    tokio::time::sleep(waits.next_wait()).await;
                }
            }
        }
        Ok(Vec::new())
    }

    /// One try. An error comes with the item that each record belongs to.
    async fn attempt(&self, batch: &Batch<S::Effect>) -> Result<Vec<Settled>, (TransactionError, Vec<usize>)> {
        let mut letters = VecDeque::new();
        for item in &batch.items {
            if let What::Dead { letter, size } = &item.what {
                letters.push_back(self.press.record(letter, *size).await);
            }
        }
        let (mut records, mut owners): (Vec<&OutboundRecord>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut letter = letters.iter();
        for (index, item) in batch.items.iter().enumerate() {
            match &item.what {
                What::Skip | What::Repeated => {}
                What::Act(effect) => records.extend(S::records(effect)),
                What::Dead { .. } => records.extend(letter.next()),
            }
            owners.resize(records.len(), index);
        }
        let settled: Vec<Settled> = batch.items.iter().map(|item| Settled::from(&item.record)).collect();
        let mut permit = Some(self.breaker.granted().await);
        let mut commit = self.transactions.commit(&records, &settled);
        let result = loop {
            match tokio::time::timeout(self.ack_timeout, &mut commit).await {
                Ok(result) => break result,
                Err(_) => {
                    tracing::warn!(records = records.len(), "a transaction takes long; its records stay in hand");
                    if let Some(permit) = permit.take() {
                        permit.report(CallOutcome::Failure(records.len().max(1) as u32));
                    }
                    // The next time-out needs a permit of its own.
                    permit = self.breaker.acquire_closed();
                }
            }
        };
        if let Some(permit) = permit {
            permit.report(match &result {
                Err(TransactionError::Aborted(_)) => CallOutcome::Failure(1),
                _ => CallOutcome::Success,
            });
        }
        drop(commit);
        result.map(|()| settled).map_err(|error| (error, owners))
    }

    /// A record that Kafka will never take: its event is dead, and a letter is made smaller.
    fn refuse(&self, item: &mut Item<S::Effect>, error: PublishError) {
        match &mut item.what {
            What::Dead { size, .. } => {
                if *size == Size::BareReference {
                    tracing::error!(%error, "Kafka refuses even the reference; offsets wait");
                }
                *size = size.smaller();
            }
            What::Skip | What::Repeated => {}
            What::Act(_) => {
                let failure = refusal(error, "request", self.clock.now());
                let letter = Box::new(letter(self.stage.name(), &item.record, failure));
                item.what = What::Dead { letter, size: Size::Whole };
            }
        }
    }

    async fn count(&self, batch: &Batch<S::Effect>, took: Duration) {
        for item in &batch.items {
            match &item.what {
                What::Skip => self.metrics.skipped(),
                What::Repeated => self.metrics.duplicate(),
                What::Act(_) => {}
                What::Dead { letter, .. } => {
                    self.metrics.failed(letter.failure.class.as_str());
                    tell([&**letter]);
                }
            }
        }
        let effects: Vec<&S::Effect> = batch.items.iter().filter_map(|item| item.what.effect()).collect();
        self.stage.committed(&effects, took).await;
    }
}

struct Loop<S: TransactionalStage> {
    parts: Arc<TransactionalEngine<S>>,
    retries: Retries,
    committing: Option<Committing>,
    /// The events of what is being committed.
    committed: Vec<u64>,
    under_way: UnderWay,
    next: Batch<S::Effect>,
}

impl<S: TransactionalStage> Loop<S> {
    async fn run(mut self, stop: CancellationToken) -> Result<(), SourceEnded> {
        let parts = Arc::clone(&self.parts);
        let (most, most_bytes) = (parts.limits.in_flight.div_ceil(2), parts.limits.in_flight_bytes.div_ceil(2));
        loop {
            if self.committing.is_none() && !self.next.items.is_empty() {
                let (parts, mut batch) = (Arc::clone(&parts), take(&mut self.next));
                self.committed = take(&mut batch.events);
                self.committing = Some(async move { parts.commit(batch).await }.boxed());
            }
            let draining = stop.is_cancelled();
            if draining && self.committing.is_none() && self.retries.is_empty() {
                return Ok(());
            }
            let held = self.retries.held() + self.next.items.len();
            let full = self.next.bytes + self.retries.held_bytes() >= most_bytes;
            let room = if full { 0 } else { most.saturating_sub(held).min(parts.limits.batch) };
            let taking = async {
                all_closed(&*parts.stage).await;
                parts.source.next_batch(room).await
            };
            tokio::select! {
                biased;
                () = stop.cancelled(), if !draining => {}
                // What is in hand cannot be finished now; its transaction is never committed, so it comes again.
                () = stuck(&*parts.stage), if draining => return Ok(()),
                committed = under_way(&mut self.committing) => self.settle(committed?),
                Some(mut attempts) = self.retries.next() => {
                    // Its new owner has them by now.
                    attempts.retain(|attempt| parts.source.is_current(&attempt.record));
                    self.decide(attempts, &stop).await?;
                }
                taken = taking, if !draining && room > 0 => {
                    let records = taken?;
                    parts.metrics.consumed(records.len());
                    self.decide(records.into_iter().map(Attempt::from).collect(), &stop).await?;
                }
            }
        }
    }

    /// Decides about records in order and gathers them for the next transaction.
    async fn decide(&mut self, attempts: VecDeque<Attempt>, stop: &CancellationToken) -> Result<(), SourceEnded> {
        let parts = Arc::clone(&self.parts);
        let now = parts.clock.now();
        let mut items = Vec::with_capacity(attempts.len());
        for Attempt { record, earlier } in attempts {
            let Some(record) = self.retries.hold(record) else { continue };
            let what = match verdict(&*parts.stage, &record, earlier, &parts.retry, now) {
                Verdict::Skip => What::Skip,
                Verdict::Act(effect) => What::Act(effect),
                Verdict::Dead(letter) => What::Dead { letter, size: Size::Whole },
                Verdict::Retry(failure) => {
                    self.retries.schedule(record, failure);
                    continue;
                }
            };
            items.push(Item { record, what });
        }
        let candidates: Vec<_> = items.iter().filter_map(|i| Some((&i.record, i.what.effect()?))).collect();
        let sorted = self.under_way.sort(&*parts.stage, &candidates);
        let Some(fates) = self.meanwhile(sorted.ask(&*parts.stage), stop).await? else { return Ok(()) };
        let (mut fates, mut passed) = (fates.into_iter(), Passed::default());
        for Item { record, what } in items {
            let fate = if what.effect().is_some() { fates.next() } else { None };
            // One that waits, waits before all later ones of its partition.
            let record = self.retries.hold(record);
            let fate = fate.map(|fate| passed.next(record.as_ref().map(|_| fate)));
            let Some(record) = record else { continue };
            let what = match fate {
                None | Some(Fate::Act) => what,
                Some(Fate::Duplicate | Fate::With(_)) => What::Repeated,
                Some(Fate::Wait { own }) => {
                    self.retries.postpone(record, own || !stop.is_cancelled());
                    continue;
                }
            };
            let event = what.effect().and_then(|effect| parts.stage.event(effect));
            self.next.events.extend(event.map(|id| self.under_way.begin(id)));
            self.next.bytes += record.size();
            self.next.items.push(Item { record, what });
        }
        Ok(())
    }

    /// The transaction under way goes on meanwhile. `None` when the service stops and a breaker is open.
    async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
        stop: &CancellationToken,
    ) -> Result<Option<T>, SourceEnded> {
        let parts = Arc::clone(&self.parts);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                committed = under_way(&mut self.committing) => self.settle(committed?),
                () = stop.cancelled().then(|()| stuck(&*parts.stage)) => return Ok(None),
            }
        }
    }

    fn settle(&mut self, settled: Vec<Settled>) {
        self.committing = None;
        self.under_way.end(&take(&mut self.committed));
        self.parts.source.settle(&settled);
    }
}

type Committing = BoxFuture<'static, Result<Vec<Settled>, SourceEnded>>;

async fn under_way(committing: &mut Option<Committing>) -> Result<Vec<Settled>, SourceEnded> {
    match committing {
        Some(committing) => committing.await,
        None => std::future::pending().await,
    }
}
