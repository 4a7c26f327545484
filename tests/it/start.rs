//! Starting while a server is away: it lives, says what it waits for, and is ready only when it can work.

use crate::support::events::order_created;
use crate::support::kafka::NOTIFICATIONS;
use crate::support::servers::{Outage, required};
use crate::support::service::Service;
use crate::support::setup::Setup;
use crate::support::wait::{self, secs};

fn setup() -> Setup {
    Setup::new("[delivery]\nenabled = false\n[monitor]\ninterval_ms = 500\n", "")
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn it_waits_for_kafka() {
    let setup = setup();
    let brokers = setup.kafka.brokers.clone();
    it_waits_for("kafka", &setup, &["waiting for Kafka", "KAFKA_BROKERS", &brokers]);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn it_waits_for_postgresql() {
    it_waits_for("postgres", &setup(), &["waiting for the database", "DATABASE_URL"]);
}

fn it_waits_for(server: &'static str, setup: &Setup, words: &[&str]) {
    let outage = Outage::of(server);
    let mut service = setup.spawn();
    wait::until("it says what it waits for", secs(20), || {
        words.iter().all(|word| service.log().contains(word)).then_some(())
    });
    wait::until("it says so again", secs(30), || {
        assert!(service.is_running(), "it waits for {server}");
        is_starting(&service);
        (service.log().matches(words[0]).count() > 1).then_some(())
    });
    outage.end();
    service.wait_until_ready();
    assert_eq!(service.get("/health/startup").status, 200);
    works(setup, &service);
}

#[track_caller]
fn is_starting(service: &Service) {
    let look = |path| service.get(path).status;
    let seen = ["/health/live", "/health/startup", "/health/ready", "/health"].map(look);
    assert_eq!(seen, [200, 503, 503, 503], "only live");
}

#[track_caller]
fn works(setup: &Setup, service: &Service) {
    setup.kafka.produce_one(order_created("first", "order-1", "someone@example.com", "1").input());
    wait::until("it routes", secs(30), || (setup.kafka.count(NOTIFICATIONS) == 1).then_some(()));
    wait::until("it is healthy", secs(20), || (service.get("/health").json()["status"] == "healthy").then_some(()));
}

/// Nothing is kept in Redis, so nothing waits for it; it is missed all the same.
#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn it_does_not_wait_for_redis_and_says_that_it_is_away() {
    let setup = setup();
    let outage = Outage::of("redis");
    let config = setup.config_file();
    let serve = setup.command(&["serve", "--config", &config]).env("REDIS_URL", &required("TEST_REDIS_URL"));
    let mut service = Service::spawn(serve);
    service.wait_until_ready();
    let details = wait::until("it is degraded", secs(20), || {
        let health = service.get("/health");
        (health.status == 200 && health.json()["status"] == "degraded").then(|| health.json()["details"].clone())
    });
    assert_eq!(details["redis"]["status"], "down", "{details}");
    outage.end();
    works(&setup, &service);
}
