//! How fast and how much a lane sends: the provider's rate, kept by all instances together where Redis is there, and
//! what may be under way at once, which follows the provider's latency.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ports::clock::SharedClock;
use crate::ports::rate::SharedRate;
use crate::resilience::adaptive_limit::AdaptiveLimit;
use crate::resilience::breaker::CallOutcome;
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::token_bucket::TokenBucket;

/// A rate that several instances keep together, behind Redis's breaker. While Redis is away each instance keeps the
/// rate on its own.
pub struct Together {
    /// Who keeps it.
    pub rate: Arc<dyn SharedRate>,
    /// In front of Redis.
    pub breaker: Arc<BreakerCell>,
}

/// See the module.
pub struct Pacing {
    clock: SharedClock,
    alone: Option<Mutex<TokenBucket>>,
    together: Option<Together>,
    limit: Mutex<AdaptiveLimit>,
    /// The provider wants no more before this time of the clock.
    paused_until: Mutex<Duration>,
    /// When the shared rate has a token again; `None` while this instance keeps the rate on its own.
    token_at: Mutex<Option<Duration>>,
}

impl Pacing {
    /// So many sends a second, if there is a limit, and so many at once at most.
    pub fn new(clock: SharedClock, per_second: Option<u32>, together: Option<Together>, most: usize) -> Self {
        let now = clock.monotonic();
        Self {
            clock,
            alone: per_second.map(|rate| Mutex::new(TokenBucket::pacing(rate, now))),
            together: together.filter(|_| per_second.is_some()),
            limit: Mutex::new(AdaptiveLimit::new(most)),
            paused_until: Mutex::new(Duration::ZERO),
            token_at: Mutex::new(None),
        }
    }

    /// How many may be under way at once.
    pub fn limit(&self) -> usize {
        lock(&self.limit).limit()
    }

    /// A send came to its end.
    pub fn answered(&self, took: Duration, under_way: usize, failed: bool) {
        lock(&self.limit).answered(took, under_way, failed);
    }

    /// The provider wants no more for this time.
    pub fn pause(&self, time: Duration) {
        let mut until = lock(&self.paused_until);
        *until = (*until).max(self.clock.monotonic() + time);
    }

    /// For how long the provider wants no more.
    pub fn pause_left(&self) -> Duration {
        lock(&self.paused_until).saturating_sub(self.clock.monotonic())
    }

    /// Takes up to `wanted` tokens.
    pub async fn grant(&self, wanted: usize) -> usize {
        let Some(alone) = &self.alone else { return wanted };
        if wanted == 0 {
            return 0;
        }
        if let Some((granted, wait)) = self.ask(wanted).await {
            *lock(&self.token_at) = Some(self.clock.monotonic() + wait);
            return granted;
        }
        *lock(&self.token_at) = None;
        lock(alone).take(wanted, self.clock.monotonic())
    }

    async fn ask(&self, wanted: usize) -> Option<(usize, Duration)> {
        let together = self.together.as_ref()?;
        let permit = together.breaker.acquire_closed()?;
        let answer = together.rate.take(wanted).await;
        permit.report(if answer.is_ok() { CallOutcome::Success } else { CallOutcome::Failure(1) });
        if let Err(error) = &answer {
            tracing::warn!(%error, "this instance keeps the provider's rate on its own");
        }
        answer.ok()
    }

    /// Gives unused tokens back.
    pub async fn give_back(&self, unused: usize) {
        let Some(alone) = self.alone.as_ref().filter(|_| unused > 0) else { return };
        let shared = lock(&self.token_at).is_some();
        match self.together.as_ref().filter(|_| shared) {
            // Should it fail, they come back with time.
            Some(together) => drop(together.rate.give_back(unused).await),
            None => lock(alone).give_back(unused),
        }
    }

    /// How long until there is a token.
    pub fn until_token(&self) -> Duration {
        let now = self.clock.monotonic();
        let Some(alone) = &self.alone else { return Duration::ZERO };
        let shared = *lock(&self.token_at);
        shared.map_or_else(|| lock(alone).until_token(now), |at| at.saturating_sub(now))
    }
}

/// Numbers stay sound whatever panics around them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
