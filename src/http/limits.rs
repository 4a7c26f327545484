//! How much a client may ask: a bound on bodies, and a rate for the API.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::resilience::token_bucket::TokenBucket;

/// Whom a rate is kept for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// Whoever calls from there; see [`Client::at`].
    Address(IpAddr),
    /// Who is known by this name.
    Subject(String),
}

impl Client {
    /// Whoever calls from an address. Whoever has one of IPv6 has all with the same first 64 bits.
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 => v4,
        })
    }
}

/// Clients that are remembered; beyond that the memory begins anew, which only errs towards the client.
const MAX_CLIENTS: usize = 10_000;

/// See the module.
pub struct Limits {
    /// A larger body is refused.
    pub max_body_bytes: u64,
    /// Requests a second in the long run.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
    started: Instant,
    /// Strangers must not make the service forget whom it knows.
    addresses: Mutex<HashMap<Client, TokenBucket>>,
    subjects: Mutex<HashMap<Client, TokenBucket>>,
}

impl Limits {
    /// Limits with an empty memory.
    pub fn new(max_body_bytes: u64, per_second: u32, burst: u32) -> Self {
        Self {
            max_body_bytes,
            per_second,
            burst,
            started: Instant::now(),
            addresses: Mutex::default(),
            subjects: Mutex::default(),
        }
    }

    /// How long the client has to wait; `None` when it may go on.
    pub fn wait(&self, client: Client) -> Option<Duration> {
        let now = self.started.elapsed();
        let clients = match client {
            Client::Address(_) => &self.addresses,
            Client::Subject(_) => &self.subjects,
        };
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&client) {
            clients.clear();
        }
        let bucket = clients.entry(client).or_insert_with(|| TokenBucket::new(self.per_second, self.burst, now));
        (bucket.take(1, now) == 0).then(|| bucket.until_token(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_burst_and_then_waits() {
        let limits = Limits::new(1, 1, 3);
        let client = Client::Address([127, 0, 0, 1].into());
        let refused = (0..10).filter(|_| limits.wait(client.clone()).is_some()).count();
        assert!(refused >= 6, "{refused} of 10 refused after a burst of 3");
        let others = [Client::Address([127, 0, 0, 2].into()), Client::Subject("127.0.0.1".to_owned())];
        assert!(others.into_iter().all(|other| limits.wait(other).is_none()), "other clients are not affected");
        let at = |text: &str| Client::at(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1:2:3"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:127.0.0.1"), client);
    }
}
