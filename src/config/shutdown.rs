//! `[shutdown]`: how long the service may take to finish what is in hand.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, within};

/// `[shutdown]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ShutdownConfig {
    /// See [`ShutdownConfig::timeout`].
    pub timeout_ms: u64,
}

impl ShutdownConfig {
    /// From the signal to the end of the process.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        within(mistakes, "shutdown.timeout_ms", self.timeout_ms, 1000..=MAX_MS);
    }
}
