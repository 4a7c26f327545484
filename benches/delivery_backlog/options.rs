//! The command line.

use clap::Parser;

use crate::database::Kind;
use crate::provider::Target;
use crate::round::Work;

/// Which databases are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Databases {
    Postgres,
    Sqlite,
    Both,
}

/// Measures how fast the delivery stage sends, beside a bare loop of batched statements.
#[derive(Parser)]
#[command(name = "delivery_backlog")]
pub struct Options {
    /// Works off a backlog through a provider that accepts at once: the default.
    #[arg(long, conflicts_with_all = ["http", "latency", "partition"])]
    pub drain: bool,
    /// The same through the `http` provider to a server on loopback.
    #[arg(long, conflicts_with_all = ["latency", "partition"])]
    pub http: bool,
    /// Measures the time from event to acceptance at a steady pace instead.
    #[arg(long, conflicts_with = "partition")]
    pub latency: bool,
    /// Measures 10,000 events on one partition with a provider of 0 to 5 ms instead.
    #[arg(long)]
    pub partition: bool,
    /// Notifications in the backlog of each round.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub events: u64,
    /// Settled notifications that are in the ledger before, with --drain and --http.
    #[arg(long, default_value_t = 0)]
    pub settled: u64,
    /// Rounds on each database.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Which database.
    #[arg(long, value_enum, default_value_t = Databases::Both)]
    pub database: Databases,
    /// delivery.batch and delivery.max_in_flight of a drain; those of the default configuration unless given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub batch: Option<u32>,
    /// Events a second, with --latency.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// Seconds of measuring, with --latency.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Drains this ledger and says in JSON what that took: for the program itself.
    #[arg(long, hide = true)]
    pub drain_of: Option<String>,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// What a round is to do.
    pub fn work(&self) -> Work {
        let target = if self.http { Target::Http } else { Target::Nothing };
        Work { events: self.events, settled: self.settled, target, batch: self.batch }
    }

    pub fn databases(&self) -> Vec<Kind> {
        match self.database {
            Databases::Postgres => vec![Kind::Postgres],
            Databases::Sqlite => vec![Kind::Sqlite],
            Databases::Both => vec![Kind::Postgres, Kind::Sqlite],
        }
    }
}
