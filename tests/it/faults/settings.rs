//! What a run is asked to do: a short one by a test, a long one by `scripts/faults.sh`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::plan::Kind;

/// What the service promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    AtLeastOnce,
    ExactlyOnce,
}

impl Guarantee {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at_least_once",
            Self::ExactlyOnce => "exactly_once",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub guarantee: Guarantee,
    /// One, or three with three replicas of each partition.
    pub brokers: usize,
    pub seed: u64,
    /// Each has its turn at least once.
    pub kinds: Vec<Kind>,
    /// Faults go on for so long.
    pub length: Duration,
    /// The input has at least so many events.
    pub events: u64,
    /// Events a second.
    pub rate: u64,
    /// Where the result is written, as JSON.
    pub report: Option<PathBuf>,
    /// Where logs and data are left behind; else they go with the run.
    pub folder: Option<PathBuf>,
}

impl Settings {
    /// One turn of these faults, on one broker.
    pub fn short(guarantee: Guarantee, seed: u64, kinds: &[Kind]) -> Self {
        Self {
            guarantee,
            brokers: 1,
            seed,
            kinds: kinds.to_vec(),
            length: Duration::ZERO,
            events: 0,
            rate: 400,
            report: None,
            folder: None,
        }
    }

    pub fn on_brokers(self, brokers: usize) -> Self {
        Self { brokers, ..self }
    }

    /// The same with what `scripts/faults.sh` says in the environment: `FAULTS_SEED`, `FAULTS_FOLDER`, and for a long run
    /// with all kinds of faults `FAULTS_MINUTES`, `FAULTS_BROKERS`, `FAULTS_EVENTS`, `FAULTS_DEDUP=redis`,
    /// `FAULTS_REPORT`.
    pub fn or_as_asked(mut self) -> Self {
        self.seed = variable("FAULTS_SEED").unwrap_or(self.seed);
        self.folder = variable("FAULTS_FOLDER");
        let Some(minutes) = variable::<f64>("FAULTS_MINUTES") else { return self };
        self.length = Duration::from_secs_f64(minutes * 60.0);
        self.brokers = variable("FAULTS_BROKERS").unwrap_or(3);
        self.events = variable("FAULTS_EVENTS").unwrap_or(0);
        let with_redis = variable::<String>("FAULTS_DEDUP").is_some_and(|store| store == "redis");
        self.kinds = Kind::all(self.brokers, with_redis);
        // A little faster than needed: nothing is fed while the last records are drained.
        self.rate = self.rate.max((self.events as f64 * 1.1 / self.length.as_secs_f64()).ceil() as u64);
        self.report = variable("FAULTS_REPORT");
        self
    }

    /// True when the service de-duplicates with a Redis, which has faults of its own.
    pub fn with_redis(&self) -> bool {
        self.kinds.iter().any(|kind| matches!(kind, Kind::FlushRedis | Kind::RestartRedis))
    }
}

/// A variable of the environment; an empty one counts as unset.
#[track_caller]
fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} makes no sense")))
}
