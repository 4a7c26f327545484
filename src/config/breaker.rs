//! `[breaker]`: when the circuit breakers of the dependencies open and close.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, at_least, rule, within};

/// `[breaker]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct BreakerConfig {
    /// Consecutive failures that open a breaker.
    pub failure_threshold: u32,
    /// The share of failed calls that opens it, too.
    pub failure_rate: f64,
    /// Calls within the window from which on the share counts.
    pub minimum_calls: u32,
    /// See [`BreakerConfig::window`].
    pub window_ms: u64,
    /// See [`BreakerConfig::recovery_timeout`].
    pub recovery_timeout_ms: u64,
    /// Consecutive successful probes that close it.
    pub success_threshold: u32,
}

impl BreakerConfig {
    /// The time over which the share is taken.
    pub fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
    }

    /// How long a breaker stays open before a probe may run.
    pub fn recovery_timeout(&self) -> Duration {
        Duration::from_millis(self.recovery_timeout_ms)
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        at_least(mistakes, "breaker.failure_threshold", self.failure_threshold.into(), 1);
        let share = self.failure_rate > 0.0 && self.failure_rate <= 1.0;
        rule(mistakes, share, "breaker.failure_rate", "must be greater than 0 and at most 1");
        at_least(mistakes, "breaker.minimum_calls", self.minimum_calls.into(), 1);
        within(mistakes, "breaker.window_ms", self.window_ms, 10..=MAX_MS);
        within(mistakes, "breaker.recovery_timeout_ms", self.recovery_timeout_ms, 1..=MAX_MS);
        at_least(mistakes, "breaker.success_threshold", self.success_threshold.into(), 1);
    }
}
