//! A token bucket: a rate with a burst, as pure arithmetic over monotonic time.

use std::time::Duration;

/// Grants so many tokens a second.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: u32, burst: u32, now: Duration) -> Self {
        let (per_second, burst) = (f64::from(per_second.max(1)), f64::from(burst.max(1)));
        Self { per_second, burst, tokens: burst, filled_at: now }
    }

    /// A bucket for a provider that counts requests by the second: never more than `per_second` in any second. What may
    /// be saved up for a burst is taken off the rate.
    pub fn pacing(per_second: u32, now: Duration) -> Self {
        let burst = pacing_burst(per_second);
        Self::new(pacing_refill(per_second), burst, now)
    }

    /// Takes up to `wanted` tokens; returns how many there were.
    pub fn take(&mut self, wanted: usize, now: Duration) -> usize {
        self.fill(now);
        let granted = (self.tokens.floor() as usize).min(wanted);
        self.tokens -= granted as f64;
        granted
    }

    /// Gives unused tokens back.
    pub fn give_back(&mut self, tokens: usize) {
        self.tokens = (self.tokens + tokens as f64).min(self.burst);
    }

    /// How long until there is a token.
    pub fn until_token(&mut self, now: Duration) -> Duration {
        self.fill(now);
        Duration::from_secs_f64(((1.0 - self.tokens) / self.per_second).max(0.0))
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        self.filled_at = now;
    }
}

/// Tokens that come within a second, so that with a full burst before them no second sees more than `per_second`.
pub fn pacing_refill(per_second: u32) -> u32 {
    per_second - pacing_burst(per_second) + 1
}

/// A twentieth of a second's tokens, but one at least.
pub fn pacing_burst(per_second: u32) -> u32 {
    (per_second / 20).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_the_burst_then_the_rate() {
        let mut bucket = TokenBucket::new(10, 10, Duration::ZERO);
        assert_eq!(bucket.take(50, Duration::ZERO), 10);
        assert_eq!(bucket.take(1, Duration::ZERO), 0);
        assert_eq!(bucket.until_token(Duration::ZERO), Duration::from_millis(100));
        assert_eq!(bucket.take(50, Duration::from_millis(250)), 2);
        bucket.give_back(2);
        assert_eq!(bucket.take(50, Duration::from_millis(250)), 2);
        assert_eq!(bucket.take(50, Duration::from_secs(60)), 10, "no more than the burst accumulates");
    }

    #[test]
    fn a_pace_is_kept_in_every_second() {
        for rate in [1, 2, 7, 50, 1000] {
            let mut bucket = TokenBucket::pacing(rate, Duration::ZERO);
            let mut granted = Vec::new();
            for ms in 0..5000u64 {
                let now = Duration::from_millis(ms);
                granted.extend(std::iter::repeat_n(ms, bucket.take(usize::MAX >> 1, now)));
            }
            for (first, begin) in granted.iter().enumerate() {
                let within = granted[first..].iter().take_while(|ms| **ms < begin + 1000).count();
                assert!(within <= rate as usize, "{within} within a second at a rate of {rate}");
            }
            assert!(granted.len() as u32 * 10 >= rate * 5 * 8, "{} in 5 s at a rate of {rate}", granted.len());
        }
    }
}
