//! One breaker per dependency.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Config, DedupStore};
use crate::ports::clock::SharedClock;
use crate::resilience::breaker::BreakerPolicy;
use crate::resilience::breaker_cell::BreakerCell;
use crate::telemetry::metric_definitions::BREAKER_STATE;
use crate::telemetry::metrics_server::expose;

/// The breakers of this process.
#[derive(Clone)]
pub struct Breakers {
    /// In front of the producer.
    pub kafka: Arc<BreakerCell>,
    /// In front of the database.
    pub database: Arc<BreakerCell>,
    /// In front of Redis, where something uses it.
    pub redis: Option<Arc<BreakerCell>>,
    /// In front of each provider, by its name.
    pub providers: BTreeMap<String, Arc<BreakerCell>>,
}

impl Breakers {
    /// Closed breakers for what is configured.
    pub fn new(config: &Config, clock: &SharedClock) -> Self {
        let policy = BreakerPolicy {
            failure_threshold: config.breaker.failure_threshold,
            failure_rate: config.breaker.failure_rate,
            minimum_calls: config.breaker.minimum_calls,
            window: config.breaker.window(),
            recovery_timeout: config.breaker.recovery_timeout(),
            success_threshold: config.breaker.success_threshold,
        };
        let cell = |name: &str, policy: BreakerPolicy| {
            expose(BREAKER_STATE, &[("breaker", name.to_owned())]);
            BreakerCell::new(name, policy, Arc::clone(clock))
        };
        // A provider is probed with real notifications, of which there may be only one: its acceptance decides.
        let by_traffic = BreakerPolicy { success_threshold: 1, ..policy };
        let providers = if config.delivery.enabled { config.delivery.providers.as_slice() } else { &[] };
        Self {
            kafka: cell("kafka", policy),
            database: cell("database", policy),
            redis: uses_redis(config).then(|| cell("redis", policy)),
            providers: providers
                .iter()
                .map(|p| (p.name.clone(), cell(&format!("provider:{}", p.name), by_traffic)))
                .collect(),
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<BreakerCell>> {
        let mut all = vec![Arc::clone(&self.kafka), Arc::clone(&self.database)];
        all.extend(self.redis.clone());
        all.extend(self.providers.values().cloned());
        all
    }
}

fn uses_redis(config: &Config) -> bool {
    let paced = config.delivery.providers.iter().any(|provider| provider.max_per_second.is_some());
    (config.routing.enabled && config.routing.dedup.store == DedupStore::Redis)
        || (config.delivery.enabled && config.redis.url.is_some() && paced)
}
