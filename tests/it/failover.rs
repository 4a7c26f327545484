//! Several providers of a channel: what one does not take the next one gets, singly and in an outage.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::events::request;
use crate::support::provider::{Answer, FakeProvider};
use crate::support::published::Story;
use crate::support::service::attempts;
use crate::support::setup::Setup;
use crate::support::wait::{self, secs};

const SOMEONE: &str = "someone@example.com";

/// The breaker stays closed, so each is tried with each provider in each round.
#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn what_the_first_provider_never_takes_the_second_one_gets_once() {
    const COUNT: usize = 300;
    // Of the late ones the second takes none before the last round.
    let provider = FakeProvider::answering(|a| match a.path.as_str() {
        "/second" if a.nth > 2 || !a.key.starts_with("late") => Answer::Accept,
        _ => Answer::Status(503),
    });
    let settings = "[breaker]\nfailure_threshold = 100000\nminimum_calls = 100000\n\
                    [delivery.retry]\nschedule_ms = [300]\n";
    let providers = provider.first_and_second(secs(5));
    let setup = Setup::new(settings, &providers);
    let service = setup.start();
    let id = |n: usize| if n < COUNT / 3 { format!("late-{n}") } else { format!("n-{n}") };
    setup.kafka.produce((0..COUNT).map(|n| request(&id(n), "email", SOMEONE).input()).collect());
    provider.wait_for_accepted(COUNT, secs(60));
    setup.database.wait_until_settled(secs(20));

    let fates = setup.database.fates();
    assert_eq!(fates.len(), COUNT);
    for (id, fate) in fates {
        let rounds = if id.starts_with("late") { 2 } else { 1 };
        let arrivals = provider.arrivals_of(&id);
        let asked: Vec<&str> = arrivals.iter().map(|arrival| arrival.path.as_str()).collect();
        assert_eq!(asked, ["/first", "/second"].repeat(rounds), "{id}");
        assert_eq!(arrivals.iter().filter(|arrival| arrival.accepted).count(), 1, "{id}");
        let (last, before) = fate.outcomes.split_last().expect("an attempt");
        let fine = fate.state == "sent" && last == "accepted" && before.iter().all(|outcome| outcome == "transient");
        assert!(fine && fate.outcomes.len() == asked.len(), "{id}: {fate:?}");
    }
    let late = service.notification("late-0").expect("it is known");
    assert_eq!(attempts(&late, "provider"), ["first", "second"].repeat(2), "{late}");
    assert!(Story::of(&setup.kafka).letters.is_empty() && setup.database.dead_letter_count() == 0);
}

/// With the breaker's threshold and the schedule as they are by default: nobody waits for the first step.
#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn while_the_first_provider_is_away_the_second_one_sends_and_nobody_waits() {
    const COUNT: usize = 300;
    let well = Arc::new(AtomicBool::new(false));
    let provider = FakeProvider::answering({
        let well = Arc::clone(&well);
        move |a| match a.path.as_str() {
            "/first" if !well.load(Ordering::SeqCst) => Answer::Status(503),
            _ => Answer::Accept,
        }
    });
    let settings = "[breaker]\nrecovery_timeout_ms = 1000\n[delivery.retry]\nschedule_ms = [600000]\n";
    let providers = provider.first_and_second(secs(5));
    let setup = Setup::new(settings, &providers);
    let service = setup.start();
    let produce =
        |ids: &[String]| setup.kafka.produce(ids.iter().map(|id| request(id, "email", SOMEONE).input()).collect());
    let ids: Vec<String> = (0..COUNT).map(|n| format!("n-{n}")).collect();
    // In two portions: the second one finds the breaker open.
    produce(&ids[..COUNT / 3]);
    provider.wait_for_accepted(COUNT / 3, secs(60));
    produce(&ids[COUNT / 3..]);
    provider.wait_for_accepted(COUNT, secs(60));
    setup.database.wait_until_settled(secs(20));
    let mut untried = 0;
    for (id, fate) in setup.database.fates() {
        let asked: Vec<String> = provider.arrivals_of(&id).iter().map(|arrival| arrival.path.clone()).collect();
        assert_eq!(
            (fate.state.as_str(), asked.last().map(String::as_str)),
            ("sent", Some("/second")),
            "{id}: {fate:?}"
        );
        assert_eq!(asked.iter().filter(|path| *path == "/second").count(), 1, "{id}: {asked:?}");
        assert_eq!(fate.outcomes.len(), asked.len(), "{id}: {fate:?}");
        untried += usize::from(asked.len() == 1);
    }
    assert!(untried > 0, "the breaker was never open");

    well.store(true, Ordering::SeqCst);
    let mut probe = 0..;
    let back = wait::until("the first one sends again", secs(60), || {
        let id = format!("later-{}", probe.next()?);
        produce(std::slice::from_ref(&id));
        service.wait_for_state(&id, "sent", secs(20));
        let first = provider.arrivals_of(&id).last().is_some_and(|arrival| arrival.path == "/first");
        first.then_some(id)
    });
    assert_eq!(attempts(&service.notification(&back).expect("it is known"), "provider"), ["first"]);
    assert!(Story::of(&setup.kafka).letters.is_empty() && setup.database.dead_letter_count() == 0);
}

