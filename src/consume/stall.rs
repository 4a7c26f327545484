//! Notices a group that stands still without a reason: records wait, nothing pauses it, and no position moves.

use std::collections::HashMap;
use std::time::Duration;

use crate::ports::source::SourceStatus;

/// Positions by partition.
type Positions = Vec<(String, i32, Option<i64>)>;

/// Watches groups by name. `now` is monotonic time.
#[derive(Debug)]
pub struct StallWatch {
    after: Duration,
    seen: HashMap<String, (Positions, Duration)>,
}

impl StallWatch {
    /// A group that stands still for so long has stalled.
    pub fn new(after: Duration) -> Self {
        Self { after, seen: HashMap::new() }
    }

    /// Looks at a group; says for how long it has stalled, once for each time of that length.
    pub fn look(&mut self, group: &str, status: &SourceStatus, lag: i64, now: Duration) -> Option<Duration> {
        let positions: Positions = status.assigned.iter().map(|p| (p.topic.clone(), p.partition, p.position)).collect();
        let idle = lag <= 0 || !status.paused.is_empty();
        let (before, since) = self.seen.entry(group.to_owned()).or_insert_with(|| (positions.clone(), now));
        if idle || *before != positions {
            (*before, *since) = (positions, now);
            return None;
        }
        let still = now.saturating_sub(*since);
        if still < self.after {
            return None;
        }
        *since = now;
        Some(still)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::source::{PartitionStatus, PauseReason};

    const SECOND: Duration = Duration::from_secs(1);

    fn at(position: i64) -> SourceStatus {
        let partition = PartitionStatus {
            topic: "t".into(),
            partition: 0,
            position: Some(position),
            committed: None,
            in_hand: 0,
            head: None,
            at_end: false,
            lag: None,
        };
        SourceStatus { assigned: vec![partition], ..SourceStatus::default() }
    }

    #[test]
    fn only_lag_without_progress_and_without_a_pause_is_a_stall() {
        let mut watch = StallWatch::new(60 * SECOND);
        let paused = SourceStatus { paused: [PauseReason::Backpressure].into(), ..at(5) };
        for second in 0..200 {
            assert_eq!(watch.look("works", &at(i64::from(second)), 10, second * SECOND), None);
            assert_eq!(watch.look("has nothing to do", &at(5), 0, second * SECOND), None);
            assert_eq!(watch.look("is paused", &paused, 10, second * SECOND), None);
            let stalled = watch.look("stands still", &at(5), 10, second * SECOND);
            assert_eq!(stalled.is_some(), second > 0 && second % 60 == 0, "at {second} s");
        }
        assert_eq!(watch.look("is paused", &at(5), 10, 200 * SECOND), None, "it has just been resumed");
    }
}
