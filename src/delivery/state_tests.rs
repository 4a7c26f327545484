//! One notification on any way through answers, crashes and take-overs, by the real rules over a row in memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::attempt::{
    Answered, conclude, conclude_follower, conclude_interrupted, conclude_interrupted_follower, outcome, put_back,
};
use super::context::LaneSettings;
use super::decide::{OnUnknown, Rules};
use super::schedule::Schedule;
use crate::domain::channel::Channel;
use crate::ports::clock::SystemClock;
use crate::ports::ledger::{Claimed, OriginCoordinates, OutboxKind, Outcome, Settlement, State};
use crate::ports::provider::{Accepted, Message, Provider, SendError};
use crate::resilience::breaker::BreakerPolicy;
use crate::resilience::breaker_cell::BreakerCell;

const LEASE: Duration = Duration::from_secs(15);

/// What the provider says, if it is heard.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Word {
    Accepted,
    Transient,
    Deferred,
    Permanent,
    RateLimited { seconds: u64 },
    Unknown,
    Gone,
    Suppressed,
}

/// How one claim of the notification goes.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// The answer comes and is settled.
    Answer { word: Word, probe: bool, stands_in: u8 },
    /// The process dies before an attempt is recorded.
    DieBefore,
    /// It dies between the attempt's record and the settlement; so do so many of those that take over.
    DieInFlight { heirs: u8, stands_in: u8 },
    /// The answer comes after the lease has expired and somebody took over.
    Late { word: Word },
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        1 => Just(Word::Accepted),
        6 => Just(Word::Transient),
        2 => Just(Word::Deferred),
        1 => Just(Word::Permanent),
        2 => (0..100u64).prop_map(|seconds| Word::RateLimited { seconds }),
        4 => Just(Word::Unknown),
        1 => Just(Word::Gone),
        1 => Just(Word::Suppressed),
    ]
}

/// So many positions after its own is the provider that is asked.
fn stand_in() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0), 1 => 1..3u8]
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        8 => (word(), prop::bool::weighted(0.2), stand_in())
            .prop_map(|(word, probe, stands_in)| Turn::Answer { word, probe, stands_in }),
        1 => Just(Turn::DieBefore),
        3 => (0..3u8, stand_in()).prop_map(|(heirs, stands_in)| Turn::DieInFlight { heirs, stands_in }),
        1 => word().prop_map(|word| Turn::Late { word }),
    ]
}

fn policy() -> impl Strategy<Value = OnUnknown> {
    prop_oneof![4 => Just(OnUnknown::Retry), 1 => Just(OnUnknown::RetryOnce), 1 => Just(OnUnknown::Hold)]
}

fn said(word: Word) -> Result<Accepted, SendError> {
    match word {
        Word::Accepted => Ok(Accepted { receipt: Some("receipt".into()), gone: Vec::new() }),
        Word::Transient => Err(SendError::Transient("503".into())),
        Word::Deferred => Err(SendError::Deferred("mailbox full".into())),
        Word::Permanent => Err(SendError::Permanent("400".into())),
        Word::RateLimited { seconds } => {
            Err(SendError::RateLimited { retry_after: Duration::from_secs(seconds), reason: "429".into() })
        }
        Word::Unknown => Err(SendError::Unknown("time-out".into())),
        Word::Gone => Err(SendError::Gone { addresses: vec!["a@example.com".into()], reason: "410".into() }),
        Word::Suppressed => Err(SendError::Suppressed("refused".into())),
    }
}

struct Nobody;

#[async_trait]
impl Provider for Nobody {
    async fn send(&self, _: &Message) -> Result<Accepted, SendError> {
        Err(SendError::Transient("nobody is there".into()))
    }
}

fn lanes(policies: &[OnUnknown]) -> Vec<LaneSettings> {
    let lane = |(index, on_unknown): (usize, &OnUnknown)| LaneSettings {
        channel: Channel::Email,
        index: index as u16,
        lanes: policies.len() as u16,
        name: format!("provider-{index}"),
        provider: Arc::new(Nobody),
        timeout: Duration::from_secs(5),
        max_in_flight: 10,
        on_unknown: *on_unknown,
        max_per_second: None,
        shared_rate: None,
        breaker: BreakerCell::new("provider", BreakerPolicy::strict(5), Arc::new(SystemClock::default())),
        breakers_before: Vec::new(),
    };
    policies.iter().enumerate().map(lane).collect()
}

