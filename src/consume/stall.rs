//! Notices a group that stands still without a reason. Records wait, nothing pauses it, and no position moves; or it has
//! no part in its group while the brokers answer; or the thread of its consumer does not come back.

use std::collections::HashMap;
use std::time::Duration;

use crate::ports::source::{PartitionStatus, SourceStatus};

/// Positions by partition.
type Positions = Vec<(String, i32, Option<i64>)>;

/// How a group stands still, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// Records wait, and no position moves.
    Standstill(Duration),
    /// It has no part in its group.
    Outside(Duration),
    /// A call of its client does not return: it has left its group by now, or will.
    Hung(Duration),
}

/// Watches groups by name. `now` is monotonic time.
#[derive(Debug)]
pub struct StallWatch {
    after: Duration,
    seen: HashMap<String, (Positions, Duration)>,
    outside: HashMap<String, Outside>,
}

impl StallWatch {
    /// A group that stands still for so long has stalled.
    pub fn new(after: Duration) -> Self {
        Self { after, seen: HashMap::new(), outside: HashMap::new() }
    }

    /// Looks at a group whose topics could be looked at, or not, just now; says how it has stalled. A standstill is told
    /// of once for each time of that length, and one outside its group less and less often: it may still be on its way.
    /// Of one that hangs it is told until it has a new consumer.
    pub fn look(
        &mut self,
        group: &str,
        status: &SourceStatus,
        reachable: bool,
        lag: i64,
        now: Duration,
    ) -> Option<Stall> {
        if status.hung >= self.after {
            return Some(Stall::Hung(status.hung));
        }
        if let Some(outside) = self.outside(group, status, reachable, now) {
            return Some(Stall::Outside(outside));
        }
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
        Some(Stall::Standstill(still))
    }

    /// While the brokers are away nobody can join; where a new consumer did not help, the next one has twice the time.
    fn outside(&mut self, group: &str, status: &SourceStatus, reachable: bool, now: Duration) -> Option<Duration> {
        let Some(outside) = status.outside else {
            self.outside.remove(group);
            return None;
        };
        let watched = self.outside.entry(group.to_owned()).or_insert(Outside { reachable_since: now, patience: 1 });
        if !reachable {
            watched.reachable_since = now;
        }
        let outside = outside.min(now.saturating_sub(watched.reachable_since));
        if outside < self.after.max(MAY_JOIN) * watched.patience {
            return None;
        }
        *watched = Outside { reachable_since: now, patience: (watched.patience * 2).min(MOST_PATIENCE) };
        Some(outside)
    }
}

/// Since when the brokers answer, for one that is outside its group; and how much longer than the first time it may take.
#[derive(Debug)]
struct Outside {
    reachable_since: Duration,
    patience: u32,
}

/// A rebalance may wait for a member that is gone until its session is over, and for others to finish what is in hand.
const MAY_JOIN: Duration = Duration::from_secs(60);
/// See [`StallWatch::outside`].
const MOST_PATIENCE: u32 = 16;

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

    fn look(watch: &mut StallWatch, group: &str, status: &SourceStatus, lag: i64, now: Duration) -> Option<Stall> {
        watch.look(group, status, true, lag, now)
    }

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
            assert_eq!(look(&mut watch, "works", &at(i64::from(second)), 10, second * SECOND), None);
            assert_eq!(look(&mut watch, "has nothing to do", &at(5), 0, second * SECOND), None);
            assert_eq!(look(&mut watch, "is paused", &paused, 10, second * SECOND), None);
            let stalled = look(&mut watch, "stands still", &at(5), 10, second * SECOND);
            assert_eq!(stalled.is_some(), second > 0 && second % 60 == 0, "at {second} s");
        }
        assert_eq!(look(&mut watch, "is paused", &at(5), 10, 200 * SECOND), None, "it has just been resumed");
    }

    #[test]
    fn a_thread_that_does_not_come_back_is_a_stall_whether_records_wait_or_not() {
        let mut watch = StallWatch::new(60 * SECOND);
        let hung = |hung| SourceStatus { hung, paused: [PauseReason::Backpressure].into(), ..SourceStatus::default() };
        assert_eq!(look(&mut watch, "g", &hung(59 * SECOND), 0, 59 * SECOND), None);
        assert_eq!(look(&mut watch, "g", &hung(60 * SECOND), 0, 60 * SECOND), Some(Stall::Hung(60 * SECOND)));
        assert_eq!(look(&mut watch, "g", &hung(SECOND), 0, 61 * SECOND), None, "it has a new consumer");
    }

    #[test]
    fn one_that_has_no_part_in_its_group_is_a_stall_once_the_brokers_are_there() {
        let mut watch = StallWatch::new(60 * SECOND);
        let outside = |seconds: u32| SourceStatus { outside: Some(seconds * SECOND), ..SourceStatus::default() };
        for second in 0..600 {
            let stalled = watch.look("g", &outside(second), second >= 100, 0, second * SECOND);
            // They answer from the hundredth second on; each time it has twice as long.
            assert_eq!(stalled.is_some(), matches!(second, 159 | 279 | 519), "at {second} s");
        }
        assert_eq!(watch.look("g", &SourceStatus::default(), true, 0, 600 * SECOND), None);
        assert_eq!(watch.look("g", &outside(1), true, 0, 601 * SECOND), None, "another rebalance");
        let new = watch.look("g", &outside(10), true, 0, 700 * SECOND);
        assert_eq!(new, None, "another consumer, which has just begun");
        assert_eq!(watch.look("g", &outside(70), true, 0, 760 * SECOND), Some(Stall::Outside(70 * SECOND)));
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
