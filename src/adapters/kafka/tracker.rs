//! The assigned partitions of a consumer and how far each is settled: shared by the poll thread, the rebalance
//! callback and the group's loop.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;

use crate::consume::watermark::Watermark;
use crate::domain::record::{Coordinates, Record};
use crate::ports::source::{PartitionStatus, PauseReason, Settled, SourceStatus};
use crate::ports::transactions::Assignment;
use crate::telemetry::events;

/// A partition by its topic and number.
pub type Partition = (Arc<str>, i32);

/// See [`Tracker::reached`].
pub type Reached = (Vec<(Partition, i64)>, Option<Arc<ConsumerGroupMetadata>>);

/// A position to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Of which partition.
    pub partition: Partition,
    /// The offset to go on with.
    pub position: i64,
    /// It lies before what is committed: librdkafka commits such a one only when it is told so.
    pub back: bool,
}

#[derive(Debug)]
struct Assigned {
    assignment: u64,
    watermark: Watermark,
    stored: Option<i64>,
    /// What the group had committed before this assignment.
    committed: Option<i64>,
    /// The oldest record in hand, and since when it is.
    head: Option<(i64, Instant)>,
    /// What is committed lies ahead, at this offset, since the topic was created anew or cut.
    behind: Option<i64>,
    /// The consumer has reached the end, and nothing was taken since.
    at_end: bool,
    /// Being taken away: what is in hand may finish, nothing new is begun.
    revoking: bool,
}

impl Assigned {
    /// Takes a record into hand. Within an assignment offsets ascend; one that went back means that the topic was
    /// created anew or cut, and then following the old position would drop everything before it silently.
    fn begin(&mut self, record: &Record) {
        self.at_end = false;
        if !self.watermark.take(record.at.offset) {
            events::offset_went_back(&record.at.topic, record.at.partition, record.at.offset);
            self.behind = self.stored.max(self.committed).max(self.behind);
            self.watermark = Watermark::default();
            self.stored = None;
            self.watermark.take(record.at.offset);
        }
        self.follow_head();
    }

    fn moved(&self, partition: &Partition, position: i64) -> Moved {
        let back = self.behind.is_some_and(|behind| position <= behind);
        Moved { partition: partition.clone(), position, back }
    }

    fn follow_head(&mut self) {
        let head = self.watermark.head();
        if head != self.head.map(|(offset, _)| offset) {
            self.head = head.map(|offset| (offset, Instant::now()));
        }
    }
}

#[derive(Default)]
struct Inner {
    partitions: HashMap<Partition, Assigned>,
    assignments: u64,
    paused: BTreeSet<PauseReason>,
    lost: u64,
    closing: bool,
    /// Since when it waits to be told its partitions.
    outside_since: Option<Instant>,
    /// The group's member, as of the last rebalance: transactions show it, so that the broker can refuse those of a
    /// member that is no longer one.
    member: Option<Arc<ConsumerGroupMetadata>>,
}

impl Inner {
    /// The partition, if it is still under this assignment.
    fn current(&mut self, at: &Coordinates, assignment: u64) -> Option<&mut Assigned> {
        let partition = (Arc::clone(&at.topic), at.partition);
        self.partitions.get_mut(&partition).filter(|assigned| assigned.assignment == assignment)
    }
}

/// See the module.
pub struct Tracker {
    inner: Mutex<Inner>,
    settled: Condvar,
    /// Changes with every rebalance, so that a poll loop may keep what it looked up.
    version: AtomicU64,
    begun: Instant,
    /// When the poll thread last went round, in milliseconds since the beginning.
    round: AtomicU64,
}

impl Default for Tracker {
    fn default() -> Self {
        let begun = Instant::now();
        Self {
            inner: Mutex::new(Inner { outside_since: Some(begun), ..Inner::default() }),
            settled: Condvar::new(),
            version: AtomicU64::new(0),
            begun,
            round: AtomicU64::new(0),
        }
    }
}

