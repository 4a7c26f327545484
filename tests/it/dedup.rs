//! Events that come twice, by a producer's doing or after a crash, and stores of processed events that fail.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::kafka::{Kafka, NOTIFICATIONS};
use crate::support::mix;
use crate::support::oracle::Oracle;
use crate::support::published::Story;
use crate::support::servers::{Outage, required};
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::{self, secs};

fn settings(store: &str, guarantee: &str) -> String {
    format!(
        "[routing]\nguarantee = \"{guarantee}\"\n[routing.dedup]\nstore = \"{store}\"\nlease_ms = 5000\n\
         [redis]\nurl = \"{}\"\n[delivery]\nenabled = false\n[breaker]\nrecovery_timeout_ms = 1000\n",
        required("TEST_REDIS_URL")
    )
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn every_store_drops_what_comes_again() {
    for (store, guarantee) in
        [("memory", "at_least_once"), ("redis", "at_least_once"), ("sql", "at_least_once"), ("sql", "exactly_once")]
    {
        let setup = Setup::new(&settings(store, guarantee), "");
        let service = setup.start();
        let inputs = mix::mixed(61, 1_500);
        let mut sent = setup.kafka.produce(inputs.clone());
        sent.extend(setup.kafka.produce(inputs));
        setup.kafka.wait_until_routed(secs(60));
        let (oracle, story) = (Oracle::of(&sent), Story::of(&setup.kafka));
        verify::requests(&oracle, &story, Copies::AsCaused);
        verify::dead_letters(&oracle.refused, &story, Copies::AsCaused);
        verify::order(&sent, &story);
        assert_eq!(story.requests.len(), oracle.requests.len(), "{store}: each once, though each was caused twice");
        let skipped = service.metrics().sum("duplicates_skipped_total", &[("stage", "routing")]);
        assert!(skipped as usize >= oracle.requests.len(), "{store}: {skipped} were recognised");
    }
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn redis_may_forget_everything_and_be_away_and_routing_goes_on() {
    let setup = Setup::new(&settings("redis", "at_least_once"), "");
    let service = setup.start();
    let load = setup.kafka.produce_steadily(mix::mixed(62, 9_000), 500);
    routed(&setup.kafka, 1_000);
    assert!(redis("DBSIZE") != ":0", "something is remembered");
    assert_eq!(redis("FLUSHALL"), "+OK");
    routed(&setup.kafka, 2_000);
    let outage = Outage::of("redis");
    let before = requests(&setup.kafka);
    wait::until("health tells", secs(10), || (service.get("/health").json()["status"] == "degraded").then_some(()));
    routed(&setup.kafka, before + 1_000);
    outage.end();
    let sent = load.finish();
    setup.kafka.wait_until_routed(secs(60));
    wait::until("the breaker is closed", secs(20), || {
        (service.metrics().sum("circuit_breaker_state", &[("breaker", "redis")]) == 0).then_some(())
    });
    assert!(service.metrics().sum("dedup_bypassed_total", &[]) > 0, "the fault happened");
    let (oracle, story) = (Oracle::of(&sent), Story::of(&setup.kafka));
    verify::requests(&oracle, &story, Copies::AsCaused);
    verify::dead_letters(&oracle.refused, &story, Copies::AsCaused);
    verify::order(&sent, &story);
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn a_crash_between_claim_and_effect_loses_nothing() {
    let setup = Setup::new(&settings("sql", "at_least_once"), "");
    let mut service = setup.start();
    let load = setup.kafka.produce_steadily(mix::mixed(63, 12_000), 1_500);
    let mut claimed = 0;
    for kills in 1..=3 {
        routed(&setup.kafka, kills * 2_000);
        // Then what is claimed cannot have its effect, unless nothing was in hand at this very moment.
        let outage = Outage::freeze("kafka");
        wait::until_or_end(secs(3), || (setup.database.claimed_events() > 0).then_some(()));
        service.kill();
        claimed += setup.database.claimed_events();
        outage.end();
        service = setup.start();
    }
    let sent = load.finish();
    setup.kafka.wait_until_routed(secs(60));
    assert!(claimed > 0, "it died between claim and effect");
    let (oracle, story) = (Oracle::of(&sent), Story::of(&setup.kafka));
    verify::requests(&oracle, &story, Copies::Any);
    verify::dead_letters(&oracle.refused, &story, Copies::Any);
    verify::order(&sent, &story);
    assert_eq!(setup.database.claimed_events(), 0, "every claim became a mark");
    drop(service);
}

fn requests(kafka: &Kafka) -> usize {
    kafka.read(NOTIFICATIONS).len()
}

#[track_caller]
fn routed(kafka: &Kafka, goal: usize) {
    wait::until("routing gets on", secs(60), || (requests(kafka) >= goal).then_some(()));
}

/// The first line of an answer.
fn redis(command: &str) -> String {
    let address = required("TEST_REDIS_URL").replace("redis://", "");
    let mut connection = TcpStream::connect(address).expect("Redis");
    write!(connection, "{command}\r\n").expect("is asked");
    let mut answer = [0; 64];
    let read = connection.read(&mut answer).expect("answers");
    String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
}
