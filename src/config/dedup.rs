//! `[routing.dedup]`: how events are recognised that were processed before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, at_least, is_faulty, rule, within};

/// `[routing.dedup]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[allow(missing_docs)]
pub struct DedupConfig {
    pub store: DedupStore,
    /// Events of each consumer group that `memory` remembers.
    pub capacity: usize,
    pub remember_ms: u64,
    pub lease_ms: u64,
}

/// Where processed events are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum DedupStore {
    Off,
    Memory,
    Redis,
    Sql,
}

impl DedupConfig {
    /// For so long `redis` and `sql` remember an event.
    pub fn remember(&self) -> Duration {
        Duration::from_millis(self.remember_ms)
    }

    /// For so long an event belongs to the record that claimed it.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    pub(super) fn validate(&self, has_redis: bool, mistakes: &mut Vec<Mistake>) {
        at_least(mistakes, "routing.dedup.capacity", self.capacity as i64, 1);
        within(mistakes, "routing.dedup.remember_ms", self.remember_ms, 1..=MAX_MS);
        within(mistakes, "routing.dedup.lease_ms", self.lease_ms, 1..=MAX_MS);
        if !is_faulty(mistakes, "routing.dedup.remember_ms") {
            let longer = self.remember_ms > self.lease_ms;
            rule(mistakes, longer, "routing.dedup.remember_ms", "must be greater than routing.dedup.lease_ms");
        }
        let reachable = has_redis || self.store != DedupStore::Redis;
        rule(mistakes, reachable, "routing.dedup.store", "`redis` needs redis.url (REDIS_URL)");
    }
}
