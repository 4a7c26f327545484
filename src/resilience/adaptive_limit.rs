//! How much may be under way at a dependency: as much as it takes without slowing down.
//!
//! A gradient limit after the `Gradient2` algorithm of Netflix's concurrency-limits: the lately measured latency is
//! compared with the long-term one. While they agree the limit grows by its square root; when answers take longer, work
//! queues up at the dependency, and the limit shrinks in proportion. Failures shrink it too. Until it shrinks for the first
//! time it grows by what it is, as TCP's slow start does.

use std::time::Duration;

/// Where a limit begins, until something is known.
const START: f64 = 32.0;
/// It never falls below this.
const LEAST: f64 = 4.0;
/// Answers after which the limit is looked at again, at least.
const WINDOW: u32 = 20;
/// Latencies vary by themselves: only what takes so much longer than usual is a queue.
const TOLERANCE: f64 = 2.0;
/// Weight of a new window in the long-term latency.
const LONG_TERM: f64 = 0.01;
/// Seconds. Answers that come sooner than this tell nothing about a queue.
const SHORTEST: f64 = 0.001;
/// How much of the way to the new limit is gone at once.
const SMOOTHING: f64 = 0.4;
/// With more failures than this share the dependency is overloaded. Fewer may be the recipients' own: mail servers that
/// ask to come again later, for one.
const FAILURES: f64 = 0.5;

/// See the module.
#[derive(Debug)]
pub struct AdaptiveLimit {
    limit: f64,
    most: f64,
    /// Seconds; `None` until the first window is full.
    usual: Option<f64>,
    /// It never had to shrink.
    is_new: bool,
    window: Window,
}

#[derive(Debug, Default)]
struct Window {
    answers: u32,
    failures: u32,
    seconds: f64,
    most_under_way: usize,
}

impl AdaptiveLimit {
    /// A limit that never exceeds `most`.
    pub fn new(most: usize) -> Self {
        let most = (most as f64).max(1.0);
        Self { limit: START.min(most), most, usual: None, is_new: true, window: Window::default() }
    }

    /// How much may be under way.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// An answer came, or none did, while so much was under way.
    pub fn answered(&mut self, took: Duration, under_way: usize, failed: bool) {
        let window = &mut self.window;
        window.answers += 1;
        window.failures += u32::from(failed);
        window.seconds += took.as_secs_f64();
        window.most_under_way = window.most_under_way.max(under_way);
        if window.answers >= WINDOW.max(self.limit as u32 / 2) {
            let window = std::mem::take(&mut self.window);
            self.adapt(&window);
        }
    }

    fn adapt(&mut self, window: &Window) {
        let answers = f64::from(window.answers);
        let lately = (window.seconds / answers).max(SHORTEST);
        let usual = self.usual.map_or(lately, |usual| usual * (1.0 - LONG_TERM) + lately * LONG_TERM);
        // After a slow time the usual latency would be forgiving for long: it follows down faster than up.
        let usual = if usual > 2.0 * lately { usual * 0.5 } else { usual };
        self.usual = Some(usual);
        let gradient = (TOLERANCE * usual / lately).clamp(0.5, 1.0);
        let failing = f64::from(window.failures) / answers > FAILURES;
        self.is_new &= !failing && gradient >= 1.0;
        let growth = if self.is_new { self.limit } else { self.limit.sqrt() };
        let wanted = if failing { self.limit * 0.8 } else { self.limit * gradient + growth };
        // A limit that is not used up says nothing about a higher one.
        let used = window.most_under_way as f64 >= self.limit / 2.0;
        let wanted = if used { wanted } else { wanted.min(self.limit) };
        self.limit = (self.limit + SMOOTHING * (wanted - self.limit)).clamp(LEAST.min(self.most), self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds answers of a dependency that serves `capacity` at once, each in `ms`, and queues the rest.
    fn settle(limit: &mut AdaptiveLimit, capacity: usize, ms: f64, answers: usize) {
        for _ in 0..answers {
            let under_way = limit.limit();
            let took = ms * (under_way as f64 / capacity as f64).max(1.0);
            limit.answered(Duration::from_secs_f64(took / 1000.0), under_way, false);
        }
    }

    #[test]
    fn a_dependency_that_does_not_slow_down_gets_all_there_is() {
        let mut limit = AdaptiveLimit::new(200);
        settle(&mut limit, 1000, 5.0, 20_000);
        assert_eq!(limit.limit(), 200);
    }

    #[test]
    fn one_that_queues_is_not_buried_and_gets_more_when_it_recovers() {
        let mut limit = AdaptiveLimit::new(200);
        settle(&mut limit, 200, 5.0, 20_000);
        assert_eq!(limit.limit(), 200);
        settle(&mut limit, 10, 5.0, 2000);
        let buried = limit.limit();
        assert!(buried < 80, "{buried} of 200 at a dependency that takes 10");
        settle(&mut limit, 200, 5.0, 20_000);
        assert_eq!(limit.limit(), 200);
    }

    #[test]
    fn failures_shrink_it_to_its_least_and_never_below() {
        let mut limit = AdaptiveLimit::new(200);
        for _ in 0..5000 {
            limit.answered(Duration::from_millis(5), limit.limit(), true);
        }
        assert_eq!(limit.limit(), LEAST as usize);
        settle(&mut limit, 1000, 5.0, 20_000);
        assert_eq!(limit.limit(), 200);
    }

    #[test]
    fn an_unused_limit_does_not_grow() {
        let mut limit = AdaptiveLimit::new(200);
        for _ in 0..5000 {
            limit.answered(Duration::from_millis(5), 1, false);
        }
        assert_eq!(limit.limit(), START as usize);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(most in 1usize..500, answers in prop::collection::vec((0u64..10_000, 0usize..500, any::<bool>()), 0..500)) {
            let mut limit = AdaptiveLimit::new(most);
            for (ms, under_way, failed) in answers {
                limit.answered(Duration::from_millis(ms), under_way, failed);
                prop_assert!((1..=most).contains(&limit.limit()));
            }
        }
    }
}
