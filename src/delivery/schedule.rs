//! The retry schedule of deliveries, as data.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// Waits between rounds. N steps mean N + 1 rounds.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    steps: Vec<Duration>,
}

impl Schedule {
    /// A schedule of these waits; an empty one means a single round.
    pub fn new(steps: Vec<Duration>) -> Self {
        Self { steps }
    }

    /// The wait after a failed round (from 0); `None` after the last one.
    ///
    /// At most a tenth is added, so that notifications that failed together do not come back together. It follows from
    /// the id and the round: the same question always has the same answer.
    pub fn wait_after(&self, round: u16, id: &str) -> Option<Duration> {
        let step = *self.steps.get(usize::from(round))?;
        let digest = Sha256::digest(format!("{round}:{id}"));
        let share = f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX);
        Some(step + step.mul_f64(share / 10.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn adds_at_most_a_tenth(ms in 1u64..10_000_000, id in "[a-z0-9-]{1,36}") {
            let step = Duration::from_millis(ms);
            let schedule = Schedule::new(vec![step]);
            let wait = schedule.wait_after(0, &id).expect("one step");
            prop_assert!(wait >= step && wait <= step.mul_f64(1.1) + Duration::from_nanos(1));
            prop_assert_eq!(schedule.wait_after(1, &id), None);
        }
    }
}
