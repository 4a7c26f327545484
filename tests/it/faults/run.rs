//! A run: input, faults and recoveries, and in the end the verdict.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::inject::Fault;
use super::plan::{Kind, Plan, Step};
use super::probe::Probes;
use super::progress::Progress;
use super::report::Report;
use super::settings::Settings;
use super::stage::Stage;
use super::tally::Tally;
use crate::support::wait::secs;

/// The contract: one recovery time-out (`breaker.recovery_timeout_ms`) and 10 s after a fault's end all goes on.
pub const RECOVERY: Duration = secs(20);
/// A recovery that takes longer is measured, up to this; then the run fails at once.
const PATIENCE: Duration = secs(180);

/// What is known about the faults of one kind.
#[derive(Debug, Default, Clone)]
pub struct Record {
    pub injected: u32,
    pub took_effect: u32,
    /// From the ends of its faults to the requests of probes on every partition.
    pub stalls: Vec<Duration>,
}

pub type Records = BTreeMap<Kind, Record>;

/// Runs it and judges it.
#[track_caller]
pub fn run(settings: &Settings) {
    let scratch = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let mut stage = Stage::set(settings.folder.as_deref().unwrap_or(scratch.path()), settings);
    let progress = Progress::start(settings, &stage);
    let records = faults(settings, &mut stage, &progress);
    progress.now("draining");
    let fed = began.elapsed();
    let tally = finish(stage);
    progress.stop();
    let report = Report { settings, records, tally, fed, took: began.elapsed() };
    report.print();
    report.write();
    report.judge();
}

/// Faults one after the other, until time and input are used up and each kind had its turn.
#[track_caller]
fn faults(settings: &Settings, stage: &mut Stage, progress: &Progress) -> Records {
    let (began, mut records) = (Instant::now(), Records::new());
    for step in Plan::new(settings.seed, &settings.kinds) {
        let each_had_its_turn = records.len() == settings.kinds.len();
        let enough = began.elapsed() >= settings.length && stage.feeder.feed.appended() >= settings.events;
        if each_had_its_turn && enough {
            break;
        }
        progress.begins(&step);
        let fault = stage.inject(&step);
        progress.now("recovering");
        let stall = recovery(stage, &fault);
        progress.ends(&step, &fault, stall);
        let record = records.entry(step.kind).or_default();
        record.injected += 1;
        record.took_effect += u32::from(fault.took_effect);
        record.stalls.push(stall);
        rest(stage, &step);
    }
    records
}

/// From the fault's end until what was appended after it has come out, on every partition.
#[track_caller]
fn recovery(stage: &Stage, fault: &Fault) -> Duration {
    let probes = Probes::send(&stage.feeder.feed);
    probes.wait_for_last(&stage.watch, PATIENCE) - fault.healed
}

/// The next fault meets a whole system: there are never two at once.
#[track_caller]
fn rest(stage: &Stage, step: &Step) {
    stage.cluster.wait_until_whole();
    stage.fleet.wait_until_shared();
    std::thread::sleep(step.rest);
}

/// Waits until all that was fed is routed, and counts.
#[track_caller]
fn finish(mut stage: Stage) -> Tally {
    let ledger = stage.feeder.finish();
    stage.kafka.wait_until_routed(secs(300));
    let codes = stage.fleet.resize(0);
    assert!(codes.iter().all(|code| *code == Some(0)), "every instance ends with exit code 0: {codes:?}");
    Tally::of(&stage.kafka, ledger)
}
