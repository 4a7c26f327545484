//! One round: feeds the backlog, measures both, checks what came out.

use std::time::Duration;

use anyhow::{Context as _, Result};
use uuid::Uuid;

use crate::bare::{Bare, copy, copy_in_transactions};
use crate::cluster::{Cluster, Topics};
use crate::count::requests;
use crate::machine::{median, print_row, progress, thousands};
use crate::produce::feed;
use crate::routing::{Routing, route};
use crate::{Guarantee, Load};

/// Rates in records a second, CPU times in seconds for a million records, the peak in bytes.
pub struct Round {
    pub bare: f64,
    pub service: f64,
    pub ratio: f64,
    pub from_consumed: Option<f64>,
    pub bare_cpu: f64,
    pub service_cpu: f64,
    pub peak: f64,
    pub problems: Vec<String>,
}

impl Round {
    pub fn print(&self, name: &str) {
        print_row([
            name.to_owned(),
            thousands(self.bare as u64),
            thousands(self.service as u64),
            format!("{:.3}", self.ratio),
            self.from_consumed.map_or_else(|| "-".to_owned(), |rate| thousands(rate as u64)),
            format!("{:.2}", self.bare_cpu),
            format!("{:.2}", self.service_cpu),
            format!("{:.0}", self.peak / 1e6),
        ]);
    }

    /// Each column for itself.
    pub fn medians(rounds: &[Self]) -> Self {
        let of = |column: fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(column).collect());
        Self {
            bare: of(|r| Some(r.bare)).unwrap_or_default(),
            service: of(|r| Some(r.service)).unwrap_or_default(),
            ratio: of(|r| Some(r.ratio)).unwrap_or_default(),
            from_consumed: of(|r| r.from_consumed),
            bare_cpu: of(|r| Some(r.bare_cpu)).unwrap_or_default(),
            service_cpu: of(|r| Some(r.service_cpu)).unwrap_or_default(),
            peak: of(|r| Some(r.peak)).unwrap_or_default(),
            problems: Vec::new(),
        }
    }
}

pub fn measure_round(cluster: &Cluster, number: u32, load: Load) -> Result<Round> {
    let events = load.events;
    let prefix = format!("bench-{}.", &Uuid::new_v4().simple().to_string()[..12]);
    let topics = Topics { cluster, prefix: &prefix };
    topics.create()?;
    let fed = feed(cluster, &topics.orders(), events).context("feeding order-events")?;
    progress(&format!("round {number}: {} events fed in {:.1} s", thousands(events), fed.as_secs_f64()));

    let mut problems = Vec::new();
    let measure_bare = |problems: &mut Vec<String>| -> Result<Bare> {
        let (bare, found) = match load.guarantee {
            Guarantee::AtLeastOnce => {
                let bare = copy(cluster, &topics, events);
                (bare, cluster.end_of(&topics.copy())?)
            }
            Guarantee::ExactlyOnce => (copy_in_transactions(cluster, &topics, load), events),
        };
        let bare = bare.context("the bare loop")?;
        if found != events {
            problems.push(format!("round {number}: {} records copied by the bare loop", thousands(found)));
        }
        Ok(bare)
    };
    let measure_service = |problems: &mut Vec<String>| -> Result<Routing> {
        let routing = route(cluster, &topics, load).context("the service")?;
        if !routing.exit.success() {
            problems.push(format!("round {number}: the service ended with {} after SIGTERM", routing.exit));
        }
        let found = requests(cluster, &topics.requests()).context("reading the requests")?;
        progress(&format!("round {number}: {found}"));
        if found.distinct != events || found.others > 0 {
            problems.push(format!("round {number}: {} events, but {found}", thousands(events)));
        }
        Ok(routing)
    };
    let (bare, routing) = if number % 2 == 1 {
        let bare = measure_bare(&mut problems)?;
        (bare, measure_service(&mut problems)?)
    } else {
        let routing = measure_service(&mut problems)?;
        (measure_bare(&mut problems)?, routing)
    };

    let rate = |elapsed: Duration| events as f64 / elapsed.as_secs_f64();
    Ok(Round {
        bare: rate(bare.elapsed),
        service: rate(routing.elapsed),
        ratio: bare.elapsed.as_secs_f64() / routing.elapsed.as_secs_f64(),
        from_consumed: routing.from_consumed.map(rate),
        bare_cpu: bare.cpu * 1e6 / events as f64,
        service_cpu: routing.cpu * 1e6 / events as f64,
        peak: routing.peak as f64,
        problems,
    })
}
