//! `[startup]`: how long the service waits for its dependencies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, within};

/// `[startup]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct StartupConfig {
    /// See [`StartupConfig::deadline`].
    pub deadline_ms: u64,
}

impl StartupConfig {
    /// How long broker and database may be away at start; `None` = for ever.
    pub fn deadline(&self) -> Option<Duration> {
        (self.deadline_ms > 0).then(|| Duration::from_millis(self.deadline_ms))
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        within(mistakes, "startup.deadline_ms", self.deadline_ms, 0..=MAX_MS);
    }
}
