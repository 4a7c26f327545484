//! Lets each event have its effect once, as far as the store of processed events reaches.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use metrics::{Counter, counter};

use crate::ports::processed_events::{Candidate, Claim, ProcessedEvents, StoreError};
use crate::resilience::breaker::CallOutcome;
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::retry::Waits;
use crate::telemetry::metric_definitions::DEDUP_BYPASSED;

/// Whether an effect may be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Now,
    /// Never: the event had it before.
    Duplicate,
    /// Perhaps later: another record has the event in hand.
    Later,
}

/// What happens while the store is away.
#[derive(Clone)]
pub enum Reliance {
    /// It lives in this process and is never away.
    Local,
    /// Everything passes: a cache that is away costs duplicates, which the guarantee allows, and no time.
    Optional(Arc<BreakerCell>),
    /// Everything waits: the store is the truth.
    Required(Arc<BreakerCell>),
}

/// See the module.
#[derive(Clone)]
pub struct Dedup {
    store: Arc<dyn ProcessedEvents>,
    reliance: Reliance,
    lease: Duration,
    bypassed: Counter,
}

impl Dedup {
    /// Over a store. A claim holds as long as the lease.
    pub fn new(store: Arc<dyn ProcessedEvents>, reliance: Reliance, lease: Duration) -> Self {
        Self { store, reliance, lease, bypassed: counter!(DEDUP_BYPASSED) }
    }

    /// The breaker of a store that nothing is processed without.
    pub fn required_breaker(&self) -> Option<&Arc<BreakerCell>> {
        match &self.reliance {
            Reliance::Required(breaker) => Some(breaker),
            Reliance::Local | Reliance::Optional(_) => None,
        }
    }

    /// Claims events, whose ids are distinct, for their records.
    pub async fn admit(&self, candidates: &[Candidate<'_>]) -> Vec<Admission> {
        let Some(claims) = self.call(|| self.store.claim(candidates, self.lease)).await else {
            self.bypassed.increment(candidates.len() as u64);
            return vec![Admission::Now; candidates.len()];
        };
        let admission = |claim| match claim {
            Claim::Granted => Admission::Now,
            Claim::Processed => Admission::Duplicate,
            Claim::Held => Admission::Later,
        };
        claims.into_iter().map(admission).collect()
    }

    /// Remembers events whose effects are durable.
    pub async fn processed(&self, ids: &[&str]) {
        if !ids.is_empty() {
            // Without the mark another record of such an event waits for the rest of the lease, and then passes.
            let _ = self.call(|| self.store.mark(ids)).await;
        }
    }

    async fn call<'a, T>(&self, call: impl Fn() -> BoxFuture<'a, Result<T, StoreError>>) -> Option<T> {
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let permit = match &self.reliance {
                Reliance::Local => None,
                Reliance::Optional(breaker) => Some(breaker.acquire_closed()?),
                Reliance::Required(breaker) => Some(breaker.granted().await),
            };
            let result = call().await;
            if let Some(permit) = permit {
                permit.report(if result.is_ok() { CallOutcome::Success } else { CallOutcome::Failure(1) });
            }
            match (result, &self.reliance) {
                (Ok(value), _) => return Some(value),
                (Err(error), Reliance::Required(_)) => {
                    tracing::warn!(%error, "events wait");
                    tokio::time::sleep(waits.next_wait()).await;
                }
                (Err(error), _) => {
                    tracing::warn!(%error, "events pass without de-duplication");
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::record::Coordinates;
    use crate::ports::clock::{SharedClock, SystemClock};
    use crate::resilience::breaker::{BreakerPolicy, Position};

    /// Answers what it is told to, and remembers what it was asked.
    #[derive(Default)]
    struct Told {
        claims: Mutex<Vec<Result<Vec<Claim>, StoreError>>>,
        asked: Mutex<Vec<Vec<String>>>,
    }

    #[async_trait::async_trait]
    impl ProcessedEvents for Told {
        async fn claim(&self, candidates: &[Candidate<'_>], _: Duration) -> Result<Vec<Claim>, StoreError> {
            self.asked.lock().expect("lock").push(candidates.iter().map(|c| c.id.to_owned()).collect());
            self.claims.lock().expect("lock").remove(0)
        }

        async fn mark(&self, _: &[&str]) -> Result<(), StoreError> {
            Err(StoreError("away".into()))
        }
    }

    fn away() -> Result<Vec<Claim>, StoreError> {
        Err(StoreError("away".into()))
    }

    fn told(claims: Vec<Result<Vec<Claim>, StoreError>>) -> Arc<Told> {
        Arc::new(Told { claims: Mutex::new(claims), ..Told::default() })
    }

    fn breaker() -> Arc<BreakerCell> {
        let clock: SharedClock = Arc::new(SystemClock::default());
        BreakerCell::new("store", BreakerPolicy::strict(1), clock)
    }

    fn places(count: i64) -> Vec<Coordinates> {
        (0..count).map(|offset| Coordinates { topic: "t".into(), partition: 0, offset }).collect()
    }

    fn candidates<'a>(ids: &[&'a str], places: &'a [Coordinates]) -> Vec<Candidate<'a>> {
        ids.iter().zip(places).map(|(id, at)| Candidate { id, at }).collect()
    }

    #[tokio::test]
    async fn a_claim_that_is_held_waits() {
        let store = told(vec![Ok(vec![Claim::Granted, Claim::Processed, Claim::Held])]);
        let dedup = Dedup::new(store.clone(), Reliance::Local, Duration::from_secs(1));
        let places = places(3);
        let admissions = dedup.admit(&candidates(&["a", "b", "c"], &places)).await;
        assert_eq!(admissions, [Admission::Now, Admission::Duplicate, Admission::Later]);
        assert_eq!(*store.asked.lock().expect("lock"), [["a", "b", "c"]]);
    }

    #[tokio::test]
    async fn a_cache_that_is_away_lets_everything_pass_and_is_not_asked_while_its_breaker_is_open() {
        let store = told(vec![away()]);
        let breaker = breaker();
        let dedup = Dedup::new(store.clone(), Reliance::Optional(Arc::clone(&breaker)), Duration::from_secs(1));
        let places = places(1);
        for _ in 0..3 {
            assert_eq!(dedup.admit(&candidates(&["a"], &places)).await, [Admission::Now]);
            dedup.processed(&["a"]).await;
        }
        assert_eq!(breaker.position(), Position::Open);
        assert_eq!(store.asked.lock().expect("lock").len(), 1);
    }

    #[tokio::test]
    async fn the_truth_is_waited_for() {
        let store = told(vec![away(), Ok(vec![Claim::Processed])]);
        let clock: SharedClock = Arc::new(SystemClock::default());
        let patient = BreakerCell::new("store", BreakerPolicy::strict(9), clock);
        let dedup = Dedup::new(store, Reliance::Required(patient), Duration::from_secs(1));
        let places = places(1);
        assert_eq!(dedup.admit(&candidates(&["a"], &places)).await, [Admission::Duplicate]);
    }
}
