//! What becomes of a notification after an attempt: a pure function.

use std::time::Duration;

use jiff::Timestamp;

use super::schedule::Schedule;
use crate::domain::error::ErrorClass;
use crate::ports::provider::SendError;

/// A provider that says "again at once" is not asked more often than this.
pub const MIN_RATE_LIMIT_WAIT: Duration = Duration::from_secs(1);

/// The wait where the schedule has no step at all.
const WITHOUT_A_STEP: Duration = Duration::from_secs(60);

/// What to do when nobody knows whether the provider took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// Send again with the same idempotency key.
    Retry,
    /// Send again once; then a person decides.
    RetryOnce,
    /// A person decides.
    Hold,
}

/// Where a notification stands in its retries.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The notification's id.
    pub id: &'a str,
    /// Rounds used up.
    pub round: u16,
    /// Position of the provider that was tried.
    pub lane: u16,
    /// The lane it was taken from: another one, where that provider stood in.
    pub home: u16,
    /// Unknown outcomes before this one.
    pub unknowns: u32,
}

/// The rules of the channel.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Providers of the channel.
    pub lanes: u16,
    /// Waits between rounds.
    pub schedule: &'a Schedule,
    /// The tried provider's policy.
    pub on_unknown: OnUnknown,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Try again, then and there.
    Again {
        /// When it is due.
        at: Timestamp,
        /// Rounds used up by then.
        round: u16,
        /// Position of the provider to try.
        lane: u16,
    },
    /// The recipient does not want it, says the provider.
    Suppressed,
    /// Nothing more will be tried.
    Failed {
        /// For the dead letter.
        class: ErrorClass,
        /// Stable, snake_case.
        code: &'static str,
    },
}

