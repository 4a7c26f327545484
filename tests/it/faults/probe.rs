//! Events that ask how long routing takes just now: one for each partition of each topic.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::feeder::Feed;
use super::watch::{PARTITIONS, Watch};
use crate::support::events::{Event, Input, object, order_created, quoted, user_registered};
use crate::support::wait;

const MARK: &str = "probe-";

/// Probes on their way.
pub struct Probes {
    /// Of their requests.
    keys: Vec<Vec<u8>>,
    pub sent: Instant,
}

impl Probes {
    /// Sends one to each partition of each topic.
    pub fn send(feed: &Feed) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut probes = Self { keys: Vec::new(), sent: Instant::now() };
        for partition in 0..PARTITIONS {
            let name = format!("{MARK}{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            for (key, input) in inputs(&name) {
                feed.probe(input, partition);
                probes.keys.push(key.into_bytes());
            }
        }
        probes
    }

    /// When the last of them was answered.
    #[track_caller]
    pub fn wait_for_last(&self, watch: &Watch, within: Duration) -> Instant {
        wait::until("every probe has its request", within, || {
            let arrivals: Option<Vec<Instant>> = self.keys.iter().map(|key| watch.arrival(key)).collect();
            arrivals?.into_iter().max()
        })
    }
}

pub fn is_probe(key: &[u8]) -> bool {
    key.windows(MARK.len()).any(|part| part == MARK.as_bytes())
}

/// An event for each topic, with the key of its request.
fn inputs(name: &str) -> [(String, Input); 3] {
    let id = |topic: &str| format!("{name}-on-{topic}");
    let product = object(&[("productId", quoted(name)), ("productName", quoted("A probe"))]);
    [
        (format!("notification-{name}"), order_created(&id("orders"), name, "somebody", "1.00").input()),
        (format!("notification-user-{name}"), user_registered(&id("users"), name).input()),
        (
            format!("notification-product-{name}"),
            Event::new("ProductOutOfStock", &id("products"), name, product).input(),
        ),
    ]
}
