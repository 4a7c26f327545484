//! `[logging]`: how log lines look and which of them are written.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::mistake::{Mistake, rule};

/// `[logging]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct LoggingConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// Directives in the syntax of `RUST_LOG`.
    pub filter: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum LogFormat {
    Pretty,
    Json,
}

impl LoggingConfig {
    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        if let Err(error) = EnvFilter::try_new(&self.filter) {
            rule(mistakes, false, "logging.filter", error.to_string());
        }
    }
}
