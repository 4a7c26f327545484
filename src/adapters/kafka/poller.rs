//! The thread of a consumer group: it polls whatever happens, hands batches over, and stores what is settled.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::mpsc;

use super::rebalance::{GroupContext, store};
use super::source::{Batch, SourceSettings};
use super::tracker::{Partition, Tracker};
use crate::domain::record::{Coordinates, Headers, Record};
use crate::ports::source::{PauseReason, SourceEnded};
use crate::telemetry::events;

/// How long one poll waits for a record: the latency of pauses and of the end.
const POLL: Duration = Duration::from_millis(50);
/// A batch is handed over when it holds so many bytes, however few records they are.
const BATCH_BYTES: usize = 4 << 20;
/// Between two looks for room in the queue.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(2);
/// A full queue is waited for this long before the partitions are paused.
const BACKPRESSURE_AFTER: Duration = Duration::from_millis(500);
/// The question for committed offsets is given up after this time.
const COMMITTED_DEADLINE: Duration = Duration::from_secs(2);
/// Without an answer it is asked again after this time.
const COMMITTED_AGAIN: Duration = Duration::from_secs(5);
/// The last commit waits so long for the end of a rebalance.
const LAST_COMMIT: Duration = Duration::from_secs(4);
/// The same complaint of librdkafka is logged this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Poller {
    consumer: BaseConsumer<GroupContext>,
    tracker: Arc<Tracker>,
    stop: Arc<AtomicBool>,
    batches: mpsc::Sender<Batch>,
    settings: SourceSettings,
    assignments: Assignments,
    complained: Option<(String, Instant)>,
    /// The rebalance after which committed offsets were last asked for.
    committed_version: u64,
    committed_asked: Option<Instant>,
    /// Partitions without a committed offset that were told of: each rebalance finds those of an idle group again.
    missing: HashSet<Partition>,
}

/// The assignment numbers looked up since the last rebalance.
#[derive(Default)]
struct Assignments {
    version: u64,
    known: Vec<(Arc<str>, i32, u64)>,
}

