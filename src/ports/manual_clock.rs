//! A clock for tests: time passes, and the wall clock is set, when they say so.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::clock::Clock;

/// See the module.
#[derive(Debug)]
pub struct ManualClock(Mutex<Shown>);

#[derive(Debug)]
struct Shown {
    wall: Timestamp,
    steady: Duration,
}

impl ManualClock {
    /// A clock whose wall clock shows this time.
    pub fn at(wall: Timestamp) -> Self {
        Self(Mutex::new(Shown { wall, steady: Duration::ZERO }))
    }

    /// Time passes.
    pub fn pass(&self, time: Duration) {
        let mut shown = self.lock();
        shown.wall += time;
        shown.steady += time;
    }

    /// Somebody sets the wall clock, forwards or backwards; no time passes.
    pub fn set(&self, by: SignedDuration) {
        self.lock().wall += by;
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().wall
    }

    fn monotonic(&self) -> Duration {
        self.lock().steady
    }
}
