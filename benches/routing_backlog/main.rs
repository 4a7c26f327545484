//! How fast the routing stage works off a backlog, beside the fastest that this machine could do: a bare librdkafka
//! loop that copies the same records. Both run on a real Kafka, in turn, round by round; the program measures and
//! prints, and judges only whether every event arrived.
//!
//!     scripts/bench-routing.sh [--events N] [--rounds R] [--guarantee exactly_once] [--per-transaction N]
//!     scripts/bench-routing.sh --latency [--rate R] [--seconds S] [--guarantee exactly_once]
//!
//! A round has topics and groups of its own. It feeds `order-events`, then measures, in odd rounds in this order and
//! in even ones the other way round:
//!
//! - bare: from the first record polled to the last copy acknowledged. The producer has the service's settings, the
//!   consumer librdkafka's, but for the second that it rests by default whenever it has fetched ahead enough.
//! - service: `serve` without delivery, from the first request visible on `notification-events` to the last. Begin and
//!   end are taken from looks a few milliseconds apart, and rounded against the service.
//!
//! `from consumed` is the service's rate from the first record that it counted as consumed instead. CPU times are
//! seconds for a million events; the service's includes its start. Its peak is the most memory it ever had resident.
//!
//! With `--latency` events come at a steady pace instead, and the times from an event's append to its request's append
//! and to a read_committed reader are printed.
//!
//! With `--guarantee exactly_once` the bare loop commits records and offsets in transactions, and the end of the service
//! is the commit of its last offset. Its rate is then the one from consumed: its first commit is not its begin.

mod bare;
mod cluster;
mod count;
mod latency;
mod machine;
mod produce;
mod round;
mod routing;
mod service;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::cluster::Cluster;
use self::machine::{machine, print_row, thousands};
use self::produce::event;
use self::round::{Round, measure_round};

/// The service's: what a bare loop does is above all to allocate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever makes no progress for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one question to the cluster.
const ANSWER: Duration = Duration::from_secs(10);

/// Set by SIGINT and SIGTERM. Every loop ends, and what was started is ended on the way out.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What holds between an event and its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Guarantee {
    AtLeastOnce,
    ExactlyOnce,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Load {
    events: u64,
    guarantee: Guarantee,
    per_transaction: u64,
}

/// Measures how fast the service routes a backlog, beside a bare librdkafka copy loop.
#[derive(Parser)]
#[command(name = "routing_backlog")]
struct Options {
    /// Events in the backlog of each round.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Rounds, each of which measures both.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// What the service guarantees, and what the bare loop does: copy, or copy in transactions.
    #[arg(long, value_enum, default_value_t = Guarantee::AtLeastOnce)]
    guarantee: Guarantee,
    /// Records in each transaction of the bare loop.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    per_transaction: u64,
    /// Measures times at a steady pace instead.
    #[arg(long)]
    latency: bool,
    /// Events a second, with --latency.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Seconds of measuring, with --latency.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benchmarks too, without this flag and with the filters of the tests.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("routing_backlog: measures only under `cargo bench`, see scripts/bench-routing.sh");
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    match heed_signals().and_then(|()| run(&options)) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("WRONG: {problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("routing_backlog: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first signal ends the work in an orderly way, a second one the process.
fn heed_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut int, mut term) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
                if INTERRUPTED.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

fn run(options: &Options) -> Result<Vec<String>> {
    let brokers = std::env::var("TEST_KAFKA_BROKERS")
        .context("TEST_KAFKA_BROKERS is not set: run scripts/bench-routing.sh, which starts a Kafka")?;
    let cluster = Cluster::new(brokers)?;
    println!("kafka    {}", cluster.settings.brokers);
    println!("machine  {}", machine());
    if options.latency {
        println!("mode     {:?}", options.guarantee);
        latency::measure(&cluster, options.guarantee, options.rate, options.seconds)?;
        return Ok(Vec::new());
    }
    println!(
        "backlog  {} OrderCreated events of about {} bytes",
        thousands(options.events),
        event(1_000_000).value.len()
    );
    match options.guarantee {
        Guarantee::AtLeastOnce => println!("mode     at least once"),
        Guarantee::ExactlyOnce => {
            println!(
                "mode     exactly once; the bare loop commits every {} records",
                thousands(options.per_transaction)
            );
        }
    }
    println!();
    let heads =
        ["round", "bare msg/s", "service msg/s", "ratio", "from consumed", "bare CPU", "service CPU", "peak MB"];
    print_row(heads.map(str::to_owned));
    let mut rounds = Vec::new();
    let load = Load { events: options.events, guarantee: options.guarantee, per_transaction: options.per_transaction };
    for number in 1..=options.rounds {
        let round = measure_round(&cluster, number, load).with_context(|| format!("round {number}"))?;
        round.print(&number.to_string());
        rounds.push(round);
    }
    Round::medians(&rounds).print("median");
    Ok(rounds.into_iter().flat_map(|round| round.problems).collect())
}