/// It takes connections and says nothing. What was sent to it stays with it, for it may have it; nothing else waits.
#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn while_the_first_provider_hangs_only_what_it_may_have_waits_for_it() {
    const COUNT: usize = 300;
    let well = Arc::new(AtomicBool::new(false));
    let provider = FakeProvider::answering({
        let well = Arc::clone(&well);
        move |a| match a.path.as_str() {
            "/first" if !well.load(Ordering::SeqCst) => Answer::Hang,
            _ => Answer::Accept,
        }
    });
    let settings = "[breaker]\nrecovery_timeout_ms = 2000\n[delivery]\nmax_in_flight = 20\n\
                    [delivery.retry]\nschedule_ms = [5000, 5000, 5000, 5000]\n";
    let setup = Setup::new(settings, &provider.first_and_second(secs(1)));
    let _service = setup.start();
    setup.kafka.produce((0..COUNT).map(|n| request(&format!("n-{n}"), "email", SOMEONE).input()).collect());
    let at_second = || provider.accepted_count();
    let untouched = || {
        let fates = setup.database.fates();
        let touched = fates.values().filter(|fate| fate.outcomes.iter().any(|outcome| outcome == "unknown")).count();
        (fates.len() == COUNT && touched > 0 && at_second() + touched >= COUNT).then_some(touched)
    };
    let touched = wait::until("the second one has sent all that the first one cannot have", secs(60), untouched);
    assert!(touched < COUNT / 2, "{touched} were sent to one that hangs");

    well.store(true, Ordering::SeqCst);
    provider.wait_for_accepted(COUNT, secs(60));
    setup.database.wait_until_settled(secs(60));
    for (id, fate) in setup.database.fates() {
        let arrivals = provider.arrivals_of(&id);
        assert_eq!(
            (fate.state.as_str(), arrivals.iter().filter(|a| a.accepted).count()),
            ("sent", 1),
            "{id}: {fate:?}"
        );
        let paths: BTreeSet<&str> = arrivals.iter().map(|arrival| arrival.path.as_str()).collect();
        assert_eq!(paths.len(), 1, "one that may have it, and nobody else: {id}: {fate:?}");
    }
    assert_eq!(setup.database.dead_letter_count(), 0);
}

/// Nothing is left in the stand-in's own lane: what it stands in for is what it is probed with.
#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_stand_in_that_was_away_as_well_is_asked_again() {
    const COUNT: usize = 20;
    let well = Arc::new(AtomicBool::new(false));
    let provider = FakeProvider::answering({
        let well = Arc::clone(&well);
        move |_| if well.load(Ordering::SeqCst) { Answer::Accept } else { Answer::Status(503) }
    });
    let settings = "[breaker]\nrecovery_timeout_ms = 300\n[delivery.retry]\nschedule_ms = [200, 200, 200, 200]\n";
    let providers = provider.first_and_second(secs(5));
    let setup = Setup::new(settings, &providers);
    let service = setup.start();
    assert_eq!(service.post("/api/v1/breakers/provider:first/open", &[]).status, 200);
    setup.kafka.produce((0..COUNT).map(|n| request(&format!("n-{n}"), "email", SOMEONE).input()).collect());
    // A few open its breaker; the others are probes.
    wait::until("the stand-in fails", secs(30), || (provider.arrivals().len() >= 10).then_some(()));
    well.store(true, Ordering::SeqCst);
    provider.wait_for_accepted(COUNT, secs(60));
    setup.database.wait_until_settled(secs(20));
    assert!(provider.arrivals().iter().all(|arrival| arrival.path == "/second"), "nobody asks one that is held open");
    assert!(setup.database.fates().values().all(|fate| fate.state == "sent"));
}