impl Poller {
    /// Creates the consumer and subscribes.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub(super) fn new(
        settings: SourceSettings,
        tracker: &Arc<Tracker>,
        stop: &Arc<AtomicBool>,
        batches: mpsc::Sender<Batch>,
    ) -> Result<Self, SourceEnded> {
        Ok(Self {
            consumer: create(&settings, tracker)?,
            tracker: Arc::clone(tracker),
            stop: Arc::clone(stop),
            batches,
            settings,
            assignments: Assignments::default(),
            complained: None,
            committed_version: 0,
            committed_asked: None,
            missing: HashSet::new(),
        })
    }

    /// Polls until the stop or the end of the source.
    pub(super) fn run(mut self) {
        let mut applied = (false, 0);
        let mut waiting: Option<(Vec<Record>, Instant)> = None;
        while !self.stop.load(Ordering::Acquire) {
            self.tracker.goes_round();
            self.store();
            self.learn_committed();
            applied = self.apply_pause(applied);
            // A batch that waits for room is a short pause in taking; a long one pauses the partitions, and then
            // polling brings no records but keeps the membership.
            if waiting.is_some() && !applied.0 {
                thread::sleep(FULL_QUEUE_WAIT);
                waiting = self.hand_over(waiting, Vec::new());
                continue;
            }
            let polled = match self.poll() {
                Ok(records) => records,
                Err(ended) => {
                    // Whoever waits for records learns why there will be no more; the supervisor builds a new source.
                    let _ = self.batches.blocking_send(Err(ended));
                    break;
                }
            };
            waiting = self.hand_over(waiting, polled);
        }
        self.close();
    }

    fn store(&self) {
        if !self.settings.transactional {
            store(&self.consumer, &self.tracker.unstored());
        }
    }

    /// Polls until there is nothing more to be had at once, or a batch is full.
    fn poll(&mut self) -> Result<Vec<Record>, SourceEnded> {
        let mut records: Vec<Record> = Vec::new();
        let (mut patience, mut bytes) = (POLL, 0);
        while records.len() < self.settings.batch && bytes < BATCH_BYTES {
            let record = match self.consumer.poll(patience) {
                None => break,
                Some(Ok(message)) => {
                    let assignment = assignment(&self.tracker, &mut self.assignments, &self.settings.topics, &message);
                    assignment.map(|(topic, assignment)| copy(&message, topic, assignment))
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.tracker.at_end(&self.settings.topics, partition);
                    None
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    let why = "its committed offset is missing or out of range, and kafka.auto_offset_reset is `error`";
                    return Err(SourceEnded(why.to_owned()));
                }
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    return Err(SourceEnded(format!("fatal: {code}")));
                }
                Some(Err(error)) => {
                    complain(&mut self.complained, &self.settings.group, &error);
                    None
                }
            };
            bytes += record.as_ref().map_or(0, Record::size);
            records.extend(record);
            patience = Duration::ZERO;
        }
        Ok(records)
    }

    /// Gives a batch to the group's loop. One that finds no room waits here; when that lasts, the partitions pause.
    fn hand_over(
        &self,
        waiting: Option<(Vec<Record>, Instant)>,
        polled: Vec<Record>,
    ) -> Option<(Vec<Record>, Instant)> {
        let (mut batch, since) = waiting.unwrap_or_else(|| (Vec::new(), Instant::now()));
        batch.extend(polled);
        if batch.is_empty() {
            self.tracker.set_pause(PauseReason::Backpressure, false);
            return None;
        }
        match self.batches.try_send(Ok(batch)) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {
                self.tracker.set_pause(PauseReason::Backpressure, false);
                None
            }
            Err(mpsc::error::TrySendError::Full(batch)) => {
                if since.elapsed() > BACKPRESSURE_AFTER {
                    self.tracker.set_pause(PauseReason::Backpressure, true);
                }
                batch.ok().map(|batch| (batch, since))
            }
        }
    }

    /// Reconciles what librdkafka does with what is wanted, after every change and every rebalance.
    fn apply_pause(&self, applied: (bool, u64)) -> (bool, u64) {
        let wanted = (self.tracker.is_paused(), self.tracker.version());
        if wanted == applied {
            return applied;
        }
        let change = self.consumer.assignment().and_then(|partitions| {
            if wanted.0 { self.consumer.pause(&partitions) } else { self.consumer.resume(&partitions) }
        });
        match change {
            Ok(()) => wanted,
            Err(error) => {
                tracing::warn!(group = self.settings.group, %error, "partitions could not be paused or resumed");
                applied
            }
        }
    }

    /// After a rebalance, asks where the group stands: the lag of a partition that brings no records needs it.
    fn learn_committed(&mut self) {
        let version = self.tracker.version();
        if self.committed_version == version {
            return;
        }
        if self.committed_asked.is_some_and(|asked| asked.elapsed() < COMMITTED_AGAIN) {
            return;
        }
        self.committed_asked = Some(Instant::now());
        match self.consumer.committed(COMMITTED_DEADLINE) {
            Ok(list) => {
                self.committed_version = version;
                for element in list.elements() {
                    match element.offset() {
                        Offset::Offset(offset) => {
                            self.tracker.set_committed(&(Arc::from(element.topic()), element.partition()), offset);
                        }
                        _ => self.tell_missing(element.topic(), element.partition()),
                    }
                }
            }
            Err(error) => tracing::debug!(group = self.settings.group, %error, "committed offsets are unknown"),
        }
    }

    fn tell_missing(&mut self, topic: &str, partition: i32) {
        if self.missing.insert((Arc::from(topic), partition)) {
            events::offset_missing(topic, partition, &self.settings.auto_offset_reset);
        }
    }

    /// Commits what is settled and leaves the group. Blocks while the broker is away, which harms nobody here.
    fn close(self) {
        self.store();
        // What is still in hand will not be finished: the revoke on closing must not wait for it.
        self.tracker.close();
        if !self.settings.transactional {
            self.commit_before_leaving();
        }
        drop(self.consumer);
    }

    /// In the middle of a rebalance the broker refuses commits, and librdkafka's own on closing, tried once, would be
    /// lost: what was done would be done again. Polling lets the rebalance come to its end.
    fn commit_before_leaving(&self) {
        let end = Instant::now() + LAST_COMMIT;
        while let Err(error) = self.consumer.commit_consumer_state(CommitMode::Sync) {
            let passing = matches!(
                error.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::RebalanceInProgress
                        | RDKafkaErrorCode::IllegalGeneration
                        | RDKafkaErrorCode::WaitingForCoordinator
                )
            );
            if !passing || Instant::now() >= end {
                let group = &self.settings.group;
                return tracing::debug!(group, %error, "nothing was committed before leaving the group");
            }
            // Records that this brings are not taken: they come again.
            drop(self.consumer.poll(POLL));
        }
    }
}

