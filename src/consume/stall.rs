//! Notices a group that stands still without a reason: records wait, nothing pauses it, and no position moves.

use std::collections::HashMap;
use std::time::Duration;

use crate::ports::source::{PartitionStatus, SourceStatus};

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

/// A record that holds its partition back is told of after this time, and again whenever the time has doubled.
const HELD_BACK_LONG: Duration = Duration::from_secs(15);

/// Which records were told of, by group, topic and partition.
#[derive(Debug, Default)]
pub struct HeadWatch(HashMap<(String, String, i32), (i64, Duration)>);

impl HeadWatch {
    /// Looks at a partition's oldest record in hand; its offset and age when it is to be told of.
    pub fn look(&mut self, group: &str, partition: &PartitionStatus) -> Option<(i64, Duration)> {
        let place = (group.to_owned(), partition.topic.clone(), partition.partition);
        let Some((offset, age)) = partition.head.filter(|(_, age)| *age > HELD_BACK_LONG) else {
            self.0.remove(&place);
            return None;
        };
        let told = self.0.get(&place).filter(|(told, _)| *told == offset).map_or(Duration::ZERO, |(_, age)| *age);
        (age >= told * 2).then(|| {
            self.0.insert(place, (offset, age));
            (offset, age)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::source::PauseReason;

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

    #[test]
    fn a_record_that_holds_back_is_told_of_seldom() {
        let mut watch = HeadWatch::default();
        let mut told = |offset, seconds: u64| {
            let head = Some((offset, SECOND * seconds as u32));
            let partition = PartitionStatus { head, ..at(1).assigned.remove(0) };
            watch.look("g", &partition).is_some()
        };
        let ages = [10, 16, 18, 31, 33, 61, 63, 70];
        assert_eq!(ages.map(|age| told(7, age)), [false, true, false, false, true, false, false, true]);
        assert!(told(8, 16), "another record");
        assert!(!told(8, 1) && told(8, 16), "it moved meanwhile");
    }
}
