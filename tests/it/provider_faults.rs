//! Providers that misbehave: each costs what it must, and no other lane anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::support::events::{Input, request};
use crate::support::provider::{Answer, FakeProvider};
use crate::support::published::Story;
use crate::support::service::{attempts, outcomes};
use crate::support::setup::Setup;
use crate::support::verify;
use crate::support::wait::{self, secs};

const SOMEONE: &str = "someone@example.com";
const QUICK: &str = "[delivery.retry]\nschedule_ms = [500, 500, 1000]\n";

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_slow_or_dead_provider_delays_no_other_lane() {
    const TEXTS: usize = 100;
    const HOOKS: usize = 400;
    const MAILS: usize = 1_000;
    let provider = FakeProvider::answering(|arrival| match arrival.path.as_str() {
        "/sms" => Answer::Hang,
        "/webhook" => Answer::After(Duration::from_millis(800), Box::new(Answer::Accept)),
        _ => Answer::Accept,
    });
    // A notification that failed does not come back within this test.
    let settings = "[delivery]\nmax_in_flight = 20\n[delivery.retry]\nschedule_ms = [600000]\n";
    let channels = [("sms", secs(1)), ("webhook", secs(5)), ("email", secs(1))];
    let providers = channels.map(|(channel, timeout)| provider.named(channel, channel, timeout)).concat();
    let setup = Setup::new(settings, &providers);
    let service = setup.start();
    let many = |channel: &str, to: &str, count: usize| -> Vec<Input> {
        (0..count).map(|n| request(&format!("{channel}-{n}"), channel, to).input()).collect()
    };
    let hooks = many("webhook", "https://hooks.example.com/orders", HOOKS);
    setup.kafka.produce([many("sms", "+15550100123", TEXTS), hooks].concat());
    let seen = |path: &str| provider.arrivals().iter().filter(|arrival| arrival.path == path).count();
    wait::until("both lanes are stuck", secs(20), || (seen("/sms") > 0 && seen("/webhook") > 0).then_some(()));

    setup.kafka.produce(many("email", SOMEONE, MAILS));
    wait::until("the e-mails are accepted", secs(30), || (seen("/email") == MAILS).then_some(()));
    let hooks = seen("/webhook");
    assert!(hooks < HOOKS, "they did not wait for the slow lane, where {hooks} were sent");
    wait::until("the dead lane shows unknown outcomes", secs(20), || {
        let unknown = setup.database.fates().into_iter().filter(|(_, fate)| fate.outcomes == ["unknown"]);
        unknown.map(|(id, _)| assert!(id.starts_with("sms-"), "{id}")).next()
    });
    let fates = setup.database.fates();
    let texts: Vec<&str> =
        fates.iter().filter(|(id, _)| id.starts_with("sms-")).map(|(_, fate)| fate.state.as_str()).collect();
    let waiting = texts.iter().all(|state| matches!(*state, "pending" | "sending" | "retrying"));
    assert!(texts.len() == TEXTS && waiting, "they wait: {texts:?}");
    assert_eq!(setup.database.dead_letter_count(), 0);
    wait::until("health tells of it", secs(20), || {
        (service.get("/health").json()["status"] == "degraded").then_some(())
    });
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn an_outage_longer_than_the_schedule_costs_no_notification() {
    const COUNT: usize = 60;
    let steps = [300, 300];
    let well = Arc::new(AtomicBool::new(false));
    let provider = FakeProvider::answering({
        let well = Arc::clone(&well);
        move |_| if well.load(Ordering::SeqCst) { Answer::Accept } else { Answer::Status(503) }
    });
    let settings = format!(
        "[breaker]\nrecovery_timeout_ms = 200\n[delivery]\nmax_in_flight = 8\n[delivery.retry]\nschedule_ms = {steps:?}\n"
    );
    let setup = Setup::new(&settings, &provider.named("email", "email", secs(1)));
    let _service = setup.start();
    setup.kafka.produce((0..COUNT).map(|n| request(&format!("n-{n}"), "email", SOMEONE).input()).collect());
    // A few requests open the breaker, the rest are its probes.
    let during =
        wait::until("many probes fail", secs(60), || Some(provider.arrivals()).filter(|arrivals| arrivals.len() >= 40));
    let lasted = during[during.len() - 1].at - during[0].at;
    assert!(lasted > Duration::from_millis(steps.iter().sum::<u64>() * 11 / 10), "only {lasted:?}");
    well.store(true, Ordering::SeqCst);
    provider.wait_for_accepted(COUNT, secs(60));
    setup.database.wait_until_settled(secs(20));
    let fates = setup.database.fates();
    assert_eq!(fates.len(), COUNT);
    for (id, fate) in fates {
        let (last, before) = fate.outcomes.split_last().expect("an attempt");
        let fine = fate.state == "sent" && last == "accepted" && before.iter().all(|outcome| outcome == "transient");
        assert!(fine, "{id}: {fate:?}");
        assert_eq!(provider.arrivals_of(&id).len(), fate.outcomes.len(), "{id}");
    }
    assert!(Story::of(&setup.kafka).letters.is_empty() && setup.database.dead_letter_count() == 0);
}

/// With the breaker and the schedule as they are by default.
#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_minute_of_503_costs_no_notification_and_few_calls() {
    const OUTAGE: Duration = Duration::from_secs(60);
    const FIRST: usize = 10;
    // As many consecutive failures open the breaker.
    const ENOUGH: usize = 5;
    const COUNT: usize = 500;
    // One every 10 s, and some room.
    const PROBES: usize = 12;
    let began = Arc::new(OnceLock::new());
    let provider = FakeProvider::answering({
        let began = Arc::clone(&began);
        move |_| if began.get_or_init(Instant::now).elapsed() < OUTAGE { Answer::Status(503) } else { Answer::Accept }
    });
    let settings = "[breaker]\nrecovery_timeout_ms = 10000\n\
                    [delivery.retry]\nschedule_ms = [5000, 30000, 120000, 600000, 1800000, 7200000]\n";
    let setup = Setup::new(settings, &provider.named("email", "email", secs(1)));
    let _service = setup.start();
    let requests = |numbers: std::ops::Range<usize>| -> Vec<Input> {
        numbers.map(|n| request(&format!("n-{n}"), "email", SOMEONE).input()).collect()
    };
    setup.kafka.produce(requests(0..FIRST));
    // They open the breaker; the rest waits behind it.
    wait::until("some fail", secs(20), || (provider.arrivals().len() >= ENOUGH).then_some(()));
    setup.kafka.produce(requests(FIRST..COUNT));
    provider.wait_for_accepted(COUNT, secs(180));

    let began = *began.get().expect("there were calls");
    let (during, after): (Vec<_>, Vec<_>) = provider.arrivals().into_iter().partition(|a| a.at - began < OUTAGE);
    assert!(during.iter().any(|a| a.at - began > OUTAGE / 2), "nobody asked during the outage");
    assert!((ENOUGH..=FIRST + PROBES).contains(&during.len()), "{} calls during the outage", during.len());
    assert_eq!(after.len(), COUNT, "each is sent once when the provider is back");
    setup.database.wait_until_settled(secs(20));
    for (id, fate) in setup.database.fates() {
        let (last, before) = fate.outcomes.split_last().expect("an attempt");
        let fine = fate.state == "sent" && last == "accepted" && before.iter().all(|outcome| outcome == "transient");
        assert!(fine, "{id}: {fate:?}");
    }
    assert!(Story::of(&setup.kafka).letters.is_empty() && setup.database.dead_letter_count() == 0);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn the_waits_between_rounds_are_those_of_the_schedule() {
    let steps = [400, 800, 1200];
    let provider = FakeProvider::answering(|a| if a.nth <= 3 { Answer::Status(503) } else { Answer::Accept });
    let settings = format!("[delivery.retry]\nschedule_ms = {steps:?}\n");
    let setup = Setup::new(&settings, &provider.named("email", "email", secs(1)));
    let service = setup.start();
    setup.kafka.produce_one(request("n-1", "email", SOMEONE).input());
    let sent = service.wait_for_state("n-1", "sent", secs(30));
    assert_eq!(outcomes(&sent), ["transient", "transient", "transient", "accepted"]);
    let arrivals = provider.arrivals_of("n-1");
    for (pair, step) in arrivals.windows(2).zip(steps) {
        let waited = pair[1].at - pair[0].at;
        assert!(waited >= Duration::from_millis(step - 10), "{waited:?} instead of {step} ms");
    }
    assert!(Story::of(&setup.kafka).letters.is_empty());
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn an_answer_that_breaks_off_or_makes_no_sense_is_unknown_unless_its_status_is_there() {
    let cases: [(&str, &str, bool, &[&str]); 5] = [
        ("n-garbage", "SSH-2.0-OpenSSH_9.6\r\n", false, &["unknown", "accepted"]),
        ("n-head", "HTTP/1.1 20", false, &["unknown", "accepted"]),
        ("n-nothing", "", false, &["unknown", "accepted"]),
        (
            "n-failed",
            "HTTP/1.1 503 As Told\r\nContent-Length: 90\r\n\r\n{\"error\":",
            false,
            &["transient", "accepted"],
        ),
        ("n-taken", "HTTP/1.1 200 As Told\r\nContent-Length: 90\r\n\r\n{\"id\":\"rec", true, &["accepted"]),
    ];
    let provider = FakeProvider::answering(move |a| {
        let case = cases.iter().find(|(id, ..)| *id == a.key && a.nth == 1);
        case.map_or(Answer::Accept, |&(_, bytes, taken, _)| Answer::Broken { bytes, taken })
    });
    let setup = Setup::new(QUICK, &provider.named("email", "email", secs(5)));
    let service = setup.start();
    setup.kafka.produce(cases.iter().map(|(id, ..)| request(id, "email", SOMEONE).input()).collect());
    for (id, _, _, expected) in cases {
        let sent = service.wait_for_state(id, "sent", secs(30));
        assert_eq!(outcomes(&sent), expected, "{sent}");
        let arrivals = provider.arrivals_of(id);
        assert_eq!(arrivals.len(), expected.len(), "{id}");
        for pair in arrivals.windows(2) {
            let waited = pair[1].at - pair[0].at;
            assert!(waited >= Duration::from_millis(490), "{id} came again after {waited:?}");
            assert_eq!(pair[0].document().id, pair[1].document().id);
        }
    }
    let taken = service.notification("n-taken").expect("it is known");
    assert!(taken["receipt"].is_null(), "half a receipt is none: {taken}");
    assert!(Story::of(&setup.kafka).letters.is_empty());
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn after_silence_the_same_provider_is_asked_again_and_no_other_one() {
    let silent_once = |a: &crate::support::provider::Arrival| if a.nth == 1 { Answer::Hang } else { Answer::Accept };
    let provider = FakeProvider::answering(silent_once);
    let providers = provider.first_and_second(secs(1));
    let setup = Setup::new(QUICK, &providers);
    let service = setup.start();
    setup.kafka.produce_one(request("n-1", "email", SOMEONE).input());
    let sent = service.wait_for_state("n-1", "sent", secs(30));
    assert_eq!(outcomes(&sent), ["unknown", "accepted"]);
    assert_eq!(attempts(&sent, "provider"), ["first", "first"], "only it knows the key");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn silence_goes_to_a_person_as_the_policy_says() {
    let provider = FakeProvider::answering(|_| Answer::Hang);
    let providers = [("email", "hold"), ("sms", "retry_once")]
        .map(|(channel, policy)| format!("{}on_unknown = \"{policy}\"\n", provider.named(channel, channel, secs(1))));
    let setup = Setup::new(QUICK, &providers.concat());
    let service = setup.start();
    let inputs = [request("n-hold", "email", SOMEONE), request("n-once", "sms", "+15550100123")];
    setup.kafka.produce(inputs.map(|event| event.input()).to_vec());
    for (id, expected) in [("n-hold", &["unknown"][..]), ("n-once", &["unknown", "unknown"])] {
        let failed = service.wait_for_state(id, "failed", secs(30));
        assert_eq!(outcomes(&failed), expected, "{failed}");
        assert_eq!(provider.arrivals_of(id).len(), expected.len(), "{id}");
    }
    let letters = wait::until("both dead letters", secs(20), || {
        Some(Story::of(&setup.kafka).letters).filter(|letters| letters.len() == 2)
    });
    for letter in letters {
        verify::sound_letter(&letter);
        assert_eq!((letter.error_class.as_str(), letter.error_code.as_str()), ("ambiguous", "unknown_outcome"));
    }
}
