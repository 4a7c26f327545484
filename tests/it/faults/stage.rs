//! Everything that takes part in a run.

use std::path::Path;
use std::time::Duration;

use super::cluster::Cluster;
use super::feeder::Feeder;
use super::fleet::Fleet;
use super::proxy::Proxies;
use super::redis::Redis;
use super::settings::Settings;
use super::watch::Watch;
use crate::support::kafka::Kafka;
use crate::support::unique;
use crate::support::wait::{self, secs};

/// Instances between faults.
pub const INSTANCES: usize = 2;

pub struct Stage {
    pub cluster: Cluster,
    pub proxies: Proxies,
    pub redis: Option<Redis>,
    /// Past the proxies.
    pub kafka: Kafka,
    pub fleet: Fleet,
    pub watch: Watch,
    pub feeder: Feeder,
}

/// How far input and output have come.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    due: u64,
    seen: u64,
}

impl Flow {
    pub fn has_gone_on_since(self, before: Self) -> bool {
        self.due > before.due && self.seen > before.seen
    }
}

impl Stage {
    /// Starts everything; returns when requests come out.
    #[track_caller]
    pub fn set(folder: &Path, settings: &Settings) -> Self {
        let cluster = Cluster::start(folder, settings.brokers);
        let proxies = Proxies::start(folder, cluster.brokers());
        let redis = settings.with_redis().then(|| Redis::start(folder));
        let kafka = Kafka { brokers: cluster.addresses(), prefix: format!("faults-{}.", unique()) };
        let mut fleet = Fleet::new(folder, &proxies.addresses(), &kafka, settings.guarantee);
        if let Some(redis) = &redis {
            fleet = fleet.with_redis(&redis.url());
        }
        fleet.create_topics(settings.brokers);
        fleet.resize(INSTANCES);
        fleet.wait_until_shared();
        let feeder = Feeder::start(&kafka, settings.seed, settings.rate);
        let watch = Watch::over(&kafka);
        let stage = Self { cluster, proxies, redis, kafka, fleet, watch, feeder };
        wait::until("routing gets on", secs(60), || (stage.flow().seen > settings.rate).then_some(()));
        stage
    }

    pub fn flow(&self) -> Flow {
        Flow { due: self.feeder.feed.due(), seen: self.watch.requests() }
    }

    /// Waits for so long; true if meanwhile less than half of what became due came out.
    pub fn is_held_back_for(&self, length: Duration) -> bool {
        let before = self.flow();
        std::thread::sleep(length);
        let after = self.flow();
        (after.seen - before.seen) * 2 < after.due - before.due
    }
}
