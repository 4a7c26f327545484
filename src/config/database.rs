//! `[database]`: where the ledger, the directory and the dead letters are kept.

use serde::{Deserialize, Serialize};

use super::mistake::{Mistake, at_least, check_url, rule};
use super::secret::SecretUrl;

/// `[database]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DatabaseConfig {
    /// `postgres://…`, `postgresql://…` or `sqlite://FILE`.
    pub url: SecretUrl,
    /// Of the pool.
    pub max_connections: u32,
}

impl DatabaseConfig {
    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        let key = "database.url";
        match self.url.expose().strip_prefix("sqlite://") {
            // A file name need not be a valid URL.
            Some(file) => {
                rule(mistakes, !file.is_empty(), key, "names no file, such as sqlite://data/notifications.db")
            }
            None => {
                let schemes = ["postgres://", "postgresql://", "sqlite://"];
                check_url(mistakes, key, &self.url, &schemes);
            }
        }
        at_least(mistakes, "database.max_connections", self.max_connections.into(), 1);
    }
}