/// The notification `n`, fresh from the ledger.
pub(super) fn claimed() -> Claimed {
    Claimed {
        seq: 1,
        id: "n".into(),
        aggregate_id: "notification-n".into(),
        channel: Channel::Email,
        template: "order_confirmation".into(),
        category: "transactional".into(),
        recipient: Some("customer".into()),
        contact: None,
        contact_version: 0,
        preferences: None,
        critical: false,
        expires_at: None,
        digest_id: None,
        about: None,
        awaiting_since: None,
        reopened: 0,
        correlation_id: "c".into(),
        caused_at: Timestamp::UNIX_EPOCH,
        received_at: Timestamp::UNIX_EPOCH,
        due: Some(Timestamp::UNIX_EPOCH),
        request_json: "{}".into(),
        round: 0,
        lane: 0,
        attempts: 0,
        unknowns: 0,
        first_failure_at: None,
        origin: OriginCoordinates {
            topic: "notification-events".into(),
            partition: Some(0),
            offset: Some(0),
            key: None,
            headers_json: "[]".into(),
        },
    }
}

/// The row as the ledger keeps it, with what the statements of the SQL ledger do to it.
struct Row {
    state: State,
    /// What a claim would return.
    claimed: Claimed,
    owner: Option<u32>,
    lease_until: Timestamp,
    /// The attempt that is recorded and not answered: the number of its lane.
    begun: Option<u16>,
    interrupted: Option<u16>,
}

impl Row {
    fn claim(&mut self, owner: u32, now: Timestamp) -> Option<Claimed> {
        let waits = matches!(self.state, State::Pending | State::Retrying);
        if !waits || self.claimed.due.is_none_or(|due| due > now) {
            return None;
        }
        (self.state, self.owner, self.lease_until) = (State::Sending, Some(owner), now + LEASE);
        Some(self.claimed.clone())
    }

    fn begin(&mut self, owner: u32, lane: u16) -> bool {
        let mine = self.state == State::Sending && self.owner == Some(owner);
        if mine {
            self.begun = Some(lane);
        }
        mine
    }

    fn settle(&mut self, owner: u32, settlement: &Settlement) -> bool {
        if self.state != State::Sending || self.owner != Some(owner) {
            return false;
        }
        let claimed = &mut self.claimed;
        (claimed.due, claimed.round, claimed.lane) = (settlement.next_attempt_at, settlement.round, settlement.lane);
        claimed.unknowns = settlement.unknowns;
        if let Some(attempt) = &settlement.attempt {
            claimed.attempts = attempt.number;
            self.begun = None;
        }
        (self.state, self.owner, self.interrupted) = (settlement.state, None, None);
        true
    }

    fn take_over(&mut self, owner: u32, now: Timestamp) -> Option<(Claimed, Option<u16>)> {
        if self.state != State::Sending || self.lease_until >= now {
            return None;
        }
        (self.owner, self.lease_until) = (Some(owner), now + LEASE);
        if let Some(lane) = self.begun.take() {
            self.interrupted = Some(lane);
            self.claimed.unknowns += 1;
            self.claimed.attempts += 1;
        }
        Some((self.claimed.clone(), self.interrupted))
    }
}

struct Model {
    row: Row,
    lanes: Vec<LaneSettings>,
    steps: Vec<Duration>,
    now: Timestamp,
    /// Names the next process.
    owners: u32,
    /// Attempts that left, with the outcomes that the ledger knows of them.
    outcomes: Vec<Outcome>,
    /// Messages to the world.
    told: Vec<OutboxKind>,
    /// Answers of probes and rate limits, and attempts that were interrupted: what may come on top of the rounds.
    extra: usize,
    /// Attempts of this round so far, one for each provider that was passed.
    in_round: usize,
}

impl Model {
    fn new(steps_ms: &[u64], policies: &[OnUnknown]) -> Self {
        let row = Row {
            state: State::Pending,
            claimed: claimed(),
            owner: None,
            lease_until: Timestamp::UNIX_EPOCH,
            begun: None,
            interrupted: None,
        };
        Self {
            row,
            lanes: lanes(policies),
            steps: steps_ms.iter().copied().map(Duration::from_millis).collect(),
            now: Timestamp::UNIX_EPOCH,
            owners: 0,
            outcomes: Vec::new(),
            told: Vec::new(),
            extra: 0,
            in_round: 0,
        }
    }

    fn schedule(&self) -> Schedule {
        Schedule::new(self.steps.clone())
    }

    fn born(&mut self) -> u32 {
        self.owners += 1;
        self.owners
    }

