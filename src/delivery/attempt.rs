//! What becomes of a claimed notification: the settlements without an attempt, and those after a provider's answer.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::context::LaneSettings;
use super::decide::{Next, Progress, Rules, after_failure};
use super::lifecycle;
use super::schedule::Schedule;
use crate::domain::dead_letter::Failure;
use crate::domain::recipient::mask_addresses;
use crate::ports::ledger::{AttemptEnd, Claimed, Outcome, Settlement, State};
use crate::ports::provider::{Accepted, SendError};
use crate::telemetry::events::{self, Wait};

/// A notification that goes back as it was: to its time, which may not have come, or to the digest that carries it.
pub fn put_back(claimed: &Claimed, owner: &str, now: Timestamp) -> Settlement {
    if claimed.digest_id.is_some() {
        return unsent(claimed, owner, State::Pending, now);
    }
    let state = if claimed.attempts == 0 { State::Pending } else { State::Retrying };
    Settlement { next_attempt_at: Some(claimed.due.unwrap_or(now)), ..unsent(claimed, owner, state, now) }
}

/// A notification that waits until a later time, without an attempt.
pub fn postpone(claimed: &Claimed, owner: &str, at: Timestamp, reason: String, now: Timestamp) -> Settlement {
    Settlement { next_attempt_at: Some(at), reason: Some(reason), ..put_back(claimed, owner, now) }
}

/// A notification that waits for its recipient's address.
pub fn await_contact(claimed: &Claimed, owner: &str, now: Timestamp) -> Settlement {
    let recipient = mask_addresses(claimed.recipient.as_deref().unwrap_or_default());
    events::awaiting_contact(claimed.channel.as_str(), &claimed.id, &recipient);
    unsent(claimed, owner, State::AwaitingContact, now)
}

/// A notification that is not sent, and that is no failure: `state` is suppressed, expired or cancelled.
pub fn not_sent(
    claimed: &Claimed,
    owner: &str,
    state: State,
    code: &str,
    reason: impl Into<String>,
    now: Timestamp,
) -> Settlement {
    let settlement = unsent(claimed, owner, state, now);
    call_off(settlement, claimed, claimed.attempts, code, reason.into(), now)
}

/// One that a newer one, `by`, has replaced.
pub fn superseded(claimed: &Claimed, owner: &str, by: &str, now: Timestamp) -> Settlement {
    not_sent(claimed, owner, State::Suppressed, "superseded", format!("superseded by {by}"), now)
}

/// A settlement without an attempt.
fn unsent(claimed: &Claimed, owner: &str, state: State, now: Timestamp) -> Settlement {
    Settlement {
        seq: claimed.seq,
        id: claimed.id.clone(),
        channel: claimed.channel,
        digest_id: claimed.digest_id.clone(),
        owner: owner.to_owned(),
        state,
        next_attempt_at: None,
        round: claimed.round,
        lane: claimed.lane,
        at: now,
        contact_version: claimed.contact_version,
        unknowns: claimed.unknowns,
        attempt: None,
        reason: None,
        outbox: Vec::new(),
    }
}

/// A notification that cannot be sent at all.
pub fn refuse(claimed: &Claimed, owner: &str, failure: Failure, now: Timestamp) -> Settlement {
    let settlement = unsent(claimed, owner, State::Failed, now);
    fail(settlement, claimed, claimed.attempts, failure, now)
}

/// Adds what the world is told about a failed notification.
fn fail(settlement: Settlement, claimed: &Claimed, attempts: u32, mut failure: Failure, now: Timestamp) -> Settlement {
    failure.retries = attempts.saturating_sub(1);
    failure.first_at = claimed.first_failure_at.unwrap_or(now);
    events::delivery_failed(claimed.channel.as_str(), &claimed.id, &mask_addresses(&failure.reason));
    Settlement {
        reason: Some(failure.reason.clone()),
        outbox: lifecycle::failed(claimed, attempts, failure, now),
        ..settlement
    }
}

