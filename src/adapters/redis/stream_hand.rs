//! What a consumer of a stream has in hand: entries read and not taken, taken and not settled, settled and not
//! acknowledged. Shared by its reader, its keeper and the group's loop.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::stream_entry::{EntryId, PARTITION};
use crate::domain::record::Record;
use crate::ports::source::{PartitionStatus, PauseReason, Settled, SourceStatus};

/// Entries that wait for the loop; more of them stay in Redis.
const QUEUED: usize = 1024;
/// Bytes of these entries.
const QUEUED_BYTES: usize = 8 << 20;

struct Held {
    id: EntryId,
    taken: bool,
}

/// What the group has before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Entries that nobody has had.
    pub undelivered: u64,
    /// Entries that some consumer has in hand.
    pub pending: u64,
}

#[derive(Default)]
struct Inner {
    /// Counts the lives of the group: what was taken in an earlier one is nothing that this one could acknowledge.
    life: u64,
    queue: VecDeque<Record>,
    queued_bytes: usize,
    /// Entries of this life, queued and taken, by offset.
    held: BTreeMap<i64, Held>,
    settled: BTreeSet<EntryId>,
    /// One past the highest offset that was settled.
    reached: Option<i64>,
    head: Option<(i64, Instant)>,
    paused: BTreeSet<PauseReason>,
    waiting: Waiting,
}

impl Inner {
    fn knows(&self, id: EntryId) -> bool {
        self.held.contains_key(&id.offset()) || self.settled.contains(&id)
    }

    fn is_full(&self, most: usize) -> bool {
        let in_hand = self.held.len() + self.settled.len();
        in_hand >= most || self.queue.len() >= QUEUED || self.queued_bytes >= QUEUED_BYTES
    }

    fn follow_head(&mut self) {
        let head = self.held.iter().find(|(_, held)| held.taken).map(|(offset, _)| *offset);
        if head != self.head.map(|(offset, _)| offset) {
            self.head = head.map(|offset| (offset, Instant::now()));
        }
    }

    fn begin_life(&mut self) {
        self.life += 1;
        self.held.clear();
        self.settled.clear();
        self.follow_head();
    }
}

/// See the module.
#[derive(Default)]
pub struct Hand {
    inner: Mutex<Inner>,
    /// For whoever takes: something is queued.
    pub queued: Notify,
    /// For whoever reads: there may be room.
    pub freed: Notify,
    /// For whoever acknowledges: something is settled.
    pub settled: Notify,
}

impl Hand {
    /// Queues entries as records. Ones that are in hand already are left out.
    pub fn put(&self, entries: Vec<(EntryId, Record)>) {
        let mut inner = self.lock();
        for (id, mut record) in entries {
            if inner.knows(id) {
                continue;
            }
            record.assignment = inner.life;
            inner.held.insert(record.at.offset, Held { id, taken: false });
            inner.queued_bytes += record.size();
            inner.queue.push_back(record);
        }
        self.queued.notify_one();
    }

    /// Takes what is queued, at most so much.
    pub fn take(&self, max: usize) -> Vec<Record> {
        let mut inner = self.lock();
        let count = max.min(inner.queue.len());
        let records: Vec<Record> = inner.queue.drain(..count).collect();
        for record in &records {
            inner.queued_bytes -= record.size();
            let current = record.assignment == inner.life;
            if let Some(held) = inner.held.get_mut(&record.at.offset).filter(|_| current) {
                held.taken = true;
            }
        }
        inner.follow_head();
        self.freed.notify_one();
        records
    }

    /// Their effects are durable: they may be acknowledged.
    pub fn settle(&self, records: &[Settled]) {
        let mut inner = self.lock();
        for Settled { at, assignment } in records {
            if *assignment == inner.life
                && let Some(held) = inner.held.remove(&at.offset)
            {
                inner.settled.insert(held.id);
                inner.reached = inner.reached.max(Some(at.offset.saturating_add(1)));
            }
        }
        inner.follow_head();
        self.settled.notify_one();
        self.freed.notify_one();
    }