impl Tracker {
    /// The poll thread is not held up in a call.
    pub fn goes_round(&self) {
        self.round.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn hung(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.round.load(Ordering::Relaxed)))
    }

    /// A partition was assigned: the start of a new assignment of it.
    pub fn assign(&self, partition: Partition) {
        let mut inner = self.lock();
        inner.assignments += 1;
        let assigned = Assigned {
            assignment: inner.assignments,
            watermark: Watermark::default(),
            stored: None,
            committed: None,
            head: None,
            behind: None,
            at_end: false,
            revoking: false,
        };
        inner.partitions.insert(partition, assigned);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// A rebalance came to its end, whatever it brought.
    pub fn join(&self) {
        self.lock().outside_since = None;
    }

    /// The group's committed offset of an assigned partition, once it is known.
    pub fn set_committed(&self, partition: &Partition, offset: i64) {
        if let Some(assigned) = self.lock().partitions.get_mut(partition) {
            assigned.committed = Some(offset);
        }
    }

    /// A partition of the only topic has no further record. The news does not name the topic.
    pub fn at_end(&self, topics: &[Arc<str>], partition: i32) {
        if let [topic] = topics
            && let Some(assigned) = self.lock().partitions.get_mut(&(Arc::clone(topic), partition))
        {
            assigned.at_end = true;
        }
    }

    /// Differs after every rebalance.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The number of the partition's assignment; records polled now belong to it.
    pub fn assignment(&self, partition: &Partition) -> Option<u64> {
        self.lock().partitions.get(partition).map(|a| a.assignment)
    }

    /// Takes records into hand; those of partitions that were taken away meanwhile are dropped, for their new owner
    /// gets them again.
    pub fn take(&self, records: Vec<Record>) -> Vec<Record> {
        let mut inner = self.lock();
        let mut fresh = Vec::with_capacity(records.len());
        let mut records = records.into_iter().peekable();
        // Records of a partition come in runs: one look for each run.
        while let Some(first) = records.next() {
            let (at, assignment) = (first.at.clone(), first.assignment);
            let same = |r: &Record| r.assignment == assignment && r.at.is_beside(&at);
            let assigned = inner.current(&at, assignment).filter(|assigned| !assigned.revoking);
            let run = std::iter::once(first).chain(std::iter::from_fn(|| records.next_if(same)));
            match assigned {
                Some(assigned) => fresh.extend(run.inspect(|record| assigned.begin(record))),
                None => run.for_each(drop),
            }
        }
        fresh
    }

    /// Settles records of current assignments; of earlier ones nothing is stored.
    pub fn settle(&self, records: &[Settled]) {
        let mut inner = self.lock();
        for run in records.chunk_by(|a, b| a.assignment == b.assignment && a.at.is_beside(&b.at)) {
            if let Some(assigned) = inner.current(&run[0].at, run[0].assignment) {
                run.iter().for_each(|record| assigned.watermark.settle(record.at.offset));
                assigned.follow_head();
            }
        }
        self.settled.notify_all();
    }

    /// The positions that moved since the last call, to be stored for the next commit.
    pub fn unstored(&self) -> Vec<Moved> {
        let mut inner = self.lock();
        let mut moved = Vec::new();
        for (partition, assigned) in &mut inner.partitions {
            if let Some(position) = assigned.watermark.position()
                && assigned.stored != Some(position)
            {
                assigned.stored = Some(position);
                moved.push(assigned.moved(partition, position));
            }
        }
        moved
    }

    /// The member that a rebalance left this consumer as.
    pub fn set_member(&self, member: Option<ConsumerGroupMetadata>) {
        self.lock().member = member.map(Arc::new);
    }

    /// The positions that are reached when these records, in ascending order for each partition, are settled, and the
    /// member who may say so.
    ///
    /// # Errors
    /// The assignments that are over.
    pub fn reached(&self, records: &[Settled]) -> Result<Reached, Vec<Assignment>> {
        let mut inner = self.lock();
        let mut offsets: HashMap<Partition, Vec<i64>> = HashMap::new();
        let mut over = Vec::new();
        for run in records.chunk_by(|a, b| a.assignment == b.assignment && a.at.is_beside(&b.at)) {
            let (at, assignment) = (&run[0].at, run[0].assignment);
            let partition = (Arc::clone(&at.topic), at.partition);
            match inner.current(at, assignment) {
                Some(_) => offsets.entry(partition).or_default().extend(run.iter().map(|record| record.at.offset)),
                None => over.push((partition.0, partition.1, assignment)),
            }
        }
        if !over.is_empty() {
            return Err(over);
        }
        let position = |(partition, offsets): (Partition, Vec<i64>)| {
            let position = inner.partitions.get(&partition)?.watermark.position_with(offsets)?;
            Some((partition, position))
        };
        Ok((offsets.into_iter().filter_map(position).collect(), inner.member.clone()))
    }

    /// Stops new work on partitions, waits a bounded time for what is in hand, and returns how far each is settled.
    pub fn revoke(&self, partitions: &[Partition], patience: Duration) -> Vec<Moved> {
        let mut inner = self.lock();
        let now = Instant::now();
        let deadline = now + if inner.closing { Duration::ZERO } else { patience };
        inner.outside_since.get_or_insert(now);
        self.version.fetch_add(1, Ordering::Release);
        for partition in partitions {
            if let Some(assigned) = inner.partitions.get_mut(partition) {
                assigned.revoking = true;
            }
        }
        let busy =
            |inner: &Inner| partitions.iter().any(|p| inner.partitions.get(p).is_some_and(|a| !a.watermark.is_idle()));
        while busy(&inner) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.settled.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        partitions
            .iter()
            .filter_map(|partition| {
                let assigned = inner.partitions.remove(partition)?;
                let position = assigned.watermark.position()?;
                Some(assigned.moved(partition, position))
            })
            .collect()
    }

    /// The consumer is being closed: nobody will finish what is in hand.
    pub fn close(&self) {
        self.lock().closing = true;
    }

    /// The partitions are someone else's already: nothing of them is stored any more.
    pub fn lose(&self, partitions: &[Partition]) {
        let mut inner = self.lock();
        self.version.fetch_add(1, Ordering::Release);
        inner.outside_since.get_or_insert_with(Instant::now);
        for partition in partitions {
            inner.lost += u64::from(inner.partitions.remove(partition).is_some());
        }
        self.settled.notify_all();
    }

    /// Adds or removes a reason to pause; true when that pauses or resumes.
    pub fn set_pause(&self, reason: PauseReason, on: bool) -> bool {
        let mut inner = self.lock();
        let before = inner.paused.is_empty();
        if on {
            inner.paused.insert(reason);
        } else {
            inner.paused.remove(&reason);
        }
        before != inner.paused.is_empty()
    }

    /// True while there is a reason to pause.
    pub fn is_paused(&self) -> bool {
        !self.lock().paused.is_empty()
    }

    /// Where everything stands.
    pub fn status(&self) -> SourceStatus {
        let inner = self.lock();
        let mut assigned: Vec<PartitionStatus> = inner
            .partitions
            .iter()
            .map(|((topic, partition), assigned)| PartitionStatus {
                topic: topic.to_string(),
                partition: *partition,
                position: assigned.watermark.position(),
                committed: assigned.committed,
                in_hand: assigned.watermark.in_hand(),
                head: assigned.head.map(|(offset, since)| (offset, since.elapsed())),
                at_end: assigned.at_end && assigned.watermark.is_idle(),
                lag: None,
            })
            .collect();
        assigned.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        SourceStatus {
            assigned,
            paused: inner.paused.clone(),
            lost_assignments: inner.lost,
            outside: inner.outside_since.map(|since| since.elapsed()),
            hung: self.hung(),
        }
    }

    /// The watermarks stay whole whatever panics around them.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::{Coordinates, Headers};

    fn record(assignment: u64, offset: i64) -> Record {
        Record {
            at: Coordinates { topic: "t".into(), partition: 0, offset },
            assignment,
            key: None,
            value: None,
            headers: Headers::default(),
            flaw: None,
        }
    }

    fn partition() -> Partition {
        ("t".into(), 0)
    }

    fn moved(position: i64) -> Moved {
        Moved { partition: partition(), position, back: false }
    }

    #[test]
    fn records_of_an_assignment_that_is_over_are_told_from_those_of_the_next() {
        let tracker = Tracker::default();
        tracker.assign(partition());
        let old = tracker.take(vec![record(1, 5), record(1, 6)]);
        tracker.lose(&[partition()]);
        tracker.assign(partition());
        let new = tracker.take(vec![record(2, 5), record(2, 6), record(2, 7)]);
        let settled = |records: &[Record]| records.iter().map(Settled::from).collect::<Vec<_>>();
        let both = [settled(&old), settled(&new[..2])].concat();
        assert_eq!(tracker.reached(&both).err(), Some(vec![("t".into(), 0, 1)]));
        let (positions, _) = tracker.reached(&settled(&new[..2])).expect("current");
        assert_eq!(positions, [(partition(), 7)]);
        assert_eq!(tracker.unstored(), [], "nothing is settled yet");
    }

    #[test]
    fn an_offset_that_went_back_is_told_until_it_is_past_what_is_committed() {
        let tracker = Tracker::default();
        tracker.assign(partition());
        tracker.set_committed(&partition(), 3);
        let positions: Vec<Moved> = [9, 1, 2, 3]
            .into_iter()
            .flat_map(|offset| {
                let taken = tracker.take(vec![record(1, offset)]);
                tracker.settle(&taken.into_iter().map(Settled::from).collect::<Vec<_>>());
                tracker.unstored()
            })
            .collect();
        let back = |position| Moved { back: true, ..moved(position) };
        assert_eq!(positions, [moved(10), back(2), back(3), back(4)]);
    }

    #[test]
    fn work_on_an_earlier_assignment_stores_nothing() {
        let tracker = Tracker::default();
        tracker.assign(partition());
        let taken = tracker.take(vec![record(1, 5)]);
        tracker.lose(&[partition()]);
        tracker.assign(partition());
        tracker.settle(&[Settled::from(taken[0].clone())]);
        assert!(tracker.unstored().is_empty());
        assert!(tracker.take(vec![record(1, 6)]).is_empty(), "nothing polled before is begun");
        assert_eq!(tracker.take(vec![record(2, 5)]).len(), 1);
        assert_eq!(tracker.status().lost_assignments, 1);
    }

    #[test]
    fn a_revoke_waits_for_what_is_in_hand() {
        let tracker = Arc::new(Tracker::default());
        tracker.assign(partition());
        let taken = tracker.take(vec![record(1, 5), record(1, 6)]);
        let (other, before) = (Arc::clone(&tracker), tracker.version());
        let revoke = std::thread::spawn(move || other.revoke(&[partition()], Duration::from_secs(20)));
        while tracker.version() == before {
            std::thread::yield_now();
        }
        let all: Vec<Settled> = taken.iter().cloned().map(Settled::from).collect();
        tracker.settle(&all);
        let positions = revoke.join().expect("no panic");
        assert_eq!(positions, [moved(7)]);
        assert!(tracker.take(vec![record(1, 7)]).is_empty(), "nothing new is begun");
    }

    #[test]
    fn a_revoke_gives_up_after_its_patience_and_commits_only_what_is_settled() {
        let tracker = Tracker::default();
        tracker.assign(partition());
        let taken = tracker.take(vec![record(1, 5), record(1, 6)]);
        tracker.settle(&[Settled::from(taken[0].clone())]);
        assert_eq!(tracker.revoke(&[partition()], Duration::from_millis(1)), [moved(6)]);
        tracker.settle(&[Settled::from(taken[1].clone())]);
        assert!(tracker.unstored().is_empty());
    }
}