/// Adds what the world is told about a notification that is not sent.
fn call_off(
    settlement: Settlement,
    claimed: &Claimed,
    attempts: u32,
    code: &str,
    reason: String,
    now: Timestamp,
) -> Settlement {
    events::not_sent(claimed.channel.as_str(), &claimed.id, settlement.state.as_str(), &mask_addresses(&reason));
    Settlement {
        outbox: vec![lifecycle::suppressed(claimed, attempts, code, &reason, now)],
        reason: Some(reason),
        ..settlement
    }
}

/// Counts settlements that the ledger took all of.
pub fn count_settled_all<'a>(settlements: impl IntoIterator<Item = &'a Settlement>) {
    for settlement in settlements.into_iter().filter(|s| s.state.is_settled()) {
        events::settled(settlement.channel.as_str(), settlement.state.as_str());
    }
}

/// Counts those of the settlements that the ledger took.
pub fn count_settled(settlements: &[Settlement], taken: &[String]) {
    let taken: HashSet<&str> = taken.iter().map(String::as_str).collect();
    count_settled_all(settlements.iter().filter(|s| taken.contains(s.id.as_str())));
}

/// A provider's answer to an attempt.
#[derive(Clone, Copy)]
pub struct Answered<'a> {
    /// What was sent.
    pub claimed: &'a Claimed,
    /// Where to.
    pub to: &'a str,
    /// Number of the attempt.
    pub number: u32,
    /// Whether it was the breaker's probe.
    pub probe: bool,
    /// How long it took.
    pub duration: Duration,
    /// What the provider said.
    pub result: &'a Result<Accepted, SendError>,
}

/// Turns an answer into a settlement.
pub fn conclude(
    answered: &Answered<'_>,
    lane: &LaneSettings,
    schedule: &Schedule,
    owner: &str,
    now: Timestamp,
) -> Settlement {
    let Answered { claimed, number, .. } = *answered;
    let outcome = outcome(answered.result);
    let mut end = AttemptEnd {
        number,
        outcome,
        duration_ms: i64::try_from(answered.duration.as_millis()).unwrap_or(i64::MAX),
        receipt: None,
        error: None,
    };
    match answered.result {
        Ok(accepted) => {
            events::delivered(claimed.channel.as_str(), &claimed.template, answered.to, &lane.name, number);
            end.receipt.clone_from(&accepted.receipt);
            let told = lifecycle::sent(claimed, number, &lane.name, accepted.receipt.as_deref(), now);
            Settlement { attempt: Some(end), outbox: vec![told], ..unsent(claimed, owner, State::Sent, now) }
        }
        Err(error) => {
            end.error = Some(error.to_string());
            let settlement = Settlement {
                attempt: Some(end),
                // It may be another one's notification that this provider was asked for.
                lane: lane.index,
                unknowns: claimed.unknowns + u32::from(outcome == Outcome::Unknown),
                ..unsent(claimed, owner, State::Retrying, now)
            };
            let rules = Rules { lanes: lane.lanes, schedule, on_unknown: lane.on_unknown };
            after(error, answered.probe, settlement, claimed, number, &lane.name, rules, now)
        }
    }
}

/// What becomes of a notification whose sender ended before the provider's answer came. Its attempt is recorded as
/// unknown already.
pub fn conclude_interrupted(
    claimed: &Claimed,
    provider: &str,
    rules: Rules<'_>,
    owner: &str,
    now: Timestamp,
) -> Settlement {
    events::provider_answered(provider, Outcome::Unknown.as_str());
    interrupted(claimed, provider, rules, owner, now)
}

