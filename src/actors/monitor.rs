//! The monitor: asks every dependency whether it answers, measures lag and topic depth, and keeps the picture that
//! `/health` shows, so that the answer never waits for anything that is down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context};
use metrics::gauge;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::consumer_group::ConsumerGroupActor;
use super::messages::{GroupStatus, Rebuild};
use super::slot::Slot;
use super::supervisor::Lifeline;
use super::tasks::{Task, Tasks};
use crate::consume::stall::{HeadWatch, Stall, StallWatch};
use crate::ports::clock::SharedClock;
use crate::ports::cluster::ClusterView;
use crate::ports::probe::Probe;
use crate::ports::source::{PartitionStatus, SourceStatus};
use crate::telemetry::events;
use crate::telemetry::metric_definitions::{HEAD_OF_LINE, LAG, TOPIC_MESSAGES};

/// A dependency as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyHealth {
    /// Whether it answered.
    pub up: bool,
    /// Why not, in words.
    pub problem: Option<String>,
}

/// A consumer group as it was last seen.
#[derive(Debug, Clone, Default)]
pub struct GroupHealth {
    /// Where its source stands; `None` while its actor is being rebuilt.
    pub source: Option<SourceStatus>,
    /// Records waiting, by topic and partition.
    pub lag: BTreeMap<(String, i32), i64>,
}

/// The whole picture.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// By name: `kafka`, `database`, `redis`.
    pub dependencies: BTreeMap<String, DependencyHealth>,
    /// By group id.
    pub groups: BTreeMap<String, GroupHealth>,
    /// Topics whose depth is known.
    pub topics: usize,
}

/// What the monitor works with.
#[derive(Clone)]
pub struct MonitorDuty {
    /// Dependencies by name.
    pub probes: Vec<(String, Arc<dyn Probe>)>,
    /// The topics and their partitions.
    pub topics: Vec<(Arc<str>, i32)>,
    /// A look at them.
    pub cluster: Arc<dyn ClusterView>,
    /// The groups by id.
    pub groups: Vec<(String, Slot<ConsumerGroupActor>)>,
    /// Between two looks.
    pub interval: Duration,
    /// A group that stands still for so long is rebuilt.
    pub stall_after: Duration,
    /// Time.
    pub clock: SharedClock,
    /// A question is given up after this time.
    pub deadline: Duration,
    /// Where the picture goes.
    pub picture: watch::Sender<Picture>,
}

/// See the module.
pub struct MonitorActor {
    duty: MonitorDuty,
    io: Handle,
    lifeline: Lifeline,
    tasks: Option<Tasks>,
}

impl MonitorActor {
    /// The monitor over its duty.
    pub fn new(duty: MonitorDuty, io: Handle, lifeline: Lifeline) -> Self {
        Self { duty, io, lifeline, tasks: None }
    }
}

impl Actor for MonitorActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Two loops: a cluster that answers slowly must not delay the news that it is down.
        let (probing, measuring) = (self.duty.clone(), self.duty.clone());
        let tasks: Vec<Task> = vec![
            Box::pin(async move {
                loop {
                    probing.probe().await;
                    tokio::time::sleep(probing.interval).await;
                }
            }),
            Box::pin(async move {
                let mut watches = (StallWatch::new(measuring.stall_after), HeadWatch::default());
                loop {
                    measuring.measure(&mut watches).await;
                    tokio::time::sleep(measuring.interval).await;
                }
            }),
        ];
        self.tasks =
            Some(Tasks::of_actor(self, context, |a| &mut a.lifeline, &self.io, tasks, CancellationToken::new()));
    }
}

impl MonitorDuty {
    /// Asks all dependencies at once.
    async fn probe(&self) {
        let asked = self.probes.iter().map(|(name, probe)| async move {
            // Twice the deadline: a probe that does not keep its own is cut off here.
            let answer = tokio::time::timeout(self.deadline * 2, probe.check(self.deadline)).await;
            (name, answer.unwrap_or_else(|_| Err("no answer".to_owned())))
        });
        for (name, answer) in futures::future::join_all(asked).await {
            let health = DependencyHealth { up: answer.is_ok(), problem: answer.err() };
            let problem = health.problem.clone().unwrap_or_default();
            let mut before = None;
            let up = health.up;
            self.picture.send_modify(|picture| before = picture.dependencies.insert(name.clone(), health));
            if before.is_some_and(|b| b.up != up) {
                events::dependency_changed(name, up, &problem);
            }
        }
    }

