//! A million events wait behind an open breaker: memory stays bounded, nothing is given up, all is done after.

use std::time::Instant;

use crate::support::kafka::{DEAD_LETTERS, NOTIFICATIONS, ORDERS};
use crate::support::service::{MOST_RESIDENT, Service};
use crate::support::setup::Setup;
use crate::support::wait::{self, secs};

/// Seconds for which the breaker is open.
const OPEN: u64 = 60;

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_million_events_may_wait_for_a_breaker() {
    a_backlog_waits(1_000_000, "at_least_once");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_hundred_thousand_events_may_wait_for_transactions() {
    a_backlog_waits(100_000, "exactly_once");
}

fn a_backlog_waits(events: u64, guarantee: &str) {
    let settings = format!(
        "[routing]\nguarantee = \"{guarantee}\"\n[delivery]\nenabled = false\n[breaker]\nrecovery_timeout_ms = 2000\n"
    );
    let setup = Setup::new(&settings, "");
    let service = setup.start();
    assert_eq!(service.post("/api/v1/breakers/kafka/open", &[]).status, 200);
    setup.kafka.produce_orders(events);
    let (since, mut most) = (Instant::now(), 0);
    wait::until("a minute", secs(OPEN + 5), || {
        most = most.max(service.resident());
        assert_eq!(breaker(&service), 2, "it is open");
        (since.elapsed() >= secs(OPEN)).then_some(())
    });
    assert_eq!(setup.kafka.count(ORDERS), events);
    let lag = service.metrics().sum("kafka_consumer_lag", &[]);
    assert_eq!(lag, events, "all of it is seen to wait");
    assert_eq!((setup.kafka.count(NOTIFICATIONS), setup.kafka.count(DEAD_LETTERS)), (0, 0));
    assert_eq!(service.post("/api/v1/breakers/kafka/auto", &[]).status, 200);
    wait::until("all of it is routed", secs(300), || {
        most = most.max(service.resident());
        (service.metrics().sum("kafka_consumer_lag", &[]) == 0).then_some(())
    });
    setup.kafka.wait_until_routed(secs(60));
    let published = service.metrics().sum("notification_requests_published_total", &[]);
    assert_eq!((published, setup.kafka.count(DEAD_LETTERS)), (events, 0));
    if guarantee == "at_least_once" {
        // Transactions leave markers, which count.
        assert_eq!(setup.kafka.count(NOTIFICATIONS), events, "each once");
    }
    eprintln!("{guarantee}: {events} events waited, at most {} MB resident", most / 1_000_000);
    assert!(most < MOST_RESIDENT, "{most} bytes were resident");
}

fn breaker(service: &Service) -> u64 {
    service.metrics().sum("circuit_breaker_state", &[("breaker", "kafka")])
}