/// The settlement of a notification that travelled with an interrupted one: it fares as that one does.
pub fn conclude_interrupted_follower(
    leader: &Claimed,
    follower: &Claimed,
    provider: &str,
    rules: Rules<'_>,
    owner: &str,
    now: Timestamp,
) -> Settlement {
    let Claimed { round, lane, unknowns, attempts, .. } = *leader;
    let settlement = interrupted(
        // Its row has no attempts of its own; they only count for what is told.
        &Claimed { round, lane, unknowns, attempts, ..follower.clone() },
        provider,
        rules,
        owner,
        now,
    );
    if settlement.state == State::Retrying { put_back(follower, owner, now) } else { settlement }
}

fn interrupted(claimed: &Claimed, provider: &str, rules: Rules<'_>, owner: &str, now: Timestamp) -> Settlement {
    let error = SendError::Unknown("the process ended before the provider's answer".to_owned());
    // The database counted this unknown when it took the notification over; the rule asks for those before it.
    let before = Claimed { unknowns: claimed.unknowns.saturating_sub(1), ..claimed.clone() };
    let settlement = unsent(claimed, owner, State::Retrying, now);
    after(&error, false, settlement, &before, claimed.attempts, provider, rules, now)
}

#[allow(clippy::too_many_arguments)]
fn after(
    error: &SendError,
    probe: bool,
    settlement: Settlement,
    claimed: &Claimed,
    attempts: u32,
    provider: &str,
    rules: Rules<'_>,
    now: Timestamp,
) -> Settlement {
    let progress = Progress {
        id: &claimed.id,
        round: claimed.round,
        lane: settlement.lane,
        home: claimed.lane,
        unknowns: claimed.unknowns,
    };
    match after_failure(error, probe, progress, rules, now) {
        Next::Again { at, round, lane: next } => {
            let wait = match Duration::try_from(at.duration_since(now)) {
                Ok(time) if !time.is_zero() => Wait::For(time),
                _ if probe => Wait::ForProvider,
                _ => Wait::ForNobody,
            };
            let reason = mask_addresses(&error.to_string());
            events::delivery_retry(claimed.channel.as_str(), &claimed.id, provider, &reason, wait);
            Settlement {
                state: State::Retrying,
                next_attempt_at: Some(at),
                round,
                lane: next,
                reason: Some(error.to_string()),
                ..settlement
            }
        }
        Next::Suppressed => {
            let reason = format!("provider {provider}: {error}");
            let settlement = Settlement { state: State::Suppressed, ..settlement };
            call_off(settlement, claimed, attempts, "suppressed_by_provider", reason, now)
        }
        Next::Failed { class, code } => {
            let reason = format!("provider {provider}: {error}");
            let failure = Failure::new(class, code, reason, now);
            fail(Settlement { state: State::Failed, ..settlement }, claimed, attempts, failure, now)
        }
    }
}

/// The settlement of a notification that travelled with another one: it fares as that one did.
pub fn conclude_follower(
    leader: &Answered<'_>,
    follower: &Claimed,
    lane: &LaneSettings,
    schedule: &Schedule,
    owner: &str,
    now: Timestamp,
) -> Settlement {
    let (round, unknowns) = (leader.claimed.round, leader.claimed.unknowns);
    let follower = Claimed { round, lane: leader.claimed.lane, unknowns, ..follower.clone() };
    let settlement = conclude(&Answered { claimed: &follower, ..*leader }, lane, schedule, owner, now);
    match settlement.state {
        State::Retrying => put_back(&follower, owner, now),
        State::Sent => {
            let reason = Some(format!("in the digest {}", leader.claimed.id));
            Settlement { attempt: None, reason, ..settlement }
        }
        _ => Settlement { attempt: None, ..settlement },
    }
}

/// What a provider's answer is called.
pub fn outcome(result: &Result<Accepted, SendError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Accepted,
        Err(SendError::RateLimited { .. }) => Outcome::RateLimited,
        Err(SendError::Transient(_) | SendError::Deferred(_)) => Outcome::Transient,
        Err(SendError::Permanent(_) | SendError::Gone { .. } | SendError::Suppressed(_)) => Outcome::Permanent,
        Err(SendError::Unknown(_)) => Outcome::Unknown,
    }
}
