//! `[http]`: where probes, metrics, the API and the console listen.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `[http]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct HttpConfig {
    /// The port may be 0: the system chooses one.
    pub address: SocketAddr,
}
