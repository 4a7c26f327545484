//! `[monitor]`: how often lag, depths and dependencies are looked at.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, within};

/// `[monitor]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[allow(missing_docs)]
pub struct MonitorConfig {
    pub interval_ms: u64,
    pub probe_timeout_ms: u64,
    pub stall_after_ms: u64,
}

impl MonitorConfig {
    /// Between two looks.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// A dependency that does not answer within this time counts as away.
    pub fn probe_timeout(&self) -> Duration {
        Duration::from_millis(self.probe_timeout_ms)
    }

    /// A group that stands still for so long, without a reason, is rebuilt.
    pub fn stall_after(&self) -> Duration {
        Duration::from_millis(self.stall_after_ms)
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        within(mistakes, "monitor.interval_ms", self.interval_ms, 100..=5000);
        within(mistakes, "monitor.probe_timeout_ms", self.probe_timeout_ms, 1..=4999);
        within(mistakes, "monitor.stall_after_ms", self.stall_after_ms, 10_000..=MAX_MS);
    }
}