    /// Measures depth and lag.
    async fn measure(&self, (stalls, heads): &mut (StallWatch, HeadWatch)) {
        let mut ends: BTreeMap<(String, i32), i64> = BTreeMap::new();
        let mut starts: BTreeMap<(String, i32), i64> = BTreeMap::new();
        let mut topics = 0;
        for (topic, partitions) in &self.topics {
            match self.cluster.offsets(topic, *partitions, self.deadline).await {
                Ok(offsets) => {
                    topics += 1;
                    let depth: i64 = offsets.iter().map(|(start, end)| end - start).sum();
                    gauge!(TOPIC_MESSAGES, "topic" => topic.to_string()).set(depth as f64);
                    for (partition, (start, end)) in offsets.into_iter().enumerate() {
                        starts.insert((topic.to_string(), partition as i32), start);
                        ends.insert((topic.to_string(), partition as i32), end);
                    }
                }
                Err(error) => {
                    tracing::debug!(topic = &**topic, error, "topic depth is unknown");
                }
            }
        }
        for (group, slot) in &self.groups {
            let source = slot.send(GroupStatus).await.flatten();
            let lag = source.as_ref().map(|s| lag_of(group, s, &starts, &ends)).unwrap_or_default();
            if let Some(source) = &source {
                self.forget_lag(group, source);
                show_heads(group, source, heads);
                // What is left for other consumers is no reason for this one to move.
                let left = source.assigned.iter().filter(|p| !p.at_end);
                let waiting = left.filter_map(|p| lag.get(&(p.topic.clone(), p.partition))).sum();
                let reachable = topics == self.topics.len();
                if let Some(stall) = stalls.look(group, source, reachable, waiting, self.clock.monotonic()) {
                    let why = match stall {
                        Stall::Standstill(still) => {
                            format!("it stood still for {} s while {waiting} records waited", still.as_secs())
                        }
                        Stall::Outside(outside) => {
                            format!("it has had no part in its group for {} s", outside.as_secs())
                        }
                        Stall::Hung(hung) => format!("its consumer has not answered for {} s", hung.as_secs()),
                    };
                    events::group_stalled(group, &why);
                    slot.send(Rebuild(why)).await;
                }
            }
            self.picture.send_modify(|picture| {
                let health = picture.groups.entry(group.clone()).or_default();
                if !lag.is_empty() || source.is_none() {
                    health.lag = lag;
                }
                health.source = source;
            });
        }
        self.picture.send_modify(|picture| picture.topics = topics);
    }
}

impl MonitorDuty {
    /// A partition that moved to another instance is that instance's to report.
    fn forget_lag(&self, group: &str, source: &SourceStatus) {
        let known = self.picture.borrow().groups.get(group).map(|g| g.lag.clone()).unwrap_or_default();
        for (topic, partition) in known.into_keys() {
            let owned = source.assigned.iter().any(|p| p.topic == topic && p.partition == partition);
            if !owned {
                lag_gauge(group, &topic, partition).set(0.0);
            }
        }
    }
}

/// Shows for how long each partition's oldest record in hand has held the others back.
fn show_heads(group: &str, source: &SourceStatus, heads: &mut HeadWatch) {
    for partition in &source.assigned {
        let age = partition.head.map_or(Duration::ZERO, |(_, age)| age);
        let number = partition.partition.to_string();
        gauge!(
            HEAD_OF_LINE, "topic" => partition.topic.clone(), "partition" => number, "consumer_group" => group.to_owned()
        )
        .set(age.as_secs_f64());
        if let Some((offset, age)) = heads.look(group, partition) {
            let (topic, partition) = (&partition.topic, partition.partition);
            tracing::warn!(
                group,
                topic,
                partition,
                offset,
                held_s = age.as_secs(),
                "a record holds its partition back"
            );
        }
    }
}

fn lag_gauge(group: &str, topic: &str, partition: i32) -> metrics::Gauge {
    gauge!(
        LAG,
        "topic" => topic.to_owned(), "partition" => partition.to_string(), "consumer_group" => group.to_owned()
    )
}

/// Records between a partition's position and its end, where that is known. Without a position yet, all are.
fn waiting(partition: &PartitionStatus, source: &SourceStatus, start: Option<&i64>, end: Option<&i64>) -> Option<i64> {
    let end = end?;
    if partition.at_end && source.paused.is_empty() {
        return Some(0);
    }
    let position = partition.position.or(partition.committed).or(start.copied()).unwrap_or(*end);
    Some((end - position).max(0))
}

/// The lag of what this instance owns.
fn lag_of(
    group: &str,
    source: &SourceStatus,
    starts: &BTreeMap<(String, i32), i64>,
    ends: &BTreeMap<(String, i32), i64>,
) -> BTreeMap<(String, i32), i64> {
    let mut lag = BTreeMap::new();
    for partition in &source.assigned {
        let at = (partition.topic.clone(), partition.partition);
        let Some(waiting) = partition.lag.or_else(|| waiting(partition, source, starts.get(&at), ends.get(&at))) else {
            continue;
        };
        lag_gauge(group, &at.0, at.1).set(waiting as f64);
        lag.insert(at, waiting);
    }
    lag
}
