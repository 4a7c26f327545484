//! SIGTERM: finish what is in hand, leave the rest to the next process, end in time.

use std::time::{Duration, Instant};

use crate::support::events::request;
use crate::support::mix;
use crate::support::oracle::Oracle;
use crate::support::provider::{Answer, FakeProvider};
use crate::support::servers::Outage;
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::{self, secs};

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn an_orderly_stop_under_load_repeats_and_loses_nothing() {
    let settings = "[shutdown]\ntimeout_ms = 20000\n[delivery]\nmax_in_flight = 20\n";
    let thinks = |_: &_| Answer::After(Duration::from_millis(40), Box::new(Answer::Accept));
    let provider = FakeProvider::answering(thinks);
    let setup = Setup::new(settings, &provider.for_all_channels(secs(5)));
    let mut service = setup.start();
    let sent = setup.kafka.produce(mix::clean(8, 3_000));
    let oracle = Oracle::of(&sent);
    provider.wait_for_accepted(300, secs(60));

    service.terminate();
    let status = service.wait_for_exit(secs(20));
    assert_eq!(status.code(), Some(0), "an orderly end");
    let accepted_before = provider.accepted_count();
    assert!(accepted_before < oracle.requests.len(), "it was stopped in the middle of its work");

    let _next = setup.start();
    let story = setup.wait_for_the_end(&oracle, &provider, secs(120));
    let ids = verify::requests(&oracle, &story, Copies::AsCaused);
    let accepted_twice = verify::deliveries(&oracle, &ids, &provider);
    assert_eq!(accepted_twice, Vec::<String>::new(), "what was in hand was finished");
    assert!(provider.arrivals().iter().all(|arrival| arrival.document().attempt == 1), "and each send was the first");
    verify::each_was_told_as_sent(&ids, &story, Copies::AsCaused);
    verify::dead_letters(&[], &story, Copies::AsCaused);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_second_signal_ends_it_at_once() {
    let settings = "[shutdown]\ntimeout_ms = 60000\n[delivery]\nlease_ms = 60000\n";
    let provider = FakeProvider::answering(|_| Answer::Hang);
    let setup = Setup::new(settings, &provider.named("email", "email", secs(50)));
    let mut service = setup.start();
    setup.kafka.produce_one(request("hangs", "email", "someone@example.com").input());
    provider.wait_for_arrival("hangs", 1, secs(20));

    service.terminate();
    wait::until("the service is draining", secs(10), || {
        let ready = service.try_get("/health/ready").is_ok_and(|answer| answer.status == 200);
        (!ready).then_some(())
    });
    assert!(service.is_running(), "it waits for the provider's answer");
    let again = Instant::now();
    service.terminate();
    service.wait_for_exit(secs(3));
    assert!(again.elapsed() < secs(3), "at once, not after {:?}", again.elapsed());
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn it_stops_in_time_while_kafka_is_down() {
    let limit = secs(10);
    let provider = FakeProvider::accepting();
    let setup = Setup::new("[shutdown]\ntimeout_ms = 10000\n", &provider.for_all_channels(secs(5)));
    let mut service = setup.start();
    setup.kafka.produce(mix::clean(9, 500));
    provider.wait_for_accepted(50, secs(60));

    let outage = Outage::of("kafka");
    wait::until("the service notices the outage", secs(10), || {
        let healthy = service.get("/health").json()["status"] == "healthy";
        (!healthy).then_some(())
    });
    let asked = Instant::now();
    service.terminate();
    let status = service.wait_for_exit(limit + secs(1));
    assert!(asked.elapsed() <= limit + Duration::from_millis(500), "within {limit:?}, not {:?}", asked.elapsed());
    assert_eq!(status.code(), Some(0), "a server that is away is no failure of the stop");
    outage.end();
}
