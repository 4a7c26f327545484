//! Several instances of the service, each with a folder and a database of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::ledger::TOPICS;
use super::settings::Guarantee;
use super::watch::PARTITIONS;
use crate::support::command::Invocation;
use crate::support::kafka::Kafka;
use crate::support::service::Service;
use crate::support::wait::{self, secs};

/// Partitions that the instances share among themselves.
const SHARED: usize = TOPICS.len() * PARTITIONS as usize;

pub struct Fleet {
    folder: PathBuf,
    env: Vec<(&'static str, String)>,
    /// Each instance keeps its name over restarts.
    named: bool,
    /// By the number of its slot.
    members: BTreeMap<usize, Service>,
}

/// How an instance ended that was asked to.
pub type ExitCode = Option<i32>;

impl Fleet {
    /// Without an instance yet. They reach Kafka by the addresses given here.
    pub fn new(folder: &Path, brokers: &str, kafka: &Kafka, guarantee: Guarantee) -> Self {
        let env = vec![
            ("KAFKA_BROKERS", brokers.to_owned()),
            ("NOTIFICATION__KAFKA__PREFIX", kafka.prefix.clone()),
            ("NOTIFICATION__ROUTING__GUARANTEE", guarantee.as_str().to_owned()),
            ("NOTIFICATION__DELIVERY__ENABLED", "false".to_owned()),
            ("NOTIFICATION__MONITOR__INTERVAL_MS", "1000".to_owned()),
            ("DATABASE_URL", "sqlite://notifications.db".to_owned()),
        ];
        Self { folder: folder.to_owned(), env, named: false, members: BTreeMap::new() }
    }

    /// With `kafka.instance_id`, so that a restart moves no partitions.
    pub fn with_names(self) -> Self {
        Self { named: true, ..self }
    }

    /// De-duplicating with this Redis.
    pub fn with_redis(mut self, url: &str) -> Self {
        self.env.push(("REDIS_URL", url.to_owned()));
        self.env.push(("NOTIFICATION__ROUTING__DEDUP__STORE", "redis".to_owned()));
        self
    }

    /// Creates the topics, with so many replicas.
    #[track_caller]
    pub fn create_topics(&self, replicas: usize) {
        let create = self.command(0, &["topics", "create"]);
        create.env("NOTIFICATION__KAFKA__REPLICATION_FACTOR", &replicas.to_string()).run(secs(60)).expect_code(0);
    }

    /// The slot that a step of the plan hits.
    pub fn victim(&self, number: usize) -> usize {
        *self.members.keys().nth(number % self.members.len()).expect("it has members")
    }

    /// An instance that runs.
    pub fn member(&self, slot: usize) -> &Service {
        &self.members[&slot]
    }

    /// Starts an instance and waits for nothing.
    pub fn start(&mut self, slot: usize) {
        let before = self.members.insert(slot, Service::spawn(self.command(slot, &["serve"])));
        assert!(before.is_none(), "slot {slot} was free");
    }

    /// SIGKILL.
    #[track_caller]
    pub fn kill(&mut self, slot: usize) -> ExitStatus {
        self.members.remove(&slot).expect("it runs").kill()
    }

    /// SIGTERM; returns once it ended.
    #[track_caller]
    pub fn stop(&mut self, slot: usize) -> ExitCode {
        let mut service = self.members.remove(&slot).expect("it runs");
        service.terminate();
        service.wait_for_exit(secs(30)).code()
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, slot: usize, signal: &str) {
        self.members[&slot].signal(signal);
    }

    /// Starts or stops instances until there are so many; how those ended that were asked to.
    #[track_caller]
    pub fn resize(&mut self, size: usize) -> Vec<ExitCode> {
        let surplus: Vec<usize> = self.members.keys().copied().skip(size).collect();
        let codes = surplus.into_iter().map(|slot| self.stop(slot)).collect();
        let free: Vec<usize> = (0..size).filter(|slot| !self.members.contains_key(slot)).collect();
        free.into_iter().for_each(|slot| self.start(slot));
        codes
    }

    /// Replaces every instance by SIGTERM and a start, one after the other.
    #[track_caller]
    pub fn roll(&mut self, mut before_each: impl FnMut()) {
        for number in 0..self.members.len() {
            before_each();
            let slot = self.victim(number);
            assert_eq!(self.stop(slot), Some(0), "an orderly end");
            self.start(slot);
            self.wait_until_shared();
        }
    }

    /// Waits until the instances have all partitions among them, none of them too few.
    #[track_caller]
    pub fn wait_until_shared(&self) {
        let shared = || {
            let shares: Vec<usize> = self.members.values().map(partitions_of).collect();
            let fair = shares.iter().all(|share| *share >= TOPICS.len());
            (fair && shares.iter().sum::<usize>() == SHARED).then_some(())
        };
        wait::until("the instances share the partitions", secs(60), shared);
    }

    /// True once the others have all partitions of this one.
    pub fn others_take_over(&self, slot: usize) -> bool {
        let others = || self.members.iter().filter(|(other, _)| **other != slot);
        let held = || others().map(|(_, service)| partitions_of(service)).sum::<usize>();
        wait::until_or_end(secs(20), || (held() == SHARED).then_some(())).is_some()
    }

    fn command(&self, slot: usize, args: &[&str]) -> Invocation {
        let folder = self.folder.join(format!("instance-{slot}"));
        fs::create_dir_all(&folder).expect("a folder");
        let mut command = Invocation::new(&folder, args);
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        if self.named { command.env("NOTIFICATION__KAFKA__INSTANCE_ID", &format!("instance-{slot}")) } else { command }
    }
}

/// How many partitions of input an instance has, by its own account.
fn partitions_of(service: &Service) -> usize {
    let Ok(answer) = service.try_get("/api/v1/system") else { return 0 };
    if answer.status != 200 {
        return 0;
    }
    let groups = answer.json()["consumerGroups"].as_array().cloned().unwrap_or_default();
    let of_letters = |id: &str| id.ends_with("notification-service-dead-letters");
    let routing = groups.iter().filter(|group| !group["group"].as_str().is_some_and(of_letters));
    routing.filter_map(|group| group["assignment"].as_array()).map(Vec::len).sum()
}
