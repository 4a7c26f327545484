//! A server goes away under load and comes back: the service waits for it and goes on by itself.

use std::time::{Duration, Instant};

use crate::support::health_watch::HealthWatch;
use crate::support::mix;
use crate::support::oracle::Oracle;
use crate::support::provider::FakeProvider;
use crate::support::servers::Outage;
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::secs;

/// A minute of load at this pace: it begins before the outage and ends after it.
const EVENTS: usize = 9_000;
const PER_SECOND: u32 = 150;

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn kafka_may_be_away_for_fifteen_seconds() {
    an_outage_costs_nothing("kafka", secs(15));
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn postgresql_may_be_away_for_five_seconds() {
    an_outage_costs_nothing("postgres", secs(5));
}

fn an_outage_costs_nothing(server: &'static str, length: Duration) {
    let provider = FakeProvider::accepting();
    let setup = Setup::new("", &provider.for_all_channels(secs(5)));
    let mut service = setup.start();
    let id = service.id();
    let watch = HealthWatch::over(&service);
    watch.wait_until_healthy(true, Instant::now(), secs(20));
    let load = setup.kafka.produce_steadily(mix::clean(15, EVENTS), PER_SECOND);
    provider.wait_for_accepted(300, secs(60));

    let outage = Outage::of(server);
    let down = Instant::now();
    watch.wait_until_healthy(false, down, secs(10));
    outage.hold(length, || assert!(service.is_running(), "it waits for {server}"));
    let accepted_while_down = provider.accepted_count();
    outage.end();
    let back = Instant::now();
    watch.wait_until_healthy(true, back, secs(20));
    provider.wait_for_accepted(accepted_while_down + 1, secs(20).saturating_sub(back.elapsed()));

    let sent = load.finish();
    let oracle = Oracle::of(&sent);
    let story = setup.wait_for_the_end(&oracle, &provider, secs(180));
    assert!(service.is_running() && service.id() == id, "the same process all along");
    watch.every_look_was_answered_within(secs(1));
    verify::dead_letters(&[], &story, Copies::AsCaused);
    let ids = verify::requests(&oracle, &story, Copies::Any);
    let accepted_twice = verify::deliveries(&oracle, &ids, &provider);
    assert_eq!(accepted_twice, Vec::<String>::new(), "{server} is no reason to send anything twice");
    verify::each_was_told_as_sent(&ids, &story, Copies::Any);
}
