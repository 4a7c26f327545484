//! An operator opens and closes a breaker: work stops and goes on, and nothing is lost for it.

use crate::support::kafka::{NOTIFICATIONS, ORDERS};
use crate::support::mix;
use crate::support::oracle::Oracle;
use crate::support::published::Story;
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::{self, secs};

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn an_open_breaker_pauses_its_groups_and_dead_letters_nothing() {
    let setup = Setup::new("[delivery]\nenabled = false\n[breaker]\nrecovery_timeout_ms = 500\n", "");
    let service = setup.start();
    let order = |name: &str, order: &str| service.post(&format!("/api/v1/breakers/{name}/{order}"), &[]);
    let opened = order("kafka", "open");
    assert_eq!(opened.status, 200, "{}", opened.text());
    assert_eq!(opened.json(), serde_json::json!({"name": "kafka", "state": "open", "held": true}));

    let sent = setup.kafka.produce(mix::mixed(11, 600));
    let orders = setup.kafka.count(ORDERS);
    wait::until("all of it lags", secs(20), || {
        (service.metrics().sum("kafka_consumer_lag", &[]) == sent.len() as u64).then_some(())
    });
    let health = service.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (200, &serde_json::json!("degraded")), "{}", health.text());
    assert_eq!(service.get("/health/ready").status, 200, "an open breaker is no reason to restart it");
    let system = service.get("/api/v1/system").json();
    let groups = system["consumerGroups"].as_array().expect("groups");
    let (letters, routing): (Vec<_>, Vec<_>) =
        groups.iter().partition(|group| group["group"].as_str().is_some_and(|id| id.ends_with("dead-letters")));
    assert!(routing.iter().all(|group| group["paused"] == serde_json::json!(["breaker:kafka"])), "{system}");
    assert!(letters.len() == 1 && letters[0]["paused"] == serde_json::json!([]), "it only reads Kafka: {system}");
    assert_eq!(service.metrics().sum("circuit_breaker_state", &[("breaker", "kafka")]), 2);
    // The recovery time-out passed many times meanwhile: only the operator ends what he began.
    assert_eq!(setup.kafka.count(NOTIFICATIONS), 0);
    assert!(orders > 100 && Story::of(&setup.kafka).letters.is_empty());

    assert_eq!(order("kafka", "auto").status, 200);
    setup.kafka.wait_until_routed(secs(30));
    let (oracle, story) = (Oracle::of(&sent), Story::of(&setup.kafka));
    verify::requests(&oracle, &story, Copies::AsCaused);
    verify::dead_letters(&oracle.refused, &story, Copies::AsCaused);
    wait::until("the breaker is closed", secs(10), || {
        (service.metrics().sum("circuit_breaker_state", &[("breaker", "kafka")]) == 0).then_some(())
    });
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn only_operators_give_orders() {
    let setup = Setup::new("[delivery]\nenabled = false\n", "");
    let service = setup.start();
    for path in ["/api/v1/breakers/nobody/open", "/api/v1/breakers/kafka/explode"] {
        let answer = service.post(path, &[]);
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains('`')), "{}", answer.text());
    }
    let foreign = service.post("/api/v1/breakers/kafka/open", &[("origin", "https://elsewhere.example")]);
    assert_eq!(foreign.status, 403, "a page of another site");
    let own = service.post("/api/v1/breakers/kafka/close", &[("origin", service.base())]);
    assert_eq!((own.status, &own.json()["held"]), (200, &serde_json::json!(true)), "{}", own.text());
    assert_eq!(service.post("/api/v1/breakers/kafka/auto", &[]).json()["held"], false);
}
