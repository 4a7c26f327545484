//! Who carries the notifications of a drain: nobody, or the `http` provider to a server of this program.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use notification_service::adapters::providers::{self, ProviderKind, ProviderSettings};
use notification_service::ports::provider::Provider;

use crate::server::{Answers, Server};
use crate::sinks::{Acceptances, AcceptingProvider};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Accepts at once.
    Nothing,
    /// Posts to a server on loopback.
    Http,
}

pub struct Carrier {
    pub provider: Arc<dyn Provider>,
    pub accepted: Arc<Acceptances>,
    _server: Option<Server>,
}

impl Target {
    /// With room for so many acceptances.
    pub fn carrier(self, events: u64) -> Result<Carrier> {
        let accepted = Arc::new(Acceptances::with_room(events));
        if self == Self::Nothing {
            let provider = Arc::new(AcceptingProvider { accepted: Arc::clone(&accepted) });
            return Ok(Carrier { provider, accepted, _server: None });
        }
        let server = Server::start(Answers::AtOnce, Arc::clone(&accepted))?;
        let settings = ProviderSettings {
            name: "bench".to_owned(),
            kind: ProviderKind::Http,
            url: server.url(),
            timeout: Duration::from_secs(5),
            secret: None,
            reports: None,
            email_from: "Shop <no-reply@shop.example>".to_owned(),
            from: None,
            status_callback_url: None,
            credentials_file: None,
            dkim: None,
        };
        Ok(Carrier { provider: providers::build(&settings, None)?, accepted, _server: Some(server) })
    }
}
