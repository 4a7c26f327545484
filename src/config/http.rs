//! `[http]`: where probes, metrics and the API listen, and how much they take.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::mistake::{Mistake, rule};

/// `[http]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct HttpConfig {
    /// The port may be 0: the system chooses one.
    pub address: SocketAddr,
    /// A larger request body is answered 413.
    pub max_body_bytes: u64,
    /// Requests a second that one client may make to /api, in the long run.
    pub rate_limit_per_second: u32,
    /// Requests that it may make at once.
    pub rate_limit_burst: u32,
}

impl HttpConfig {
    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        rule(mistakes, self.rate_limit_per_second >= 1, "http.rate_limit_per_second", "must be at least 1");
        rule(mistakes, self.rate_limit_burst >= 1, "http.rate_limit_burst", "must be at least 1");
    }
}