    fn rules<'a>(&self, lane: u16, schedule: &'a Schedule) -> Rules<'a> {
        Rules { lanes: self.lanes.len() as u16, schedule, on_unknown: self.lanes[usize::from(lane)].on_unknown }
    }

    fn turn(&mut self, turn: Turn) -> TestCaseResult {
        let owner = self.born();
        let due = self.row.claimed.due;
        prop_assert!(due.is_some(), "whatever is not settled has a time");
        let due = due.expect("it is there").max(self.now);
        if due > self.now {
            let early = due - Duration::from_millis(1);
            prop_assert!(early < self.now || self.row.claim(owner, early).is_none(), "not before its time");
            self.now = due;
        }
        let claimed = self.row.claim(owner, self.now);
        let claimed = claimed.expect("it is due");
        prop_assert!(usize::from(claimed.lane) < self.lanes.len());
        if matches!(turn, Turn::DieBefore) {
            return self.inherit(0);
        }
        let asked = self.asked(&claimed, turn);
        prop_assert!(self.row.begin(owner, asked));
        match turn {
            Turn::DieBefore => Ok(()),
            Turn::Answer { word, probe, .. } => {
                self.now += Duration::from_millis(40);
                let settlement = self.conclude(&claimed, asked, word, probe);
                self.check(&claimed, asked, word, probe, &settlement)?;
                self.take(owner, &settlement)
            }
            Turn::DieInFlight { heirs, .. } => self.inherit(heirs),
            Turn::Late { word } => {
                self.inherit(0)?;
                let settlement = self.conclude(&claimed, asked, word, false);
                prop_assert!(!self.row.settle(owner, &settlement), "it is somebody else's now");
                Ok(())
            }
        }
    }

    /// The lane of the provider that is asked: nobody stands in where another one may have it.
    fn asked(&self, claimed: &Claimed, turn: Turn) -> u16 {
        let further = match turn {
            Turn::Answer { stands_in, .. } | Turn::DieInFlight { stands_in, .. } if claimed.unknowns == 0 => stands_in,
            _ => 0,
        };
        (claimed.lane + u16::from(further)).min(self.lanes.len() as u16 - 1)
    }

    fn conclude(&self, claimed: &Claimed, asked: u16, word: Word, probe: bool) -> Settlement {
        let result = said(word);
        let answered = Answered {
            claimed,
            to: "a@example.com",
            number: claimed.attempts + 1,
            probe,
            duration: Duration::from_millis(40),
            result: &result,
        };
        conclude(&answered, &self.lanes[usize::from(asked)], &self.schedule(), "o", self.now)
    }

    /// The lease expires, and after so many heirs that die as well one settles.
    fn inherit(&mut self, dying: u8) -> TestCaseResult {
        let (before, flying) = (self.row.claimed.clone(), self.row.begun);
        prop_assert!(self.row.take_over(0, self.row.lease_until).is_none(), "a lease holds to its last moment");
        for _ in 0..dying {
            let heir = self.born();
            self.now = self.now.max(self.row.lease_until + Duration::from_millis(1));
            prop_assert!(self.row.take_over(heir, self.now).is_some());
        }
        let heir = self.born();
        self.now = self.now.max(self.row.lease_until + Duration::from_millis(1));
        let (claimed, interrupted) = self.row.take_over(heir, self.now).expect("its lease is over");
        prop_assert_eq!(interrupted, flying, "whoever takes over knows who may have it");
        let Some(lane) = interrupted else {
            let settlement = put_back(&claimed, "o", self.now);
            prop_assert_eq!(settlement.next_attempt_at, before.due, "nothing left, so it keeps its time");
            prop_assert_eq!((settlement.round, settlement.lane), (before.round, before.lane));
            return self.take(heir, &settlement);
        };
        prop_assert_eq!((claimed.attempts, claimed.unknowns), (before.attempts + 1, before.unknowns + 1));
        let schedule = self.schedule();
        // As the lease keeper does: with the provider that may have it.
        let claimed = Claimed { lane, ..claimed };
        let settlement = conclude_interrupted(&claimed, "provider", self.rules(lane, &schedule), "o", self.now);
        prop_assert_eq!(settlement.unknowns, before.unknowns + 1, "it is counted once");
        prop_assert!(settlement.attempt.is_none(), "the take-over has recorded it");
        // It is what the provider's silence would have been, had somebody been there to hear it.
        let heard = self.conclude(&before, lane, Word::Unknown, false);
        prop_assert_eq!(
            (heard.state, heard.round, heard.lane, heard.next_attempt_at, heard.unknowns),
            (settlement.state, settlement.round, settlement.lane, settlement.next_attempt_at, settlement.unknowns)
        );
        self.outcomes.push(Outcome::Unknown);
        self.check(&before, lane, Word::Unknown, false, &settlement)?;
        self.take(heir, &settlement)
    }

    fn take(&mut self, owner: u32, settlement: &Settlement) -> TestCaseResult {
        prop_assert!(self.row.settle(owner, settlement), "the owner settles");
        self.outcomes.extend(settlement.attempt.as_ref().map(|attempt| attempt.outcome));
        self.told.extend(settlement.outbox.iter().map(|message| message.kind));
        prop_assert_eq!(self.outcomes.len(), self.row.claimed.attempts as usize, "every attempt has its outcome");
        if self.row.state.is_settled() {
            prop_assert!(self.row.claimed.due.is_none());
            let later = self.now + Duration::from_secs(1_000_000);
            prop_assert!(self.row.claim(0, later).is_none() && self.row.take_over(0, later).is_none(), "for good");
        }
        Ok(())
    }

    /// What an answer may lead to.
    fn check(&mut self, before: &Claimed, asked: u16, word: Word, probe: bool, after: &Settlement) -> TestCaseResult {
        let left = before.round < self.steps.len() as u16;
        let on_unknown = self.lanes[usize::from(asked)].on_unknown;
        let last_lane = usize::from(asked) + 1 == self.lanes.len();
        let expected = match word {
            Word::Accepted => State::Sent,
            Word::Permanent | Word::Gone => State::Failed,
            Word::Suppressed => State::Suppressed,
            Word::RateLimited { .. } => State::Retrying,
            Word::Transient if probe || !last_lane || left || asked != before.lane => State::Retrying,
            // What a mailbox does says nothing of its server: as a probe it counts, and a stand-in's word is the last.
            Word::Deferred if !last_lane || left => State::Retrying,
            Word::Unknown => match on_unknown {
                OnUnknown::Retry if probe || left => State::Retrying,
                OnUnknown::RetryOnce if before.unknowns == 0 && left => State::Retrying,
                _ => State::Failed,
            },
            Word::Transient | Word::Deferred => State::Failed,
        };
        prop_assert_eq!(after.state, expected, "{:?} in round {} of lane {}", word, before.round, before.lane);
        prop_assert!(after.round == before.round || after.round == before.round + 1);
        prop_assert!(usize::from(after.round) <= self.steps.len());
        if after.state != State::Retrying {
            prop_assert!(after.next_attempt_at.is_none());
            return Ok(());
        }
        let wait = after.next_attempt_at.expect("a time").duration_since(self.now);
        prop_assert!(wait >= SignedDuration::ZERO, "never in the past: {wait}");
        if after.round > before.round {
            self.in_round = 0;
            let counts = word == Word::Deferred || word == Word::Unknown && on_unknown != OnUnknown::Retry;
            prop_assert!(!probe || counts, "a probe uses no step");
            let step = SignedDuration::try_from(self.steps[usize::from(before.round)]).expect("short");
            let most = step + step / 10 + SignedDuration::from_millis(1);
            prop_assert!(step <= wait && wait <= most, "{wait} instead of {step}");
            prop_assert_eq!(after.lane, if word == Word::Unknown { asked } else { 0 });
            return Ok(());
        }
        match word {
            Word::RateLimited { seconds } => {
                let seconds = if asked == before.lane { seconds.max(1) } else { 1 };
                prop_assert_eq!(wait, SignedDuration::from_secs(seconds as i64));
                prop_assert_eq!(after.lane, before.lane, "it goes back");
                self.extra += 1;
            }
            Word::Transient if !probe && last_lane => {
                prop_assert!(asked != before.lane && after.lane == 0 && !left, "its own provider was not asked");
                let step = self.steps.last().copied().unwrap_or(Duration::from_secs(60));
                prop_assert!(wait >= SignedDuration::try_from(step).expect("short"), "{wait} instead of {step:?}");
                // The round begins anew: what it had so far comes on top.
                self.extra += std::mem::take(&mut self.in_round) + 1;
            }
            _ if word == Word::Deferred || word == Word::Transient && !probe => {
                prop_assert_eq!((wait, after.lane), (SignedDuration::ZERO, asked + 1), "failover is at once");
                self.in_round += 1;
            }
            _ => {
                let lane = if word == Word::Unknown { asked } else { before.lane };
                prop_assert!(probe && after.lane == lane);
                self.extra += 1;
            }
        }
        Ok(())
    }

    /// What holds whatever happened.
    fn end(&self) -> TestCaseResult {
        let rounds = self.steps.len() + 1;
        prop_assert!(self.outcomes.len() <= rounds * self.lanes.len() + self.extra, "{:?}", self.outcomes);
        let (last, before) = self.outcomes.split_last().expect("it was tried");
        prop_assert!(
            !before.iter().any(|o| matches!(o, Outcome::Accepted | Outcome::Permanent)),
            "{:?}",
            self.outcomes
        );
        let unknowns = self.outcomes.iter().filter(|outcome| **outcome == Outcome::Unknown).count();
        prop_assert_eq!(self.row.claimed.unknowns as usize, unknowns);
        let all = |policy| self.lanes.iter().all(|lane| lane.on_unknown == policy);
        if all(OnUnknown::Hold) {
            prop_assert!(!before.contains(&Outcome::Unknown), "nothing follows: {:?}", self.outcomes);
        }
        if all(OnUnknown::RetryOnce) {
            prop_assert!(unknowns <= 2 && (unknowns < 2 || *last == Outcome::Unknown), "{:?}", self.outcomes);
        }
        let told = match self.row.state {
            State::Failed => &[OutboxKind::Lifecycle, OutboxKind::DeadLetter][..],
            _ => &[OutboxKind::Lifecycle],
        };
        prop_assert_eq!(&self.told[..], told, "told once");
        let accepted = *last == Outcome::Accepted;
        prop_assert_eq!(accepted, self.row.state == State::Sent);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_always_comes_to_one_end(
        steps in prop::collection::vec(1u64..10_000_000, 0..6),
        policies in prop_oneof![
            2 => prop::collection::vec(policy(), 1..4),
            1 => (policy(), 1usize..4).prop_map(|(policy, lanes)| vec![policy; lanes]),
        ],
        turns in prop::collection::vec(turn(), 0..40),
    ) {
        let mut model = Model::new(&steps, &policies);
        for turn in turns {
            if model.row.state.is_settled() {
                break;
            }
            model.turn(turn)?;
        }
        // A provider that only fails ends everything within the rounds that are left.
        for _ in 0..(steps.len() + 1) * policies.len() {
            if model.row.state.is_settled() {
                break;
            }
            model.turn(Turn::Answer { word: Word::Transient, probe: false, stands_in: 0 })?;
        }
        prop_assert!(model.row.state.is_settled(), "it ends: {:?}", model.row.state);
        model.end()?;
    }

    #[test]
    fn what_travels_with_another_one_fares_as_that_does(
        steps in prop::collection::vec(1u64..10_000, 0..3),
        policies in prop::collection::vec(policy(), 1..3),
        round in 0u16..3,
        unknowns in 1u32..3,
        word in word(),
    ) {
        let model = Model::new(&steps, &policies);
        let schedule = model.schedule();
        let leader = Claimed { round, unknowns, attempts: 3, ..claimed() };
        let follower = Claimed { seq: 2, id: "follower".into(), digest_id: Some("n".into()), due: None, ..claimed() };
        let result = said(word);
        let (to, duration) = ("a@example.com", Duration::ZERO);
        let answered = Answered { claimed: &leader, to, number: 4, probe: false, duration, result: &result };
        let heard = (
            conclude(&answered, &model.lanes[0], &schedule, "o", model.now),
            conclude_follower(&answered, &follower, &model.lanes[0], &schedule, "o", model.now),
        );
        let rules = model.rules(0, &schedule);
        let interrupted = (
            conclude_interrupted(&leader, "provider", rules, "o", model.now),
            conclude_interrupted_follower(&leader, &follower, "provider", rules, "o", model.now),
        );
        for (leading, following) in [heard, interrupted] {
            prop_assert_eq!(following.id.as_str(), "follower");
            prop_assert!(following.attempt.is_none(), "the attempt is the leader's");
            if leading.state == State::Retrying {
                prop_assert_eq!((following.state, following.next_attempt_at), (State::Pending, None), "it waits for it");
                prop_assert!(following.outbox.is_empty());
            } else {
                prop_assert_eq!(following.state, leading.state);
                prop_assert_eq!(following.outbox.len(), leading.outbox.len(), "each is told");
            }
        }
        // Taken over without a word of the leader, it waits for it as well.
        let put_back = put_back(&follower, "o", model.now);
        prop_assert_eq!((put_back.state, put_back.next_attempt_at), (State::Pending, None));
    }
}

#[test]
fn every_word_has_its_outcome() {
    let words =
        [Word::Accepted, Word::Transient, Word::Deferred, Word::Permanent, Word::Unknown, Word::Gone, Word::Suppressed];
    let outcomes = words.map(|word| outcome(&said(word)).as_str());
    assert_eq!(outcomes, ["accepted", "transient", "transient", "permanent", "unknown", "permanent", "permanent"]);
    assert_eq!(outcome(&said(Word::RateLimited { seconds: 1 })), Outcome::RateLimited);
}
