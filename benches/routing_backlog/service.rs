//! The service as a process: started, watched, stopped.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::cluster::{Cluster, Stall, Topics};
use crate::machine::{cpu_seconds, peak_memory, progress, thousands};
use crate::{Guarantee, Load};

pub const SERVICE: &str = env!("CARGO_BIN_EXE_notification-service");
/// Between two looks at the progress of the service.
const LOOK: Duration = Duration::from_millis(10);
/// The service promises its end within 20 s.
const STOP: Duration = Duration::from_secs(30);

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
    let mut service = Service::start(&cluster.settings.brokers, topics.prefix, load.guarantee)?;
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
    let cpu = cpu_seconds(&service.child.id().to_string())?;
    let peak = peak_memory(&service.child.id().to_string())?;
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
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    let status = page.lines().next()?;
    if !status.contains(" 200 ") {
        return None;
    }
    let of_orders = |line: &&str| line.starts_with("kafka_messages_consumed_total{") && line.contains("order-events\"");
    Some(page.lines().filter(of_orders).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// The long names of the keys, which win over the short ones; what else the environment sets is left to experiments.
pub fn service_command(brokers: &str, prefix: &str) -> Command {
    let mut command = Command::new(SERVICE);
    command
        .stdin(Stdio::null())
        .env("NOTIFICATION__KAFKA__BROKERS", brokers)
        .env("NOTIFICATION__KAFKA__PREFIX", prefix);
    command
}

/// The running service, killed when dropped.
pub struct Service {
    child: Child,
    port: u16,
    log: PathBuf,
    /// Its database and its log; removed after the process has ended.
    _folder: tempfile::TempDir,
}

impl Service {
    pub fn start(brokers: &str, prefix: &str, guarantee: Guarantee) -> Result<Self> {
        let guarantee = match guarantee {
            Guarantee::AtLeastOnce => "at_least_once",
            Guarantee::ExactlyOnce => "exactly_once",
        };
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let output = File::create(&log)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = service_command(brokers, prefix)
            .arg("serve")
            .env("NOTIFICATION__DELIVERY__ENABLED", "false")
            .env("NOTIFICATION__ROUTING__GUARANTEE", guarantee)
            .env(
                "NOTIFICATION__DATABASE__URL",
                format!("sqlite://{}", folder.path().join("notifications.db").display()),
            )
            .env("NOTIFICATION__HTTP__ADDRESS", format!("127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{SERVICE} cannot be run"))?;
        Ok(Self { child, port, log, _folder: folder })
    }

    /// Waits until it takes events.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let asked = Instant::now();
        while consumed(self.port).is_none() {
            ensure!(asked.elapsed() < crate::PATIENCE, "it does not answer; its log:\n{}", self.log_tail());
            thread::sleep(LOOK);
        }
        Ok(())
    }

    pub fn stop(&mut self) -> Result<ExitStatus> {
        // The standard library only knows SIGKILL. The number is the child's until it is waited for.
        let id = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", r#"kill -TERM "$0""#, &id]).status()?;
        ensure!(sent.success(), "SIGTERM could not be sent to the service");
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(asked.elapsed() < STOP, "it still runs {STOP:?} after SIGTERM; its log:\n{}", self.log_tail());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
