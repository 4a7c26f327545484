//! Rules that depend on time, over every zone's changes of the clocks and over clocks that jump.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::decide::{Next, OnUnknown, Progress, Rules, after_failure};
use super::rules::{Gate, HouseRules, NamedZone};
use super::schedule::Schedule;
use super::state_tests::claimed;
use crate::domain::preferences::{Preferences, QuietHours};
use crate::domain::recipient::Recipient;
use crate::ports::ledger::Claimed;
use crate::ports::provider::SendError;

/// Northern and southern summers, half an hour of change (Lord Howe), changes at midnight (Santiago, Cairo, Beirut,
/// Azores), an hour away from the full one (Chatham), days that were skipped (Apia), and none at all.
const ZONES: [&str; 12] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Beirut",
    "Atlantic/Azores",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "Pacific/Apia",
    "Asia/Kolkata",
    "UTC",
];
/// 2010 to 2040: with past oddities and the rules that hold now.
const FROM: i64 = 1_262_304_000;
const TO: i64 = 2_208_988_800;
const DAY: i64 = 86_400;

fn zone() -> impl Strategy<Value = TimeZone> {
    prop::sample::select(&ZONES[..]).prop_map(|name| TimeZone::get(name).expect("a zone"))
}

/// Any moment, or one around a change of the zone's clocks.
fn moment() -> impl Strategy<Value = (TimeZone, Timestamp)> {
    (zone(), FROM..TO, prop::option::weighted(0.7, -2 * DAY..2 * DAY)).prop_map(|(zone, second, around)| {
        let any = Timestamp::from_second(second).expect("in range");
        let change = zone.following(any).next().map(|change| change.timestamp());
        let moment = match (change, around) {
            (Some(change), Some(around)) => change + SignedDuration::from_secs(around),
            _ => any,
        };
        (zone, moment)
    })
}

/// A minute of the day, more often one in the hours in which clocks change.
fn minute() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..1440, 0u32..240, 1380u32..1440]
}

fn clock(minutes: u32) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

fn quiet(from: u32, to: u32) -> Preferences {
    Preferences { quiet_hours: Some(QuietHours { from: clock(from), to: clock(to) }), ..Preferences::default() }
}

/// What a watch on the recipient's wall says.
fn is_quiet(at: Timestamp, zone: &TimeZone, from: u32, to: u32) -> bool {
    let time = at.to_zoned(zone.clone()).time();
    let minute = time.hour() as u32 * 60 + time.minute() as u32;
    if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
}

fn waiting(preferences: Preferences) -> Claimed {
    Claimed { preferences: Some(preferences), ..claimed() }
}

fn house(zone: &TimeZone) -> HouseRules {
    let name = zone.iana_name().unwrap_or("UTC").to_owned();
    HouseRules { exempt_categories: Vec::new(), default_time_zone: NamedZone { name, zone: zone.clone() } }
}