fn create(settings: &SourceSettings, tracker: &Arc<Tracker>) -> Result<BaseConsumer<GroupContext>, SourceEnded> {
    let context = GroupContext {
        tracker: Arc::clone(tracker),
        group: settings.group.clone(),
        patience: settings.revoke_patience,
        stores: !settings.transactional,
    };
    let mut config = settings.client.consumer(&settings.group, &settings.auto_offset_reset);
    if settings.transactional {
        config.set("enable.auto.commit", "false");
    }
    if let Some(member) = &settings.member {
        config.set("group.instance.id", member);
    }
    let ended = |e: KafkaError| SourceEnded(e.to_string());
    let consumer: BaseConsumer<GroupContext> = config.create_with_context(context).map_err(ended)?;
    let topics: Vec<&str> = settings.topics.iter().map(|t| &**t).collect();
    consumer.subscribe(&topics).map_err(ended)?;
    Ok(consumer)
}

/// The assignment under which a message came, looked up once per rebalance and partition.
fn assignment(
    tracker: &Tracker,
    cache: &mut Assignments,
    topics: &[Arc<str>],
    message: &BorrowedMessage<'_>,
) -> Option<(Arc<str>, u64)> {
    let version = tracker.version();
    if cache.version != version {
        *cache = Assignments { version, known: Vec::new() };
    }
    let (topic, partition) = (message.topic(), message.partition());
    let known = cache.known.iter().find(|(t, p, _)| *p == partition && &**t == topic);
    if let Some((topic, _, assignment)) = known {
        return Some((Arc::clone(topic), *assignment));
    }
    let topic = topics.iter().find(|t| &***t == topic).cloned().unwrap_or_else(|| Arc::from(topic));
    let assignment = tracker.assignment(&(Arc::clone(&topic), partition))?;
    cache.known.push((Arc::clone(&topic), partition, assignment));
    Some((topic, assignment))
}

/// The headers of a message.
pub(super) fn copy_headers(message: &BorrowedMessage<'_>) -> Headers {
    let Some(native) = message.headers() else { return Headers::default() };
    let mut headers = Headers::with_room();
    for index in 0..native.count() {
        // The binding panics on a header name that is not UTF-8; such a name cannot be written back either.
        let header = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| native.try_get(index)));
        match header {
            Ok(Some(header)) => headers.push(header.key, header.value),
            Ok(None) => break,
            Err(_) => tracing::warn!(offset = message.offset(), "a header name is not UTF-8: header dropped"),
        }
    }
    headers
}

fn copy(message: &BorrowedMessage<'_>, topic: Arc<str>, assignment: u64) -> Record {
    Record {
        at: Coordinates { topic, partition: message.partition(), offset: message.offset() },
        assignment,
        key: message.key().map(Into::into),
        value: message.payload().map(Into::into),
        headers: copy_headers(message),
        flaw: None,
    }
}

/// Brokers that are away are reported by librdkafka over and over: say it now and then, not each time.
fn complain(last: &mut Option<(String, Instant)>, group: &str, error: &KafkaError) {
    let text = error.to_string();
    let repeated = last.as_ref().is_some_and(|(said, when)| *said == text && when.elapsed() < COMPLAIN_EVERY);
    if !repeated {
        tracing::warn!(group, %error, "the consumer goes on by itself after an error");
        *last = Some((text, Instant::now()));
    }
}
