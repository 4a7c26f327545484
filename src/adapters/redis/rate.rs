//! A token bucket in Redis, by Redis's own clock.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::link::RedisLink;
use crate::ports::rate::{RateUnknown, SharedRate};

/// KEYS: the bucket. ARGV: tokens a second, the most it holds, and how many are wanted; a negative number gives back.
/// Answers how many were taken, and the milliseconds until there is one. One script is one step for Redis.
const TAKE: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(kept[1]) or burst
local passed = math.max(0, now - (tonumber(kept[2]) or now))
tokens = math.min(burst, tokens + passed * rate / 1000)
local taken = math.min(math.floor(tokens), wanted)
tokens = math.min(burst, tokens - taken)
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', now)
redis.call('PEXPIRE', KEYS[1], math.ceil(burst * 1000 / rate) + 1000)
local wait = 0
if tokens < 1 then wait = math.ceil((1 - tokens) * 1000 / rate) end
return {taken, wait}";

/// See the module.
pub struct RedisRate {
    link: Arc<RedisLink>,
    key: String,
    per_second: u32,
    burst: u32,
}

impl RedisRate {
    /// The rate of this name: so many tokens a second, of which so many may be saved up.
    pub fn new(link: Arc<RedisLink>, name: &str, per_second: u32, burst: u32) -> Self {
        Self { link, key: format!("rate:{name}"), per_second, burst }
    }

    async fn call(&self, wanted: i64) -> Result<(i64, u64), RateUnknown> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(TAKE).arg(1).arg(&self.key).arg(self.per_second).arg(self.burst).arg(wanted);
        let (answer,): ((i64, u64),) = self.link.ask(&pipeline).await.map_err(|e| RateUnknown(e.to_string()))?;
        Ok(answer)
    }
}

#[async_trait]
impl SharedRate for RedisRate {
    async fn take(&self, wanted: usize) -> Result<(usize, Duration), RateUnknown> {
        let (taken, wait) = self.call(wanted as i64).await?;
        Ok((usize::try_from(taken).unwrap_or(0), Duration::from_millis(wait)))
    }

    async fn give_back(&self, tokens: usize) -> Result<(), RateUnknown> {
        self.call(-(tokens as i64)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(name: &str) -> RedisRate {
        let url = std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL, see scripts/services.sh env");
        RedisRate::new(Arc::new(RedisLink::new(&url).expect("a URL")), name, 10, 5)
    }

    #[tokio::test]
    #[ignore = "needs Redis: TEST_REDIS_URL"]
    async fn instances_share_the_tokens() {
        let name = uuid::Uuid::new_v4().to_string();
        let (here, there) = (rate(&name), rate(&name));
        assert_eq!(here.take(3).await.expect("takes").0, 3);
        let (taken, wait) = there.take(100).await.expect("takes");
        // A token may have come in between.
        assert!((2..=3).contains(&taken) && wait <= Duration::from_millis(100) && !wait.is_zero(), "{taken} {wait:?}");
        assert_eq!(here.take(1).await.expect("takes").0, 0);
        there.give_back(2).await.expect("gives back");
        assert!((2..=3).contains(&here.take(100).await.expect("takes").0));
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert!(there.take(100).await.expect("takes").0 >= 2, "tokens come with time");
    }
}
