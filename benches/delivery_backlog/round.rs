//! One round on one database: the service's drain and the bare loop, each on a fresh database, in turn.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::alone::{self, Alone};
use crate::backlog::Backlog;
use crate::bare::{self, Bare};
use crate::database::{Contents, Fresh, Kind};
use crate::drain::Stage;
use crate::machine::{median, progress, thousands};
use crate::provider::Target;

/// Rates in notifications a second, CPU in seconds for a million, memory in bytes.
pub struct Round {
    insert: f64,
    drained: f64,
    bare_insert: f64,
    bare_claim: f64,
    bare_settle: f64,
    /// One after the other.
    bare_both: f64,
    ratio: f64,
    cpu: f64,
    memory: f64,
    pub problems: Vec<String>,
}

const HEADS: [&str; 10] = [
    "round",
    "insert/s",
    "drained/s",
    "bare insert/s",
    "bare claim/s",
    "bare settle/s",
    "claim+settle/s",
    "ratio",
    "CPU s/M",
    "MB above idle",
];

pub fn print_heads() {
    print_cells(&HEADS.map(str::to_owned));
}

fn print_cells(cells: &[String; 10]) {
    let cells: Vec<String> =
        cells.iter().zip(HEADS).map(|(cell, head)| format!("{cell:>width$}", width = head.len().max(6))).collect();
    println!("{}", cells.join("  "));
}

impl Round {
    pub fn print(&self, name: &str) {
        let rate = |rate: f64| thousands(rate as u64);
        print_cells(&[
            name.to_owned(),
            rate(self.insert),
            rate(self.drained),
            rate(self.bare_insert),
            rate(self.bare_claim),
            rate(self.bare_settle),
            rate(self.bare_both),
            format!("{:.3}", self.ratio),
            format!("{:.1}", self.cpu),
            format!("{:.0}", self.memory / 1e6),
        ]);
    }

    /// Each column for itself.
    pub fn medians(rounds: &[Self]) -> Self {
        let of = |column: fn(&Self) -> f64| median(rounds.iter().map(column).collect()).unwrap_or_default();
        Self {
            insert: of(|r| r.insert),
            drained: of(|r| r.drained),
            bare_insert: of(|r| r.bare_insert),
            bare_claim: of(|r| r.bare_claim),
            bare_settle: of(|r| r.bare_settle),
            bare_both: of(|r| r.bare_both),
            ratio: of(|r| r.ratio),
            cpu: of(|r| r.cpu),
            memory: of(|r| r.memory),
            problems: Vec::new(),
        }
    }
}

struct Drained {
    insert: Duration,
    drain: Duration,
    cpu: f64,
    memory: u64,
    problems: Vec<String>,
}

/// What a round is to do.
#[derive(Clone, Copy)]
pub struct Work {
    pub events: u64,
    /// In the ledger before.
    pub settled: u64,
    pub target: Target,
    pub batch: Option<u32>,
}

pub async fn measure(kind: Kind, number: u32, work: Work) -> Result<Round> {
    let events = work.events;
    let backlog = Backlog::new(Stage::new(work.batch)?.rules());
    let (bare, drained) = if number % 2 == 1 {
        let bare = measure_bare(kind, &backlog, work).await?;
        (bare, measure_drain(kind, number, &backlog, work).await?)
    } else {
        let drained = measure_drain(kind, number, &backlog, work).await?;
        (measure_bare(kind, &backlog, work).await?, drained)
    };
    let rate = |elapsed: Duration| events as f64 / elapsed.as_secs_f64();
    Ok(Round {
        insert: rate(drained.insert),
        drained: rate(drained.drain),
        bare_insert: rate(bare.insert),
        bare_claim: rate(bare.claim),
        bare_settle: rate(bare.settle),
        bare_both: rate(bare.claim + bare.settle),
        ratio: (bare.claim + bare.settle).as_secs_f64() / drained.drain.as_secs_f64(),
        cpu: drained.cpu * 1e6 / events as f64,
        memory: drained.memory as f64,
        problems: drained.problems,
    })
}

async fn measure_bare(kind: Kind, backlog: &Backlog, work: Work) -> Result<Bare> {
    let fresh = Fresh::create(kind).await?;
    let bare = bare::measure(&fresh, backlog, work).await.context("the bare loop");
    fresh.close().await?;
    bare
}

async fn measure_drain(kind: Kind, number: u32, backlog: &Backlog, work: Work) -> Result<Drained> {
    let fresh = Fresh::create(kind).await?;
    let drained = drain(&fresh, number, backlog, work).await;
    fresh.close().await?;
    drained
}

async fn drain(fresh: &Fresh, number: u32, backlog: &Backlog, work: Work) -> Result<Drained> {
    let Work { events, settled, .. } = work;
    let database = fresh.open().await?;
    fresh.settle(settled).await.context("filling the ledger with the past")?;
    let began = Instant::now();
    backlog.insert(&database, events).await.context("filling the ledger")?;
    let insert = began.elapsed();
    progress(&format!("round {number}: {} notifications due in {:.1} s", thousands(events), insert.as_secs_f64()));
    database.close().await;
    let Alone { seconds, cpu, memory, total, distinct } = alone::drain(&fresh.url, work).await?;
    let drain = Duration::from_secs_f64(seconds);

    let mut problems = Vec::new();
    let (all, past) = (events as i64, settled as i64);
    let found = Contents::read(&mut fresh.connect().await?).await?;
    let expected =
        Contents { notifications: past + all, sent: past + all, accepted_attempts: all, attempts: all, outbox: 0 };
    if found != expected || (total, distinct) != (events, events) {
        let [events, total, distinct] = [events, total, distinct].map(thousands);
        problems.push(format!("round {number}: {events} due, {total} accepted, {distinct} of them distinct; {found}"));
    }
    Ok(Drained { insert, drain, cpu, memory, problems })
}