/// Decides after a failed attempt. `probe` says that the attempt was the breaker's half-open probe, which costs the
/// notification nothing.
pub fn after_failure(error: &SendError, probe: bool, progress: Progress<'_>, rules: Rules<'_>, now: Timestamp) -> Next {
    let Progress { id, round, lane, home, unknowns } = progress;
    // As if it had not been tried.
    let back = |at| Next::Again { at, round, lane: home };
    match error {
        SendError::Permanent(_) => Next::Failed { class: ErrorClass::Permanent, code: "provider_rejected" },
        SendError::Gone { .. } => Next::Failed { class: ErrorClass::Permanent, code: "address_gone" },
        SendError::Suppressed(_) => Next::Suppressed,
        // A stand-in's pause is not that of the lane that the notification goes back to.
        SendError::RateLimited { .. } if home != lane => back(later(now, MIN_RATE_LIMIT_WAIT)),
        SendError::RateLimited { retry_after, .. } => back(later(now, (*retry_after).max(MIN_RATE_LIMIT_WAIT))),
        SendError::Transient(_) if probe => back(now),
        SendError::Transient(_) | SendError::Deferred(_) if lane + 1 < rules.lanes => {
            Next::Again { at: now, round, lane: lane + 1 }
        }
        // It stood in for one that was not asked: with that one away the waits grow, and nothing ends.
        SendError::Transient(_) if home != lane => {
            let last = || rules.schedule.wait_after(round.checked_sub(1)?, id);
            let (wait, round) = match rules.schedule.wait_after(round, id) {
                Some(wait) => (wait, round + 1),
                None => (last().unwrap_or(WITHOUT_A_STEP), round),
            };
            Next::Again { at: later(now, wait), round, lane: 0 }
        }
        SendError::Transient(_) | SendError::Deferred(_) => match rules.schedule.wait_after(round, id) {
            Some(wait) => Next::Again { at: later(now, wait), round: round + 1, lane: 0 },
            None => Next::Failed { class: ErrorClass::Transient, code: "retries_exhausted" },
        },
        // As a probe it used no step; the wait gives the provider time to answer for the earlier request.
        SendError::Unknown(_) if probe && rules.on_unknown == OnUnknown::Retry => {
            let wait = rules.schedule.wait_after(round, id).unwrap_or(MIN_RATE_LIMIT_WAIT);
            Next::Again { at: later(now, wait), round, lane }
        }
        SendError::Unknown(_) => {
            let again = match rules.on_unknown {
                OnUnknown::Retry => true,
                OnUnknown::RetryOnce => unknowns == 0,
                OnUnknown::Hold => false,
            };
            // The same provider again: only it knows the idempotency key of what it may have taken.
            match rules.schedule.wait_after(round, id) {
                Some(wait) if again => Next::Again { at: later(now, wait), round: round + 1, lane },
                _ => Next::Failed { class: ErrorClass::Ambiguous, code: "unknown_outcome" },
            }
        }
    }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(wait).ok().and_then(|w| now.checked_add(w).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn schedule(steps: usize) -> Schedule {
        Schedule::new(vec![Duration::from_secs(5); steps])
    }

    fn at(round: u16, lane: u16, unknowns: u32) -> Progress<'static> {
        Progress { id: "n", round, lane, home: lane, unknowns }
    }

    fn transient() -> SendError {
        SendError::Transient("503".into())
    }

    #[test]
    fn a_transient_failure_goes_to_the_next_provider_at_once_and_then_waits_for_the_next_round() {
        let schedule = schedule(1);
        let rules = Rules { lanes: 2, schedule: &schedule, on_unknown: OnUnknown::Retry };
        assert_eq!(
            after_failure(&transient(), false, at(0, 0, 0), rules, NOW),
            Next::Again { at: NOW, round: 0, lane: 1 }
        );
        let Next::Again { at: due, round: 1, lane: 0 } = after_failure(&transient(), false, at(0, 1, 0), rules, NOW)
        else {
            panic!("the next round starts with the first provider");
        };
        assert!(due >= NOW + Duration::from_secs(5));
        assert_eq!(
            after_failure(&transient(), false, at(1, 1, 0), rules, NOW),
            Next::Failed { class: ErrorClass::Transient, code: "retries_exhausted" }
        );
    }

    #[test]
    fn whom_a_stand_in_does_not_take_goes_back_and_whom_it_may_have_stays() {
        let schedule = schedule(1);
        let rules = Rules { lanes: 3, schedule: &schedule, on_unknown: OnUnknown::Retry };
        let lane_after = |error: &SendError, probe| {
            let progress = Progress { home: 0, ..at(0, 1, 0) };
            let Next::Again { lane, .. } = after_failure(error, probe, progress, rules, NOW) else { panic!("{error}") };
            lane
        };
        let limited = SendError::RateLimited { retry_after: Duration::from_secs(7), reason: "429".into() };
        let unknown = SendError::Unknown("time-out".into());
        assert_eq!((lane_after(&limited, false), lane_after(&transient(), true)), (0, 0));
        let at_home = after_failure(&limited, false, Progress { home: 0, ..at(0, 1, 0) }, rules, NOW);
        assert_eq!(at_home, Next::Again { at: NOW + MIN_RATE_LIMIT_WAIT, round: 0, lane: 0 }, "it was another's pause");
        assert_eq!((lane_after(&unknown, false), lane_after(&unknown, true)), (1, 1));
        assert_eq!(lane_after(&transient(), false), 2);
        for round in [0, 1] {
            let progress = Progress { home: 0, ..at(round, 2, 0) };
            let Next::Again { at, round: 1, lane: 0 } = after_failure(&transient(), false, progress, rules, NOW) else {
                panic!("the last one cannot end what its own provider was not asked for");
            };
            assert!(at >= NOW + Duration::from_secs(5));
            let deferred = after_failure(&SendError::Deferred("full".into()), false, progress, rules, NOW);
            assert_eq!(matches!(deferred, Next::Failed { .. }), round == 1, "about the mailbox it has the last word");
        }
    }

    #[test]
    fn a_rate_limit_and_a_failed_probe_cost_nothing() {
        let schedule = schedule(0);
        let rules = Rules { lanes: 2, schedule: &schedule, on_unknown: OnUnknown::Retry };
        let limited = SendError::RateLimited { retry_after: Duration::from_secs(7), reason: String::new() };
        assert_eq!(
            after_failure(&limited, false, at(0, 1, 0), rules, NOW),
            Next::Again { at: NOW + Duration::from_secs(7), round: 0, lane: 1 }
        );
        assert_eq!(
            after_failure(&transient(), true, at(0, 1, 0), rules, NOW),
            Next::Again { at: NOW, round: 0, lane: 1 }
        );
    }

    #[test]
    fn an_unknown_outcome_follows_the_provider_s_policy() {
        let schedule = schedule(3);
        let unknown = SendError::Unknown("time-out".into());
        let decide = |policy, unknowns| {
            let rules = Rules { lanes: 2, schedule: &schedule, on_unknown: policy };
            matches!(
                after_failure(&unknown, false, at(0, 1, unknowns), rules, NOW),
                Next::Again { round: 1, lane: 1, .. }
            )
        };
        assert!(decide(OnUnknown::Retry, 5));
        assert!(decide(OnUnknown::RetryOnce, 0) && !decide(OnUnknown::RetryOnce, 1));
        assert!(!decide(OnUnknown::Hold, 0));
    }

    proptest! {
        #[test]
        fn n_steps_and_l_providers_mean_n_plus_one_rounds_of_l_attempts(steps in 0usize..6, lanes in 1u16..4) {
            let schedule = schedule(steps);
            let rules = Rules { lanes, schedule: &schedule, on_unknown: OnUnknown::Retry };
            let (mut round, mut lane, mut attempts) = (0, 0, 1);
            while let Next::Again { round: r, lane: l, .. } =
                after_failure(&transient(), false, at(round, lane, 0), rules, NOW)
            {
                (round, lane) = (r, l);
                attempts += 1;
            }
            prop_assert_eq!(attempts, (steps + 1) * usize::from(lanes));
        }
    }
}
