//! SIGTERM in every state: it ends in time with code 0, and what it had done is not done again while Kafka is up.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::command::Invocation;
use crate::support::events::request;
use crate::support::kafka::{Kafka, NOTIFICATIONS};
use crate::support::mix;
use crate::support::oracle::Oracle;
use crate::support::producer::Sent;
use crate::support::provider::{Answer, FakeProvider};
use crate::support::published::Story;
use crate::support::servers::Outage;
use crate::support::service::{Service, free_port, outcomes};
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::{self, secs};

/// `shutdown.timeout_ms` of the tests.
const LIMIT: Duration = secs(10);
const EVENTS: usize = 4_000;
const PER_SECOND: u32 = 500;
const GUARANTEES: [&str; 2] = ["at_least_once", "exactly_once"];

fn routing(guarantee: &str) -> Setup {
    let settings = format!(
        "[routing]\nguarantee = \"{guarantee}\"\n[delivery]\nenabled = false\n[shutdown]\ntimeout_ms = {}\n",
        LIMIT.as_millis()
    );
    Setup::new(&settings, "")
}

#[track_caller]
fn stops_in_time(service: &mut Service) {
    let asked = Instant::now();
    service.terminate();
    let status = service.wait_for_exit(LIMIT + secs(1));
    assert!(asked.elapsed() <= LIMIT + Duration::from_millis(500), "within {LIMIT:?}, not {:?}", asked.elapsed());
    assert_eq!(status.code(), Some(0), "an orderly end");
}

#[track_caller]
fn everything_is_routed(setup: &Setup, sent: &[Sent], copies: Copies) {
    let oracle = Oracle::of(sent);
    setup.kafka.wait_until_routed(secs(120));
    // A transaction that was open at the end hides what is behind it until the brokers abort it, 10 to 20 s later.
    wait::until_or_end(secs(60), || (Story::of(&setup.kafka).requests.len() >= oracle.requests.len()).then_some(()));
    let story = Story::of(&setup.kafka);
    verify::requests(&oracle, &story, copies);
    verify::dead_letters(&oracle.refused, &story, copies);
}

#[track_caller]
fn wait_until_routing(kafka: &Kafka, requests: u64) {
    wait::until("routing gets on", secs(60), || (kafka.count(NOTIFICATIONS) >= requests).then_some(()));
}

#[test]
fn while_it_waits_for_kafka() {
    let folder = TempDir::new().expect("a folder");
    let serve = Invocation::new(folder.path(), &["serve"]).env("DATABASE_URL", "sqlite://notifications.db");
    let broker = format!("127.0.0.1:{}", free_port());
    let mut service = Service::spawn(serve.env("KAFKA_BROKERS", &broker));
    wait::until("it says what it waits for", secs(20), || service.log().contains("waiting for Kafka").then_some(()));
    stops_in_time(&mut service);
}

#[test]
fn while_it_waits_for_the_database() {
    let folder = TempDir::new().expect("a folder");
    let serve = Invocation::new(folder.path(), &["serve"]).env("KAFKA_BROKERS", "embedded");
    let database = format!("postgres://nobody:nothing@127.0.0.1:{}/none", free_port());
    let mut service = Service::spawn(serve.env("DATABASE_URL", &database));
    let waits = || service.log().contains("waiting for the database").then_some(());
    wait::until("it says what it waits for", secs(20), waits);
    stops_in_time(&mut service);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn before_and_during_the_first_assignment() {
    for guarantee in GUARANTEES {
        let setup = routing(guarantee);
        let sent = setup.kafka.produce(mix::mixed(51, EVENTS));
        let mut unassigned = 0;
        // Joining a group takes about half a second: the signals fall before, into, and behind it.
        for phase in [0, 200, 300, 400, 500, 600] {
            let mut service = setup.start();
            std::thread::sleep(Duration::from_millis(phase));
            unassigned += u32::from(service.log().matches("partitions assigned").count() < 3);
            stops_in_time(&mut service);
        }
        assert!(unassigned > 0, "{guarantee}: some group had no partitions yet");
        let _last = setup.start();
        everything_is_routed(&setup, &sent, Copies::AsCaused);
    }
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn during_a_rebalance() {
    for guarantee in GUARANTEES {
        let setup = routing(guarantee);
        let mut first = setup.start();
        let load = setup.kafka.produce_steadily(mix::mixed(52, EVENTS), PER_SECOND);
        wait_until_routing(&setup.kafka, 200);
        let _second = setup.spawn();
        let gives_up = || first.log().contains("partitions revoked").then_some(());
        wait::until("the second takes partitions over", secs(30), gives_up);
        assert!(setup.kafka.is_routing(), "there is work");
        stops_in_time(&mut first);
        let sent = load.finish();
        everything_is_routed(&setup, &sent, Copies::AsCaused);
    }
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn with_a_breaker_that_an_operator_opened() {
    for guarantee in GUARANTEES {
        let setup = routing(guarantee);
        let load = setup.kafka.produce_steadily(mix::clean(53, EVENTS), PER_SECOND);
        for rounds in 1..=3 {
            let mut service = setup.start();
            wait_until_routing(&setup.kafka, rounds * 300);
            assert_eq!(service.post("/api/v1/breakers/kafka/open", &[]).status, 200);
            stops_in_time(&mut service);
        }
        let _last = setup.start();
        let sent = load.finish();
        everything_is_routed(&setup, &sent, Copies::AsCaused);
    }
}

/// Kafka gets what is in the sockets when it goes on: at_least_once may write that again, with the same ids.
#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn while_kafka_does_not_answer() {
    for (guarantee, copies) in [("at_least_once", Copies::Any), ("exactly_once", Copies::AsCaused)] {
        let setup = routing(guarantee);
        let mut service = setup.start();
        let load = setup.kafka.produce_steadily(mix::clean(54, EVENTS), PER_SECOND);
        wait_until_routing(&setup.kafka, 200);
        let frozen = Outage::freeze("kafka");
        let noticed = || (service.get("/health").json()["status"] != "healthy").then_some(());
        wait::until("the service notices", secs(15), noticed);
        stops_in_time(&mut service);
        frozen.end();
        let _last = setup.start();
        let sent = load.finish();
        everything_is_routed(&setup, &sent, copies);
    }
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn while_a_notification_waits_for_its_next_attempt() {
    let settings = format!("[shutdown]\ntimeout_ms = {}\n[delivery.retry]\nschedule_ms = [4000]\n", LIMIT.as_millis());
    let provider = FakeProvider::answering(|arrival| match arrival.document().attempt {
        1 => Answer::Status(503),
        _ => Answer::Accept,
    });
    let setup = Setup::new(&settings, &provider.named("email", "email", secs(5)));
    let mut service = setup.start();
    setup.kafka.produce_one(request("again", "email", "someone@example.com").input());
    service.wait_for_state("again", "retrying", secs(20));
    stops_in_time(&mut service);
    let service = setup.start();
    let notification = service.wait_for_state("again", "sent", secs(20));
    assert_eq!(outcomes(&notification), ["transient", "accepted"], "{notification}");
}
