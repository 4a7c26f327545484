//! Which of the records in hand may have their effects now: an event has its effect once, as far as this loop and the
//! store of processed events can tell.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use super::dedup::Admission;
use super::stage::Stage;
use crate::domain::record::Record;
use crate::ports::processed_events::Candidate;

/// What becomes of a record that would act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It acts.
    Act,
    /// Its event had its effect before.
    Duplicate,
    /// As the earlier one at this position fares, which brings the same event: it goes with it, or waits like it.
    With(usize),
    /// It waits for another record of its event: one in this loop's hands, which comes to an end, or somebody else's.
    Wait {
        /// In this loop's hands.
        own: bool,
    },
}

/// Events whose effects are under way in this loop. The store's claims may run out meanwhile; these do not. They are
/// kept as hashes: two events that meet by chance only wait for each other.
#[derive(Debug, Default)]
pub struct UnderWay {
    hasher: RandomState,
    events: HashSet<u64>,
}

impl UnderWay {
    /// Notes an event, and gives what [`Self::end`] wants.
    pub fn begin(&mut self, event: &str) -> u64 {
        let hash = self.hasher.hash_one(event);
        self.events.insert(hash);
        hash
    }

    /// The effects of these events are durable, or were given up.
    pub fn end(&mut self, events: &[u64]) {
        for event in events {
            self.events.remove(event);
        }
    }

    fn has(&self, event: &str) -> bool {
        !self.events.is_empty() && self.events.contains(&self.hasher.hash_one(event))
    }

    /// Decides, in order, about records that would act, as far as this loop can tell.
    pub fn sort<'a, S: Stage>(&self, stage: &S, acting: &[(&'a Record, &'a S::Effect)]) -> Sorted<'a> {
        let mut sorted = Sorted { fates: vec![Fate::Act; acting.len()], asked: Vec::new(), places: Vec::new() };
        let mut first: HashMap<&str, usize> = HashMap::with_capacity(acting.len());
        for (place, (record, effect)) in acting.iter().enumerate() {
            let Some(id) = stage.event(effect) else { continue };
            if let Some(earlier) = first.get(id) {
                sorted.fates[place] = Fate::With(*earlier);
                continue;
            }
            first.insert(id, place);
            if self.has(id) {
                sorted.fates[place] = Fate::Wait { own: true };
            } else {
                sorted.asked.push(Candidate { id, at: &record.at });
                sorted.places.push(place);
            }
        }
        sorted
    }
}

/// Records in their order, of which the store has to be asked about some.
pub struct Sorted<'a> {
    fates: Vec<Fate>,
    asked: Vec<Candidate<'a>>,
    places: Vec<usize>,
}

impl Sorted<'_> {
    /// Asks the store.
    pub async fn ask<S: Stage>(mut self, stage: &S) -> Vec<Fate> {
        if !self.asked.is_empty() {
            for (place, admission) in self.places.into_iter().zip(stage.admit(&self.asked).await) {
                self.fates[place] = match admission {
                    Admission::Now => Fate::Act,
                    Admission::Duplicate => Fate::Duplicate,
                    Admission::Later => Fate::Wait { own: false },
                };
            }
        }
        self.fates
    }
}

/// What has become of the records before, for those that go with one of them.
#[derive(Debug, Default)]
pub struct Passed(Vec<Fate>);

impl Passed {
    /// The fate of the next record: `None` when it is held behind another one of its order.
    pub fn next(&mut self, fate: Option<Fate>) -> Fate {
        let fate = match fate {
            // Durable or dead with the earlier one, whose fate it shares.
            Some(Fate::With(earlier)) => match self.0[earlier] {
                Fate::Act | Fate::Duplicate => Fate::Duplicate,
                waits => waits,
            },
            Some(fate) => fate,
            None => Fate::Wait { own: true },
        };
        self.0.push(fate);
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_record_of_an_event_fares_as_the_first() {
        let mut passed = Passed::default();
        let waits = Fate::Wait { own: false };
        assert_eq!(passed.next(Some(Fate::Act)), Fate::Act);
        assert_eq!(passed.next(Some(Fate::With(0))), Fate::Duplicate);
        assert_eq!(passed.next(Some(waits)), waits);
        assert_eq!(passed.next(Some(Fate::With(2))), waits);
        assert_eq!(passed.next(None), Fate::Wait { own: true }, "held back");
        assert_eq!(passed.next(Some(Fate::With(4))), Fate::Wait { own: true });
        assert_eq!(passed.next(Some(Fate::Duplicate)), Fate::Duplicate);
        assert_eq!(passed.next(Some(Fate::With(6))), Fate::Duplicate);
    }

    #[test]
    fn what_is_under_way_ends() {
        let mut under_way = UnderWay::default();
        let (a, b) = (under_way.begin("a"), under_way.begin("b"));
        assert!(under_way.has("a") && under_way.has("b") && !under_way.has("c"));
        under_way.end(&[a]);
        assert!(!under_way.has("a") && under_way.has("b"));
        under_way.end(&[b]);
        assert!(!under_way.has("b"));
    }
}
