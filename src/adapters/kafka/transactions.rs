//! The transactional producer of one consumer group: records and offsets in one transaction.
//!
//! The offsets go with the group's member and generation (KIP-447), so the broker refuses those of a member that lost
//! its partitions without knowing it; the producer's name fences off an older producer of the same name.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{Mutex, oneshot};

use super::client_config::{ClientSettings, TRANSACTION_TIMEOUT};
use super::publisher::{BatchAcks, Context, Native, classify, enqueue};
use super::tracker::{Partition, Tracker};
use crate::domain::record::OutboundRecord;
use crate::ports::publisher::PublishError;
use crate::ports::source::Settled;
use crate::ports::transactions::{TransactionError, Transactions};

/// One call waits so long; a call that may be repeated is.
const CALL: Duration = Duration::from_secs(5);
/// It is repeated so often before the producer is given up.
const REPEATS: u32 = 1;
/// A call that has not returned so long after its time is not waited for any more.
const GRACE: Duration = Duration::from_secs(1);
/// With so many of them at once, most of them given up, something is wrong that only a new process mends.
const MOST_CALLS: usize = 32;
/// Calls of this process that have not returned.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// See the module.
pub struct KafkaTransactions {
    settings: ClientSettings,
    group: String,
    name: String,
    tracker: Arc<Tracker>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A producer that failed in a transaction is given up: the next of its name aborts what it left open. That is
    /// certain, where librdkafka's way back from a failed transaction depends on how it failed.
    producer: Option<Arc<Producer>>,
    /// The steps of a transaction of which nobody said whether it was committed.
    doubtful: Vec<Step>,
}

/// A partition, the number of its assignment, and the position that a transaction gives it. A member takes each step
/// once, or again because it does not know: the same step is the same batch.
type Step = (Partition, Option<u64>, i64);

impl KafkaTransactions {
    pub(super) fn new(settings: &ClientSettings, group: &str, name: &str, tracker: Arc<Tracker>) -> Self {
        let (settings, group, name) = (settings.clone(), group.to_owned(), name.to_owned());
        Self { settings, group, name, tracker, state: Mutex::default() }
    }

    /// The producer, able to begin a transaction; the one before has ended, this way or that.
    async fn ready(&self, state: &mut State) -> Result<Arc<Producer>, TransactionError> {
        if let Some(producer) = &state.producer {
            return Ok(Arc::clone(producer));
        }
        let producer = Arc::new(Producer::new(&self.settings, &self.name)?);
        producer.call(|native| native.init_transactions(CALL)).await?;
        Ok(Arc::clone(state.producer.insert(producer)))
    }

    fn steps(&self, positions: &[(Partition, i64)]) -> Vec<Step> {
        let step = |(partition, position): &(Partition, i64)| {
            (partition.clone(), self.tracker.assignment(partition), *position)
        };
        positions.iter().map(step).collect()
    }

    /// Whether these are the group's positions by now: then the transaction that was to make them so was committed.
    async fn are_committed(&self, positions: Vec<(Partition, i64)>) -> Result<bool, TransactionError> {
        let config = self.settings.consumer(&self.group, "error");
        let answer = apart(move || {
            let consumer: BaseConsumer = config.create()?;
            let mut asked = TopicPartitionList::with_capacity(positions.len());
            for ((topic, partition), _) in &positions {
                asked.add_partition(topic, *partition);
            }
            let found = consumer.committed_offsets(asked, CALL)?;
            let reached = |((topic, partition), position): &(Partition, i64)| {
                let offset = found.find_partition(topic, *partition).map(|element| element.offset());
                matches!(offset, Some(Offset::Offset(offset)) if offset >= *position)
            };
            Ok(positions.iter().all(reached))
        });
        answer.await?.map_err(|error: KafkaError| TransactionError::Aborted(error.to_string()))
    }
}

#[async_trait]
impl Transactions for KafkaTransactions {
    async fn init(&self) -> Result<(), TransactionError> {
        self.ready(&mut *self.state.lock().await).await.map(drop)
    }

    async fn commit(&self, records: &[&OutboundRecord], settled: &[Settled]) -> Result<(), TransactionError> {
        let mut state = self.state.lock().await;
        let producer = self.ready(&mut state).await?;
        let (positions, member) = self.tracker.reached(settled).map_err(TransactionError::Moved)?;
        let member = member.ok_or_else(|| TransactionError::Aborted("the group has no member yet".to_owned()))?;
        let steps = self.steps(&positions);
        if is_the_same(&state.doubtful, &steps) && self.are_committed(positions.clone()).await? {
            tracing::info!(group = self.group, "a transaction in doubt turns out to be committed");
            state.doubtful.clear();
            return Ok(());
        }
        state.doubtful.clear();
        let written = producer.write(records, &positions, member).await;
        let error = match written {
            Ok(()) => match producer.call(|native| native.commit_transaction(CALL)).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    state.doubtful = steps;
                    error
                }
            },
            Err(error) => error,
        };
        let aborted = match error {
            TransactionError::Rejected(_) => producer.call(|native| native.abort_transaction(CALL)).await.is_ok(),
            _ => false,
        };
        if !aborted {
            state.producer = None;
        }
        Err(error)
    }
}

/// Whether these steps are those in doubt, or what is left of them. Steps of an assignment that is over tell nothing of
/// a later one's: somebody else may have moved that partition since.
fn is_the_same(doubtful: &[Step], steps: &[Step]) -> bool {
    !steps.is_empty() && steps.iter().all(|step| doubtful.contains(step))
}

