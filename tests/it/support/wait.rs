//! Waiting for conditions, each with a deadline.

use std::thread;
use std::time::{Duration, Instant};

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Seconds, in few letters.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Asks until there is an answer; panics after the deadline, saying what did not come about.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, ask: impl FnMut() -> Option<T>) -> T {
    let answer = until_or_end(within, ask);
    answer.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
}

/// Asks until there is an answer or the time is over.
pub fn until_or_end<T>(within: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}
