//! `[supervision]`: how parts of the service that failed are rebuilt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, is_faulty, rule, within};

/// `[supervision]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[allow(missing_docs)]
pub struct SupervisionConfig {
    /// Restarts within the window before the service turns not-ready.
    pub restart_budget: u32,
    pub restart_window_ms: u64,
    pub restart_initial_ms: u64,
    pub restart_max_ms: u64,
}

impl SupervisionConfig {
    /// The time over which restarts are counted.
    pub fn restart_window(&self) -> Duration {
        Duration::from_millis(self.restart_window_ms)
    }

    /// The wait before the first restart; doubled each time.
    pub fn restart_initial(&self) -> Duration {
        Duration::from_millis(self.restart_initial_ms)
    }

    /// No wait before a restart is longer.
    pub fn restart_max(&self) -> Duration {
        Duration::from_millis(self.restart_max_ms)
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        within(mistakes, "supervision.restart_window_ms", self.restart_window_ms, 1..=MAX_MS);
        within(mistakes, "supervision.restart_initial_ms", self.restart_initial_ms, 1..=MAX_MS);
        within(mistakes, "supervision.restart_max_ms", self.restart_max_ms, 1..=MAX_MS);
        if !is_faulty(mistakes, "supervision.restart_initial_ms") {
            let holds = self.restart_max_ms >= self.restart_initial_ms;
            rule(mistakes, holds, "supervision.restart_max_ms", "must not be less than supervision.restart_initial_ms");
        }
    }
}