    /// Settled entries that are not acknowledged, the oldest first.
    pub fn unacknowledged(&self, max: usize) -> Vec<EntryId> {
        self.lock().settled.iter().take(max).copied().collect()
    }

    /// They are acknowledged.
    pub fn acknowledged(&self, ids: &[EntryId]) {
        let mut inner = self.lock();
        for id in ids {
            inner.settled.remove(id);
        }
        self.freed.notify_one();
    }

    /// The group was made anew: what is in hand belongs to its earlier life. It is finished, but its acknowledgement
    /// would mean nothing now, or another entry of the same id.
    pub fn begin_life(&self) {
        self.lock().begin_life();
        self.freed.notify_one();
    }

    /// The group began a new life behind our back when it delivers as new what is in hand.
    pub fn notice_rebirth(&self, new: &[EntryId]) -> bool {
        let mut inner = self.lock();
        let reborn = new.iter().any(|id| inner.knows(*id));
        if reborn {
            inner.begin_life();
        }
        reborn
    }

    /// Whether an entry is in hand, or settled and not acknowledged.
    pub fn knows(&self, id: EntryId) -> bool {
        self.lock().knows(id)
    }

    /// What is in hand, or settled and not acknowledged.
    pub fn known(&self) -> HashSet<EntryId> {
        let inner = self.lock();
        inner.held.values().map(|held| held.id).chain(inner.settled.iter().copied()).collect()
    }

    /// True when no more may be read before something is taken or settled.
    pub fn is_full(&self, most: usize) -> bool {
        self.lock().is_full(most)
    }

    /// Waits for room for more, and until nobody wants a pause. False when it is time to stop.
    pub async fn room(&self, most: usize, stop: &CancellationToken) -> bool {
        self.until(stop, |inner| {
            let own = |reason: &PauseReason| matches!(reason, PauseReason::Away | PauseReason::Backpressure);
            inner.paused.iter().all(own) && !inner.is_full(most)
        })
        .await
    }

    /// Waits until everything read is settled. False when it is time to stop.
    pub async fn empty(&self, stop: &CancellationToken) -> bool {
        self.until(stop, |inner| inner.held.is_empty() && inner.queue.is_empty()).await
    }

    async fn until(&self, stop: &CancellationToken, holds: impl Fn(&Inner) -> bool) -> bool {
        loop {
            if stop.is_cancelled() {
                return false;
            }
            if holds(&self.lock()) {
                return true;
            }
            tokio::select! {
                () = self.freed.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Adds or removes a reason to pause.
    pub fn set_pause(&self, reason: PauseReason, on: bool) {
        let mut inner = self.lock();
        if on {
            inner.paused.insert(reason);
        } else {
            inner.paused.remove(&reason);
        }
        self.freed.notify_one();
    }

    /// What Redis says about the group.
    pub fn set_waiting(&self, waiting: Waiting) {
        self.lock().waiting = waiting;
    }

    /// Where it stands, as the only partition of the stream.
    pub fn status(&self, stream: &Arc<str>) -> SourceStatus {
        let inner = self.lock();
        let waiting = inner.waiting;
        let partition = PartitionStatus {
            topic: stream.to_string(),
            partition: PARTITION,
            position: inner.head.map(|(offset, _)| offset).or(inner.reached),
            committed: None,
            in_hand: inner.held.values().filter(|held| held.taken).count(),
            head: inner.head.map(|(offset, since)| (offset, since.elapsed())),
            at_end: waiting.undelivered == 0 && inner.held.is_empty(),
            lag: Some(i64::try_from(waiting.undelivered.saturating_add(waiting.pending)).unwrap_or(i64::MAX)),
        };
        SourceStatus {
            assigned: vec![partition],
            paused: inner.paused.clone(),
            lost_assignments: inner.life,
            ..SourceStatus::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single assignment or collection call: a panic elsewhere leaves it consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
