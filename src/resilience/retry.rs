//! Waiting times between tries. The only module that knows the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;

/// How a failed thing is tried again.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Tries after the first one.
    pub max_retries: u32,
    /// Before the first retry; doubled each time.
    pub initial: Duration,
    /// No wait is longer, jitter aside.
    pub max: Duration,
}

/// A growing, jittered sequence of waits, without end.
pub struct Waits(backoff::ExponentialBackoff);

impl Waits {
    /// Starts with about `initial` and doubles up to `max`; each wait is jittered by half.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(initial)
                .with_max_interval(max)
                .with_multiplier(2.0)
                .with_randomization_factor(0.5)
                .with_max_elapsed_time(None)
                .build(),
        )
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        // Without a maximum of elapsed time the sequence has no end; the fallback satisfies the type.
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl RetryPolicy {
    /// The wait before retry number `retry` (from 1).
    pub fn wait_before(&self, retry: u32) -> Duration {
        let mut waits = Waits::new(self.initial, self.max);
        let mut wait = waits.next_wait();
        for _ in 1..retry.min(64) {
            wait = waits.next_wait();
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_waits_for_its_retries_no_longer_than_one_and_a_half_times_their_sum() {
        let policy = RetryPolicy { max_retries: 3, initial: Duration::from_millis(100), max: Duration::from_secs(5) };
        for _ in 0..200 {
            let waited: Duration = (1..=policy.max_retries).map(|retry| policy.wait_before(retry)).sum();
            assert!(waited <= Duration::from_millis((100 + 200 + 400) * 3 / 2), "{waited:?}");
        }
    }

    #[test]
    fn waits_double_within_their_jitter_up_to_the_maximum() {
        let policy = RetryPolicy { max_retries: 9, initial: Duration::from_millis(100), max: Duration::from_secs(1) };
        for (retry, middle) in [(1, 100u64), (2, 200), (3, 400), (4, 800), (5, 1000), (40, 1000)] {
            for _ in 0..50 {
                let wait = policy.wait_before(retry).as_millis() as u64;
                assert!((middle / 2..=middle * 3 / 2).contains(&wait), "retry {retry}: {wait} ms");
            }
        }
    }
}
