//! How many of the calls of the last while failed: a sliding window in ten steps.

use std::time::Duration;

const STEPS: usize = 10;

/// Counts over a sliding window. `now` is monotonic time.
#[derive(Debug, Clone)]
pub struct FailureWindow {
    step: Duration,
    /// The number of the step that each place holds, and its counts.
    places: [(u128, Counts); STEPS],
}

/// Calls and those of them that failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    pub calls: u32,
    pub failures: u32,
}

impl FailureWindow {
    /// An empty window of this length.
    pub fn new(length: Duration) -> Self {
        let step = (length / STEPS as u32).max(Duration::from_millis(1));
        Self { step, places: [(0, Counts::default()); STEPS] }
    }

    /// Counts a call, and returns the counts of the window that ends with it.
    pub fn record(&mut self, failed: bool, now: Duration) -> Counts {
        let current = self.number(now);
        let place = &mut self.places[(current % STEPS as u128) as usize];
        if place.0 != current {
            *place = (current, Counts::default());
        }
        place.1.calls = place.1.calls.saturating_add(1);
        place.1.failures = place.1.failures.saturating_add(u32::from(failed));
        let young = |number: u128| number <= current && current - number < STEPS as u128;
        self.places.iter().filter(|(number, _)| young(*number)).fold(Counts::default(), |sum, (_, counts)| Counts {
            calls: sum.calls.saturating_add(counts.calls),
            failures: sum.failures.saturating_add(counts.failures),
        })
    }

    fn number(&self, now: Duration) -> u128 {
        now.as_nanos() / self.step.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_what_is_young_enough(
            calls in prop::collection::vec((0u64..3_000, any::<bool>()), 1..60)
        ) {
            let mut window = FailureWindow::new(Duration::from_secs(10));
            let (mut now, mut past) = (0, Vec::new());
            for (after, failed) in calls {
                now += after;
                past.push((now, failed));
                let counts = window.record(failed, Duration::from_millis(now));
                // By whole steps of a second: what is ten steps old is out.
                let young: Vec<bool> =
                    past.iter().filter(|(at, _)| now / 1_000 - at / 1_000 < 10).map(|(_, failed)| *failed).collect();
                prop_assert_eq!(counts.calls as usize, young.len());
                prop_assert_eq!(counts.failures as usize, young.iter().filter(|failed| **failed).count());
            }
        }
    }
}
