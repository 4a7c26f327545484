//! `[breaker]`: when the circuit breakers of the dependencies open and close.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, at_least, within};

/// `[breaker]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct BreakerConfig {
    /// Consecutive failures that open a breaker.
    pub failure_threshold: u32,
    /// See [`BreakerConfig::recovery_timeout`].
    pub recovery_timeout_ms: u64,
    /// Consecutive successful probes that close it.
    pub success_threshold: u32,
}

impl BreakerConfig {
    /// How long a breaker stays open before a probe may run.
    pub fn recovery_timeout(&self) -> Duration {
        Duration::from_millis(self.recovery_timeout_ms)
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        at_least(mistakes, "breaker.failure_threshold", self.failure_threshold.into(), 1);
        within(mistakes, "breaker.recovery_timeout_ms", self.recovery_timeout_ms, 1..=MAX_MS);
        at_least(mistakes, "breaker.success_threshold", self.success_threshold.into(), 1);
    }
}
