//! The routing stage at a backlog: when it began, when it was done, and what it took.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::cluster::{Cluster, Stall, Topics};
use crate::machine::{cpu_seconds, peak_memory, progress, thousands};
use crate::service::{Service, get};
use crate::{Guarantee, Load};

/// Between two looks at the progress of the service.
const LOOK: Duration = Duration::from_millis(10);

pub struct Routing {
    pub elapsed: Duration,
    pub from_consumed: Option<Duration>,
    pub cpu: f64,
    pub peak: u64,
    pub exit: ExitStatus,
}

pub fn route(cluster: &Cluster, topics: &Topics<'_>, load: Load) -> Result<Routing> {
    let requests = topics.requests();
    let partitions = cluster.partitions(&requests)?;
    let orders = cluster.positions_of(&format!("{}notification-service-orders", topics.prefix), &topics.orders())?;
    let progress_made = || match load.guarantee {
        Guarantee::AtLeastOnce => cluster.end_of_partitions(&requests, partitions),
        Guarantee::ExactlyOnce => orders.sum(),
    };
    let mut service = start(cluster, topics.prefix, load.guarantee)?;
    let done = Arc::new(AtomicBool::new(false));
    let consumed = {
        let (port, done) = (service.port, Arc::clone(&done));
        thread::spawn(move || first_consumed(port, &done))
    };
    let watched = watch(&mut service, load.events, progress_made);
    done.store(true, Ordering::Relaxed);
    let first_consumed = consumed.join().map_err(|_| anyhow!("the metrics' reader panicked"))?;
    let (began, ended) = watched.map_err(|error| {
        let letters = cluster.end_of(&topics.dead_letters()).map_or_else(|e| e.to_string(), thousands);
        anyhow!("{error:#}; dead letters: {letters}; the end of its log:\n{}", service.log_tail())
    })?;
    let cpu = cpu_seconds(&service.id())?;
    let peak = peak_memory(&service.id())?;
    let exit = service.stop()?;
    if !exit.success() {
        progress(&format!("the end of the service's log:\n{}", service.log_tail()));
    }
    let from_consumed = first_consumed.map(|first| ended.saturating_duration_since(first));
    let elapsed = match load.guarantee {
        Guarantee::AtLeastOnce => ended - began,
        Guarantee::ExactlyOnce => from_consumed.context("the service did not say when it began")?,
    };
    Ok(Routing { elapsed, from_consumed, cpu, peak, exit })
}

/// The last moment at which nothing was done, and the first at which all was.
fn watch(service: &mut Service, events: u64, progress_made: impl Fn() -> Result<u64>) -> Result<(Instant, Instant)> {
    let mut stall = Stall::new();
    let mut began = Instant::now();
    loop {
        let asked = Instant::now();
        let done = progress_made()?;
        if done >= events {
            return Ok((began, Instant::now()));
        }
        if done == 0 {
            began = asked;
        }
        stall.check(done)?;
        if let Some(status) = service.child.try_wait()? {
            bail!("it ended by itself with {status}");
        }
        thread::sleep(LOOK);
    }
}

/// The last moment before the service counted its first record; it is asked no more after that.
fn first_consumed(port: u16, done: &AtomicBool) -> Option<Instant> {
    let mut before = None;
    while !done.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match consumed(port) {
            Some(0.0) => before = Some(asked),
            Some(_) => return before,
            None => {}
        }
        thread::sleep(LOOK);
    }
    None
}

/// How many orders the service has consumed by its own count; `None` while it does not answer.
fn consumed(port: u16) -> Option<f64> {
    let page = get(port, "/metrics")?;
    let of_orders = |line: &&str| line.starts_with("kafka_messages_consumed_total{") && line.contains("order-events\"");
    Some(page.lines().filter(of_orders).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// The service with the routing stage alone.
pub fn start(cluster: &Cluster, prefix: &str, guarantee: Guarantee) -> Result<Service> {
    let guarantee = match guarantee {
        Guarantee::AtLeastOnce => "at_least_once",
        Guarantee::ExactlyOnce => "exactly_once",
    };
    let settings = [
        ("NOTIFICATION__DELIVERY__ENABLED", "false"),
        ("NOTIFICATION__ROUTING__GUARANTEE", guarantee),
        ("NOTIFICATION__DATABASE__URL", "sqlite://notifications.db"),
    ];
    Service::start(&cluster.settings.brokers, prefix, "", &settings)
}
