//! The figures of a run: a table for people, JSON for the records, a verdict for the test.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::run::{RECOVERY, Record, Records};
use super::settings::Settings;
use super::tally::Tally;

pub struct Report<'a> {
    pub settings: &'a Settings,
    pub records: Records,
    pub tally: Tally,
    /// How long it was fed.
    pub fed: Duration,
    pub took: Duration,
}

impl Report<'_> {
    pub fn print(&self) {
        let (settings, tally) = (self.settings, &self.tally);
        let (guarantee, brokers, seed) = (settings.guarantee.as_str(), settings.brokers, settings.seed);
        println!("\n{guarantee}, brokers: {brokers}, seed: {seed}, {:.1} min", self.took.as_secs_f64() / 60.0);
        println!("{:<24}{:>12}", "events in", tally.events);
        println!("{:<24}{:>12}  of {} expected", "requests out", tally.requests, tally.expected_requests);
        println!("{:<24}{:>12}  of {} expected", "dead letters", tally.letters, tally.expected_letters);
        println!("{:<24}{:>12}", "skipped", tally.skipped);
        for (name, found) in tally.violations() {
            println!("{name:<24}{:>12}  {}", found.count, found.examples.join("  "));
        }
        println!("\n{:<24}{:>12}{:>14}{:>17}", "fault", "injected", "took effect", "longest stall");
        for (kind, record) in &self.records {
            let stall = format!("{:.1} s", record.longest_stall().as_secs_f64());
            println!("{:<24}{:>12}{:>14}{stall:>17}", kind.as_str(), record.injected, record.took_effect);
        }
    }

    /// Writes the JSON document, where one is asked for.
    #[track_caller]
    pub fn write(&self) {
        let Some(path) = &self.settings.report else { return };
        std::fs::write(path, format!("{:#}\n", self.json())).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    fn json(&self) -> Value {
        let (settings, tally) = (self.settings, &self.tally);
        let violations = tally.violations().map(|(name, found)| (name.to_owned(), json!(found.count)));
        let faults = self.records.iter().map(|(kind, record)| (kind.as_str().to_owned(), record.json()));
        json!({
            "guarantee": settings.guarantee.as_str(),
            "brokers": settings.brokers,
            "seed": settings.seed,
            "seconds": self.took.as_secs(),
            "fedSeconds": self.fed.as_secs(),
            "events": tally.events,
            "requests": tally.requests,
            "expectedRequests": tally.expected_requests,
            "deadLetters": tally.letters,
            "expectedDeadLetters": tally.expected_letters,
            "skipped": tally.skipped,
            "violations": Map::from_iter(violations),
            "longestStallSeconds": self.longest_stall().as_secs_f64(),
            "faults": Map::from_iter(faults),
        })
    }

    /// Panics unless the promises are kept and every kind of fault happened.
    #[track_caller]
    pub fn judge(&self) {
        let mut wrong = self.tally.broken_promises(self.settings.guarantee.may_repeat());
        let idle = self.records.iter().filter(|(_, record)| record.took_effect == 0);
        wrong.extend(idle.map(|(kind, _)| format!("`{}` never took effect", kind.as_str())));
        if self.tally.events < self.settings.events {
            wrong.push(format!("only {} events", self.tally.events));
        }
        if self.longest_stall() > RECOVERY {
            wrong.push(format!(
                "stood still for {:?} after a fault, at most {RECOVERY:?} is promised",
                self.longest_stall()
            ));
        }
        assert!(wrong.is_empty(), "seed {}: {wrong:#?}", self.settings.seed);
    }

    fn longest_stall(&self) -> Duration {
        self.records.values().map(Record::longest_stall).max().unwrap_or_default()
    }
}

impl Record {
    fn longest_stall(&self) -> Duration {
        self.stalls.iter().copied().max().unwrap_or_default()
    }

    fn json(&self) -> Value {
        let stalls: Vec<f64> = self.stalls.iter().map(|stall| (stall.as_secs_f64() * 10.0).round() / 10.0).collect();
        json!({"injected": self.injected, "tookEffect": self.took_effect, "stallSeconds": stalls})
    }
}
