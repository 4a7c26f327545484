//! How fast the delivery stage sends, beside the fastest that the database could do, and how long a notification takes.
//! The program measures and prints, and judges only whether every notification was accepted exactly once.
//!
//!     scripts/bench-delivery.sh [--drain] [--events N] [--settled N] [--rounds R] [--database postgres|sqlite|both]
//!     scripts/bench-delivery.sh --http [--events N] [--rounds R] [--database …]
//!     scripts/bench-delivery.sh --latency [--rate R] [--seconds S] [--database …]
//!     scripts/bench-delivery.sh --partition [--rounds R] [--database …]
//!
//! `--drain`: in each round, in odd ones in this order and in even ones the other way round, each on a fresh database:
//!
//! - bare: statements of 500 rows each on one connection: insert, claim with the attempt row, settle. Their combined
//!   rate is the one of claiming and settling one after the other.
//! - drain: the notifications are put into the ledger; then the service's own lane, lease keeper and outbox relay, with
//!   the default configuration, send them through a provider that accepts at once, with templates, attempts and
//!   lifecycle events, which a publisher takes that acknowledges at once. It ends when the outbox is empty.
//!
//! The drain has a process of its own. CPU is that of this process, which has SQLite within itself, and PostgreSQL not.
//! Memory is the most that was resident during the drain above what was before it.
//!
//! `--settled N` fills the ledger with notifications of the past before.
//!
//! `--http`: the same with the `http` provider and a server on loopback, whose thread is part of the CPU time.
//!
//! `--latency`: `serve` on a real Kafka with the `http` provider, events at a steady pace; from the event's publication
//! to its notification's arrival at the provider.
//!
//! `--partition`: 10,000 events on one partition, to a provider that takes a time that is uniform between 0 and 5 ms;
//! from the first publication to the last acceptance, with the service warm.

mod alone;
mod backlog;
mod bare;
#[allow(dead_code, reason = "this benchmark needs a part of it")]
#[path = "../routing_backlog/cluster.rs"]
mod cluster;
mod database;
mod drain;
mod live;
#[allow(dead_code, reason = "this benchmark needs a part of it")]
#[path = "../routing_backlog/machine.rs"]
mod machine;
mod memory;
mod options;
#[allow(dead_code, reason = "this benchmark needs a part of it")]
#[path = "../routing_backlog/produce.rs"]
mod produce;
mod provider;
mod round;
mod server;
#[path = "../routing_backlog/service.rs"]
mod service;
mod sinks;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use notification_service::telemetry::metrics_server::MetricsPage;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use self::cluster::Cluster;
use self::live::{Pace, Times};
use self::machine::{machine, median, progress, thousands};
use self::options::Options;
use self::round::Round;
use self::server::Answers;

/// The service's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever makes no progress for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one question to the cluster.
const ANSWER: Duration = Duration::from_secs(10);
/// Of the provider, with --partition.
const SLOWEST_ANSWER: Duration = Duration::from_millis(5);
const PARTITION_EVENTS: u64 = 10_000;

/// Set by SIGINT and SIGTERM. Every loop ends, and what was started is ended on the way out.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benchmarks too, without this flag and with the filters of the tests.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("delivery_backlog: measures only under `cargo bench`, see scripts/bench-delivery.sh");
        return ExitCode::SUCCESS;
    }
    // As in the service.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let options = Options::parse();
    let warnings = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr);
    warnings.init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("no runtime").and_then(|runtime| run(&options, &runtime)) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("WRONG: {problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("delivery_backlog: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first signal ends the work in an orderly way, a second one the process.
fn heed_signals() -> Result<()> {
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

fn run(options: &Options, runtime: &Runtime) -> Result<Vec<String>> {
    runtime.block_on(async { heed_signals() })?;
    if let Some(url) = &options.drain_of {
        let alone = async {
            // The service counts while it works.
            tokio::spawn(MetricsPage::install()?.upkeep());
            alone::work(url, options.work()).await
        };
        println!("{}", serde_json::to_string(&runtime.block_on(alone)?)?);
        return Ok(Vec::new());
    }
    println!("machine  {}", machine());
    if options.latency || options.partition {
        live(options, runtime)?;
        return Ok(Vec::new());
    }
    runtime.block_on(backlogs(options))
}

async fn backlogs(options: &Options) -> Result<Vec<String>> {
    println!("backlog  {} due e-mails", thousands(options.events));
    if options.settled > 0 {
        println!("ledger   {} settled notifications before", thousands(options.settled));
    }
    println!("provider {}", if options.http { "http, to a server on loopback" } else { "none: accepts at once" });
    let mut problems = Vec::new();
    for kind in options.databases() {
        println!("\n{}", kind.name());
        round::print_heads();
        let mut rounds = Vec::new();
        for number in 1..=options.rounds {
            let round = round::measure(kind, number, options.work());
            let round = round.await.with_context(|| format!("{}, round {number}", kind.name()))?;
            round.print(&number.to_string());
            rounds.push(round);
        }
        Round::medians(&rounds).print("median");
        problems.extend(rounds.into_iter().flat_map(|round| round.problems));
    }
    Ok(problems)
}

fn live(options: &Options, runtime: &Runtime) -> Result<()> {
    let brokers = std::env::var("TEST_KAFKA_BROKERS")
        .context("TEST_KAFKA_BROKERS is not set: run scripts/bench-delivery.sh, which starts a Kafka")?;
    let cluster = Cluster::new(brokers)?;
    println!("kafka    {}", cluster.settings.brokers);
    for kind in options.databases() {
        if options.latency {
            let events = u64::from(options.rate) * options.seconds;
            let times = live::run(runtime, &cluster, kind, Pace::Steady(options.rate), Answers::AtOnce, events)?;
            print_latency(kind.name(), options.rate, &times);
            continue;
        }
        let mut lasted = Vec::new();
        for number in 1..=options.rounds {
            let answers = Answers::Within(SLOWEST_ANSWER);
            let times = live::run(runtime, &cluster, kind, Pace::OnePartition, answers, PARTITION_EVENTS)?;
            let seconds = elapsed(&times).as_secs_f64();
            progress(&format!("{}, round {number}: {seconds:.3} s", kind.name()));
            lasted.push(seconds);
        }
        let single: Vec<String> = lasted.iter().map(|seconds| format!("{seconds:.3}")).collect();
        println!(
            "{:<8}  {} events on one partition, provider 0 to {} ms: all accepted in {:.3} s (rounds: {})",
            kind.name(),
            thousands(PARTITION_EVENTS),
            SLOWEST_ANSWER.as_millis(),
            median(lasted).unwrap_or_default(),
            single.join(", ")
        );
    }
    Ok(())
}

/// From the first publication to the last acceptance.
fn elapsed(times: &Times) -> Duration {
    let first: Option<&Instant> = times.published.iter().min();
    let last: Option<&Instant> = times.accepted.iter().max();
    first.zip(last).map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(*first))
}

fn print_latency(database: &str, rate: u32, times: &Times) {
    let pairs = times.published.iter().zip(&times.accepted);
    let mut all: Vec<f64> =
        pairs.map(|(from, to)| to.saturating_duration_since(*from).as_secs_f64() * 1000.0).collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
    println!(
        "{database:<8}  {} events at {rate}/s, event to acceptance in ms: p50 {:.1}  p95 {:.1}  p99 {:.1}  max {:.1}; \
         CPU {:.2} s, peak {:.0} MB",
        thousands(all.len() as u64),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0),
        times.cpu,
        times.peak as f64 / 1e6
    );
}
