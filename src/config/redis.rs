//! `[redis]`: an optional Redis, which health watches and whose streams may be sources of events.

use serde::{Deserialize, Serialize};

use super::mistake::{Mistake, check_url_with_host};
use super::secret::SecretUrl;

/// `[redis]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RedisConfig {
    /// `redis://…` or `rediss://…`; without it the service runs without Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<SecretUrl>,
}

impl RedisConfig {
    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        if let Some(url) = &self.url {
            check_url_with_host(mistakes, "redis.url", url, &["redis://", "rediss://"]);
        }
    }
}
