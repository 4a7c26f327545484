//! Where events come from.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::record::{Coordinates, Record};

/// Why a source does not deliver at the moment. A source delivers only while it has no reason to pause.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PauseReason {
    /// The breaker of this dependency is open.
    Breaker(String),
    /// The stage cannot keep up.
    Backpressure,
    /// The server that it reads from does not answer.
    Away,
}

impl std::fmt::Display for PauseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Breaker(name) => write!(f, "breaker:{name}"),
            Self::Backpressure => f.write_str("backpressure"),
            Self::Away => f.write_str("away"),
        }
    }
}

/// A settled record, by its position and the assignment under which it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Where the record stands.
    pub at: Coordinates,
    /// See [`Record::assignment`].
    pub assignment: u64,
}

impl From<&Record> for Settled {
    fn from(record: &Record) -> Self {
        Self { at: record.at.clone(), assignment: record.assignment }
    }
}

impl From<Record> for Settled {
    fn from(record: Record) -> Self {
        Self { at: record.at, assignment: record.assignment }
    }
}

/// Where one partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PartitionStatus {
    pub topic: String,
    pub partition: i32,
    /// The next offset to be committed: everything before it is settled. `None` until the first record.
    pub position: Option<i64>,
    /// The offset that the group had committed when the partition was assigned, where it is known.
    pub committed: Option<i64>,
    /// Records taken and not settled.
    pub in_hand: usize,
    /// The oldest record in hand, which holds the position back, and for how long it has.
    pub head: Option<(i64, Duration)>,
    /// Every record up to the end is settled. The end may lie after the position: transactions write markers there.
    pub at_end: bool,
    /// Records waiting, where the source itself is told; else they follow from position and end.
    pub lag: Option<i64>,
}

/// Where a source stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// The partitions that this instance owns.
    pub assigned: Vec<PartitionStatus>,
    /// Why it does not deliver; empty while it does.
    pub paused: BTreeSet<PauseReason>,
    /// Partitions that were taken away for good before their work was finished.
    pub lost_assignments: u64,
    /// For how long it has waited for a rebalance of its group to end; `None` while it has its part.
    pub outside: Option<Duration>,
    /// For how long its own thread has not come back from a call of its client. Zero where there is no such thread.
    pub hung: Duration,
}

/// The source ended and has to be built anew.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the event source ended: {0}")]
pub struct SourceEnded(pub String);

/// A consumer group's view of its topics.
///
/// Everything taken must be settled exactly once; what is dropped unsettled comes again.
#[async_trait]
pub trait EventSource: Send + Sync {
    /// The next records: the first awaited, the rest what is there, at most `max`, which is at least 1.
    ///
    /// # Errors
    /// [`SourceEnded`] when the source can deliver no more.
    async fn next_batch(&self, max: usize) -> Result<Vec<Record>, SourceEnded>;

    /// False for a record whose partition was taken away since: whoever has it now gets the record again.
    fn is_current(&self, _: &Record) -> bool {
        true
    }

    /// Reports records whose effects are durable. Only a contiguous run of settled records moves the committed offset.
    fn settle(&self, records: &[Settled]);

    /// Adds a reason to pause.
    fn pause(&self, reason: PauseReason);

    /// Removes a reason to pause.
    fn resume(&self, reason: &PauseReason);

    /// Where the source stands now.
    fn status(&self) -> SourceStatus;

    /// Commits what is settled, leaves the group and closes, within the deadline.
    async fn close(&self, deadline: Duration);
}