/// One incarnation of the producer.
struct Producer {
    native: Option<Arc<Native>>,
    /// When its last transaction began.
    begun: StdMutex<Option<Instant>>,
}

impl Producer {
    fn new(settings: &ClientSettings, name: &str) -> Result<Self, TransactionError> {
        let native = settings.transactional(name).create_with_context(Context);
        let native: Native = native.map_err(|e| TransactionError::Ended(e.to_string()))?;
        Ok(Self { native: Some(Arc::new(native)), begun: StdMutex::default() })
    }

    fn native(&self) -> Result<&Arc<Native>, TransactionError> {
        self.native.as_ref().ok_or_else(|| TransactionError::Aborted("the producer is gone".to_owned()))
    }

    async fn call(
        &self,
        call: impl Fn(&Native) -> Result<(), KafkaError> + Clone + Send + 'static,
    ) -> Result<(), TransactionError> {
        let mut repeats = 0;
        loop {
            let (native, call) = (Arc::clone(self.native()?), call.clone());
            match apart(move || call(&native)).await? {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && repeats < REPEATS => repeats += 1,
                Err(error) => return Err(self.failed(error.to_string())),
            }
        }
    }

    /// A failed transaction may be tried again by another producer, unless this one was fenced off. The coordinator
    /// fences, too, when a transaction has outlived its time, as during an outage: that is nobody else's doing.
    fn failed(&self, why: String) -> TransactionError {
        let fatal = self.native.as_ref().and_then(|native| native.client().fatal_error());
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let outlived = begun.is_some_and(|begun| begun.elapsed() >= TRANSACTION_TIMEOUT);
        match fatal.filter(|(code, _)| is_fenced(*code) && !outlived) {
            Some((_, reason)) => TransactionError::Ended(reason),
            None => TransactionError::Aborted(why),
        }
    }

    /// All but the commit.
    async fn write(
        &self,
        records: &[&OutboundRecord],
        positions: &[(Partition, i64)],
        member: Arc<ConsumerGroupMetadata>,
    ) -> Result<(), TransactionError> {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.call(|native| native.begin_transaction()).await?;
        let native = self.native()?;
        let batch = BatchAcks::of(records.len());
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = enqueue(native, record, &batch, index).await {
                batch.fail(index, classify(&error));
                batch.one_less();
            }
        }
        let failures = batch.collected().await;
        // A record that is too large takes its batch with it; the others of that batch fail for its sake.
        let (rejected, other): (Vec<_>, Vec<_>) =
            failures.into_iter().partition(|(_, error)| matches!(error, PublishError::Rejected { .. }));
        if !rejected.is_empty() {
            return Err(TransactionError::Rejected(rejected));
        }
        if let Some((_, error)) = other.first() {
            return Err(self.failed(error.to_string()));
        }
        let positions = positions.to_vec();
        self.call(move |native| {
            let mut offsets = TopicPartitionList::with_capacity(positions.len());
            for ((topic, partition), position) in &positions {
                offsets.add_partition_offset(topic, *partition, Offset::Offset(*position))?;
            }
            native.send_offsets_to_transaction(&offsets, &member, CALL)
        })
        .await
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Dropping a client blocks: not on the caller's thread.
        let native = self.native.take();
        thread::spawn(move || drop(native));
    }
}

/// Runs a call of librdkafka that blocks on a thread of its own. One that never returns, as happens when the coordinator
/// moves at the wrong moment (librdkafka #5456, #5511), costs that thread and nothing else: neither the transaction, for
/// the next producer of the name fences this one off, nor the end of the process, which a runtime's thread would delay.
async fn apart<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, TransactionError> {
    let counted = Counted::new();
    if CALLS.load(Ordering::Relaxed) > MOST_CALLS {
        return Err(TransactionError::Ended(format!("{MOST_CALLS} calls of the client library have not returned")));
    }
    let (answer, answered) = oneshot::channel();
    let spawned = thread::Builder::new().name("transaction".to_owned()).spawn(move || {
        let _counted = counted;
        // Nobody listens to one that was given up.
        drop(answer.send(call()));
    });
    spawned.map_err(|error| TransactionError::Aborted(format!("no thread for the call: {error}")))?;
    match tokio::time::timeout(CALL + GRACE, answered).await {
        Ok(answer) => answer.map_err(|_| TransactionError::Aborted("the call panicked".to_owned())),
        Err(_) => Err(TransactionError::Aborted("a call of the client library does not return".to_owned())),
    }
}

/// One of [`CALLS`].
struct Counted;

impl Counted {
    fn new() -> Self {
        CALLS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Another producer took the name, or the coordinator gave this one up.
fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::FencedInstanceId
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_doubt_says_nothing_of_another_batch() {
        let step = |partition, assignment, position| (("t".into(), partition), Some(assignment), position);
        let doubtful = [step(0, 1, 10), step(1, 1, 20)];
        assert!(is_the_same(&doubtful, &doubtful));
        assert!(is_the_same(&doubtful, &[step(1, 1, 20)]), "a partition was taken away");
        assert!(!is_the_same(&doubtful, &[step(1, 1, 21)]), "a later batch");
        assert!(!is_the_same(&doubtful, &[step(1, 2, 20)]), "the partition came back");
        assert!(!is_the_same(&doubtful, &[step(1, 1, 20), step(2, 1, 5)]));
        assert!(!is_the_same(&doubtful, &[]) && !is_the_same(&[], &[step(0, 1, 10)]));
    }
}
