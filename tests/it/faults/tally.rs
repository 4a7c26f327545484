//! The verdict over a run: what stands on the topics in the end, against the ledger.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use uuid::Uuid;

use super::feeder::NUMBER;
use super::ledger::{Ledger, fingerprint};
use super::settings::Guarantee;
use crate::support::kafka::{DEAD_LETTERS, Kafka, NOTIFICATIONS, Record};
use crate::support::published::Published;

/// Examples of each violation that are kept for the message.
const EXAMPLES: usize = 3;

/// Violations of one kind.
#[derive(Debug, Default)]
pub struct Violations {
    pub count: u64,
    pub examples: Vec<String>,
}

/// What a `read_committed` reader finds.
#[derive(Debug, Default)]
pub struct Tally {
    pub events: u64,
    pub expected_requests: u64,
    pub expected_letters: u64,
    pub skipped: u64,
    pub requests: u64,
    pub letters: u64,
    /// Requests and dead letters that are not there.
    pub lost: Violations,
    /// Requests with an id that was seen before, and dead letters about the same record.
    pub duplicated: Violations,
    /// Requests with an id that follows from no event.
    pub random: Violations,
    /// Requests whose id is right and whose words are not.
    pub altered: Violations,
    /// Requests that come after one of a later event of their key. Of copies the first counts.
    pub out_of_order: Violations,
    /// Dead letters about records that deserve none.
    pub wrong_letters: Violations,
}

impl Violations {
    fn add(&mut self, example: impl Display) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example.to_string());
        }
    }
}

impl Tally {
    /// Reads both topics to their ends.
    #[track_caller]
    pub fn of(kafka: &Kafka, mut ledger: Ledger) -> Self {
        let mut tally = Self {
            events: ledger.appended,
            expected_requests: ledger.requests.len() as u64,
            expected_letters: ledger.letters.len() as u64,
            skipped: ledger.skipped,
            ..Self::default()
        };
        let mut last = HashMap::new();
        kafka.for_each(NOTIFICATIONS, "read_committed", |record| tally.request(&mut ledger, &mut last, &record));
        kafka.for_each(DEAD_LETTERS, "read_committed", |record| tally.letter(&mut ledger, &record));
        for (id, _) in ledger.requests.iter().filter(|(_, expected)| expected.seen == 0) {
            tally.lost.add(Uuid::from_u128(*id));
        }
        for (number, _) in ledger.letters.iter().filter(|(_, seen)| **seen == 0) {
            tally.lost.add(format!("the dead letter of record {number}"));
        }
        tally
    }

    /// One record of `notification-events`; `last` has the number of the last event by key.
    fn request(&mut self, ledger: &mut Ledger, last: &mut HashMap<u64, u64>, record: &Record) {
        self.requests += 1;
        let value = record.value.as_deref().unwrap_or_default();
        let published = serde_json::from_slice::<Published>(value).ok();
        let Some(published) = published.filter(|published| published.event_type == "NotificationRequested") else {
            return self.random.add(format!("no request: {}", String::from_utf8_lossy(value)));
        };
        let id = Uuid::parse_str(&published.event_id).map(|id| id.as_u128()).unwrap_or_default();
        let Some(expected) = ledger.requests.get_mut(&id) else { return self.random.add(&published.event_id) };
        expected.seen += 1;
        if fingerprint(&published.content()) != expected.content {
            self.altered.add(&published.event_id);
        }
        if expected.seen > 1 {
            return self.duplicated.add(&published.event_id);
        }
        let mut key = DefaultHasher::new();
        record.key.hash(&mut key);
        let before = last.insert(key.finish(), expected.number);
        if before.is_some_and(|before| before > expected.number) {
            self.out_of_order.add(&published.event_id);
        }
    }

    /// One record of `dead-letter-queue`.
    fn letter(&mut self, ledger: &mut Ledger, record: &Record) {
        self.letters += 1;
        let number = record.headers.iter().find(|(name, _)| name == NUMBER).and_then(|(_, value)| value.as_deref());
        let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
        match number.and_then(|number| ledger.letters.get_mut(&number)) {
            None => self.wrong_letters.add(String::from_utf8_lossy(record.value.as_deref().unwrap_or_default())),
            Some(seen) => {
                *seen += 1;
                if *seen > 1 {
                    self.duplicated.add(format!("the dead letter of record {}", number.unwrap_or_default()));
                }
            }
        }
    }

    /// The counts by name.
    pub fn violations(&self) -> [(&'static str, &Violations); 6] {
        [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("random ids", &self.random),
            ("altered", &self.altered),
            ("out of order", &self.out_of_order),
            ("dead-lettered wrongly", &self.wrong_letters),
        ]
    }

    /// What of it breaks the guarantee, in words.
    pub fn broken_promises(&self, may_repeat: bool) -> Vec<String> {
        let broken = |(name, found): &(&str, &Violations)| found.count > 0 && !(may_repeat && *name == "duplicated");
        let words =
            |(name, found): (&str, &Violations)| format!("{} {name}, such as {:?}", found.count, found.examples);
        self.violations().into_iter().filter(broken).map(words).collect()
    }
}

impl Guarantee {
    /// Whether a crash may leave copies.
    pub fn may_repeat(self) -> bool {
        self == Self::AtLeastOnce
    }
}