#[test]
fn only_utc_is_nobody_s_time() {
    let of_times = |name: &str| NamedZone { name: name.to_owned(), zone: TimeZone::UTC }.of_times().map(str::to_owned);
    for name in ["UTC", "utc", "Etc/UTC", "Zulu"] {
        assert_eq!(of_times(name), None, "{name}");
    }
    for name in ["Europe/Berlin", "Europe/London", "GMT", "Etc/GMT+1"] {
        assert_eq!(of_times(name).as_deref(), Some(name));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn quiet_hours_end_in_every_zone((zone, now) in moment(), from in minute(), to in minute()) {
        prop_assume!(from != to);
        let preferences = quiet(from, to);
        // Where a day was skipped, quiet hours over midnight lasted through it.
        let longest = if zone.iana_name() == Some("Pacific/Apia") { 25 + 24 } else { 25 };
        // Where the clocks skip the only minutes that are not quiet, whoever waited is told to wait once more.
        let mut ask = now;
        for _ in 0..2 {
            let Some(end) = preferences.quiet_until(ask, &zone) else { break };
            prop_assert!(is_quiet(ask, &zone, from, to), "nobody waits outside of quiet hours");
            let wait = end.duration_since(ask);
            prop_assert!(wait > SignedDuration::ZERO && wait < SignedDuration::from_hours(longest), "{wait}");
            ask = end;
        }
        prop_assert!(!is_quiet(ask, &zone, from, to), "it is still quiet at {}", ask.to_zoned(zone.clone()));
    }

    #[test]
    fn a_gate_that_was_shut_opens_when_it_said_and_not_before(
        (zone, now) in moment(), from in minute(), to in minute(), back in 0i64..2 * DAY, of_recipient in any::<bool>(),
    ) {
        prop_assume!(from != to);
        // The recipient's zone comes before that of the house.
        let elsewhere = TimeZone::get("Pacific/Kiritimati").expect("a zone");
        let house = house(if of_recipient { &elsewhere } else { &zone });
        let time_zone = zone.iana_name().map(str::to_owned).filter(|_| of_recipient);
        prop_assume!(!of_recipient || time_zone.is_some());
        let contact = of_recipient.then(|| Recipient { time_zone, ..Recipient::default() });
        let claimed = Claimed { contact, ..waiting(quiet(from, to)) };
        // A clock that goes backwards asks again, and gets an answer for the time that it shows.
        for mut now in [now, now - SignedDuration::from_secs(back)] {
            let critical = Claimed { critical: true, ..claimed.clone() };
            prop_assert_eq!(house.gate(&critical, now), Gate::Open, "what is critical waits for nothing");
            let mut waits = 0;
            while let Gate::Later { at, .. } = house.gate(&claimed, now) {
                prop_assert!(at > now && waits < 2);
                (now, waits) = (at, waits + 1);
            }
            prop_assert_eq!(house.gate(&claimed, now), Gate::Open);
            prop_assert!(!is_quiet(now, &zone, from, to), "it never opens early: {}", now.to_zoned(zone.clone()));
        }
    }

    #[test]
    fn what_is_expired_stays_so_as_time_goes_on((zone, now) in moment(), lapse in -DAY..DAY, later in 0i64..30 * DAY) {
        let expires_at = Some(now + SignedDuration::from_secs(lapse));
        let claimed = Claimed { expires_at, ..waiting(Preferences::default()) };
        let house = house(&zone);
        let gate = house.gate(&claimed, now);
        prop_assert_eq!(gate == Gate::Expired, lapse <= 0, "the last moment is over");
        if gate == Gate::Expired {
            prop_assert_eq!(house.gate(&claimed, now + SignedDuration::from_secs(later)), Gate::Expired);
        }
    }

    #[test]
    fn a_jump_of_the_clock_moves_a_due_time_with_it_and_never_before_it(
        second in FROM..TO, jump in -30 * DAY..30 * DAY, steps in prop::collection::vec(1u64..7_200_000, 1..7),
        round in any::<prop::sample::Index>(), id in "[a-z0-9-]{1,36}",
    ) {
        let round = round.index(steps.len()) as u16;
        let schedule = Schedule::new(steps.iter().copied().map(Duration::from_millis).collect());
        let rules = Rules { lanes: 1, schedule: &schedule, on_unknown: OnUnknown::Retry };
        let progress = Progress { id: &id, round, lane: 0, home: 0, unknowns: 0 };
        let due = |now| match after_failure(&SendError::Transient("503".into()), false, progress, rules, now) {
            Next::Again { at, .. } => at.duration_since(now),
            other => panic!("a step is left: {other:?}"),
        };
        let now = Timestamp::from_second(second).expect("in range");
        let wait = due(now);
        prop_assert_eq!(due(now + SignedDuration::from_secs(jump)), wait, "the same wait, whatever the clock shows");
        let step = SignedDuration::from_millis(steps[usize::from(round)] as i64);
        prop_assert!(wait >= step && wait <= step + step / 10 + SignedDuration::from_nanos(10), "{wait} for {step}");
    }
}

#[test]
fn a_wait_beyond_the_end_of_time_ends_there() {
    let schedule = Schedule::default();
    let rules = Rules { lanes: 1, schedule: &schedule, on_unknown: OnUnknown::Retry };
    let progress = Progress { id: "n", round: 0, lane: 0, home: 0, unknowns: 0 };
    let limited = SendError::RateLimited { retry_after: Duration::MAX, reason: String::new() };
    let next = after_failure(&limited, false, progress, rules, Timestamp::UNIX_EPOCH);
    assert_eq!(next, Next::Again { at: Timestamp::MAX, round: 0, lane: 0 });
}
