//! One or three real brokers, and what can be seen of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::Metadata;

use super::broker::Broker;
use crate::support::wait::{self, secs};

/// A JVM's start on a busy machine, and the recovery of its logs.
const START: Duration = secs(120);

pub struct Cluster {
    brokers: Vec<Broker>,
    /// Sees all of them.
    asker: BaseConsumer,
}

/// Which broker leads each partition.
pub type Leaders = BTreeMap<(String, i32), i32>;

impl Cluster {
    /// New brokers under a folder, ready for work.
    #[track_caller]
    pub fn start(folder: &Path, count: usize) -> Self {
        let mut brokers: Vec<Broker> = (1..=count).map(|id| Broker::new(id, folder)).collect();
        let voters = brokers.iter().map(Broker::voter).collect::<Vec<_>>().join(",");
        let formats: Vec<_> = brokers.iter().map(|broker| broker.format(&voters, count)).collect();
        for mut format in formats {
            let status = format.wait(START).expect("formatting ends");
            assert!(status.success(), "the data folder could not be formatted: {}", format.standard_error());
        }
        brokers.iter_mut().for_each(Broker::start);
        let cluster = Self { asker: asker(&addresses(&brokers)), brokers };
        cluster.wait_until_whole();
        cluster
    }

    /// The brokers' addresses, past the proxies.
    pub fn addresses(&self) -> String {
        addresses(&self.brokers)
    }

    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// The broker that a step of the plan hits.
    pub fn victim(&mut self, number: usize) -> &mut Broker {
        let count = self.brokers.len();
        &mut self.brokers[number % count]
    }

    /// Waits until this broker counts itself among the living.
    #[track_caller]
    pub fn wait_until_back(&mut self, number: usize) {
        let broker = self.victim(number);
        let (id, asker) = (broker.id, asker(&broker.address()));
        wait::until("the broker is back", START, || {
            assert!(broker.is_running(), "broker {id} ended while starting");
            let metadata = asker.fetch_metadata(None, secs(2)).ok()?;
            metadata.brokers().iter().any(|other| other.id() as usize == id).then_some(())
        });
    }

    /// Waits until every broker is there and every replica in sync: only then may the next one go.
    #[track_caller]
    pub fn wait_until_whole(&self) {
        wait::until("all brokers and replicas are in sync", START, || {
            let metadata = self.metadata()?;
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let in_sync = partitions.all(|partition| partition.isr().len() == partition.replicas().len());
            (in_sync && metadata.brokers().len() == self.brokers.len()).then_some(())
        });
    }

    pub fn leaders(&self) -> Option<Leaders> {
        let metadata = self.metadata()?;
        let mut leaders = Leaders::new();
        for topic in metadata.topics() {
            let partitions = topic.partitions().iter();
            leaders.extend(partitions.map(|partition| ((topic.name().to_owned(), partition.id()), partition.leader())));
        }
        Some(leaders)
    }

    /// Waits until none of the partitions has this broker as its leader; true if that came about.
    pub fn loses_leaderships(&self, id: usize, within: Duration) -> bool {
        let moved = || self.leaders().filter(|leaders| leaders.values().all(|leader| *leader as usize != id));
        wait::until_or_end(within, moved).is_some()
    }

    /// Waits until the leaders are these again; true if that came about.
    pub fn has_leaders(&self, leaders: &Leaders, within: Duration) -> bool {
        wait::until_or_end(within, || self.leaders().filter(|now| now == leaders)).is_some()
    }

    fn metadata(&self) -> Option<Metadata> {
        self.asker.fetch_metadata(None, secs(3)).ok()
    }
}

fn addresses(brokers: &[Broker]) -> String {
    brokers.iter().map(Broker::address).collect::<Vec<_>>().join(",")
}

fn asker(brokers: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "500").set("log_level", "0");
    config.create().expect("a client")
}
