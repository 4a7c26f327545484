//! What becomes of one record: the stage's decision, guarded against panics, and whether a failure is tried again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Timestamp;

use super::stage::{Decision, Stage};
use crate::domain::dead_letter::{DeadLetter, Failure, Origin, Stage as StageName};
use crate::domain::envelope::Envelope;
use crate::domain::error::{ErrorClass, panic_message};
use crate::domain::record::Record;
use crate::resilience::retry::RetryPolicy;

/// What becomes of a record.
pub enum Verdict<E> {
    /// Nothing.
    Skip,
    /// An effect.
    Act(E),
    /// It is tried again later.
    Retry(Failure),
    /// It is dead.
    Dead(Box<DeadLetter>),
}

/// Asks the stage. `earlier` is what went wrong with the record before.
pub fn verdict<S: Stage>(
    stage: &S,
    record: &Record,
    earlier: Option<Box<Failure>>,
    retry: &RetryPolicy,
    now: Timestamp,
) -> Verdict<S::Effect> {
    if let Some(flaw) = &record.flaw {
        // Whatever is wrong with it, not even its type is read: doing so may be what ends the process.
        let (origin, failure) = (Origin::from(record), Failure::clone(flaw));
        return Verdict::Dead(Box::new(DeadLetter { origin, stage: stage.name(), failure, event_type: None }));
    }
    match guarded(|| stage.decide(record, now), now) {
        Decision::Skip => Verdict::Skip,
        Decision::Act(effect) => Verdict::Act(effect),
        Decision::Fail(failure) => {
            let mut failure = join_history(failure, earlier);
            let passing = matches!(failure.class, ErrorClass::Transient | ErrorClass::Bug);
            if passing && failure.retries < retry.max_retries {
                failure.retries += 1;
                return Verdict::Retry(failure);
            }
            Verdict::Dead(Box::new(letter(stage.name(), record, failure)))
        }
    }
}

/// A panic costs the record that it happened on, and nothing else.
fn guarded<E>(decide: impl FnOnce() -> Decision<E>, now: Timestamp) -> Decision<E> {
    catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|panic| {
        let reason = format!("a handler panicked: {}", panic_message(&*panic));
        Decision::Fail(Failure::new(ErrorClass::Bug, "panic", reason, now))
    })
}

fn join_history(mut failure: Failure, earlier: Option<Box<Failure>>) -> Failure {
    if let Some(earlier) = earlier {
        failure.retries = earlier.retries;
        failure.first_at = earlier.first_at;
    }
    failure
}

/// The letter of a record that failed for good.
pub fn letter(stage: StageName, record: &Record, failure: Failure) -> DeadLetter {
    // The type is read on its own: a letter about a broken payload still says what it was meant to be.
    let read = || Some(Envelope::decode(record.value.as_deref()).ok()?.event_type.into_owned());
    let event_type = catch_unwind(AssertUnwindSafe(read)).unwrap_or_default();
    DeadLetter { origin: Origin::from(record), stage, failure, event_type }
}
