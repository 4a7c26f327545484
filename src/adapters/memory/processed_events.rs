//! The last events that this process has processed, bounded in number.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::ports::clock::SharedClock;
use crate::ports::processed_events::{Candidate, Claim, ProcessedEvents, StoreError};

/// Two hashes with keys of this process: 128 bits, so that two ids never meet by chance, and nobody can make them.
type Digest = u128;

/// A digest is as good as any hash of it.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only digests are keys");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// See the module. Beyond its capacity the oldest are forgotten.
pub struct MemoryProcessedEvents {
    capacity: usize,
    clock: SharedClock,
    hashers: [RandomState; 2],
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    events: HashMap<Digest, Event, BuildHasherDefault<AsItIs>>,
    /// As they came: the oldest first.
    order: VecDeque<Digest>,
}

enum Event {
    Claimed { owner: u64, until: Duration },
    Processed,
}

impl MemoryProcessedEvents {
    /// Remembers so many events.
    pub fn new(capacity: usize, clock: SharedClock) -> Self {
        Self { capacity, clock, hashers: Default::default(), known: Mutex::default() }
    }

    fn digest(&self, id: &str) -> Digest {
        let [high, low] = &self.hashers;
        (Digest::from(high.hash_one(id)) << 64) | Digest::from(low.hash_one(id))
    }

    fn owner(&self, at: &impl Hash) -> u64 {
        self.hashers[0].hash_one(at)
    }

    /// Nothing is half-done between two statements that could panic.
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn put(&mut self, digest: Digest, event: Event, capacity: usize) {
        if self.events.insert(digest, event).is_none() {
            self.order.push_back(digest);
            if self.order.len() > capacity
                && let Some(oldest) = self.order.pop_front()
            {
                self.events.remove(&oldest);
            }
        }
    }
}

#[async_trait]
impl ProcessedEvents for MemoryProcessedEvents {
    async fn claim(&self, candidates: &[Candidate<'_>], lease: Duration) -> Result<Vec<Claim>, StoreError> {
        let now = self.clock.monotonic();
        let mut known = self.known();
        let claim = |candidate: &Candidate<'_>| {
            let (digest, mine) = (self.digest(candidate.id), self.owner(candidate.at));
            match known.events.get(&digest) {
                Some(Event::Processed) => Claim::Processed,
                Some(Event::Claimed { owner, until }) if *owner != mine && *until > now => Claim::Held,
                _ => {
                    known.put(digest, Event::Claimed { owner: mine, until: now + lease }, self.capacity);
                    Claim::Granted
                }
            }
        };
        Ok(candidates.iter().map(claim).collect())
    }

    async fn mark(&self, ids: &[&str]) -> Result<(), StoreError> {
        let mut known = self.known();
        for id in ids {
            known.put(self.digest(id), Event::Processed, self.capacity);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::record::Coordinates;
    use crate::ports::clock::SystemClock;

    #[tokio::test]
    async fn forgets_the_oldest_beyond_its_capacity() {
        let store = MemoryProcessedEvents::new(3, Arc::new(SystemClock::default()));
        store.mark(&["a", "b", "c", "d"]).await.expect("never fails");
        store.mark(&["d", "d"]).await.expect("never fails");
        let at = Coordinates { topic: "t".into(), partition: 0, offset: 0 };
        let candidates = ["b", "c", "d", "a"].map(|id| Candidate { id, at: &at });
        let claims = store.claim(&candidates, Duration::from_secs(1)).await.expect("never fails");
        assert_eq!(claims, [Claim::Processed, Claim::Processed, Claim::Processed, Claim::Granted]);
        assert_eq!(store.known().events.len(), 3);
    }
}
