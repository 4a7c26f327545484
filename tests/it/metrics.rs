//! The metrics that dashboards and alerts are built on.

use crate::support::command::Invocation;
use crate::support::service::Service;

/// Every metric of the contract with its labels.
const METRICS: [(&str, &[&str]); 15] = [
    ("kafka_messages_consumed_total", &["topic", "consumer_group"]),
    ("kafka_consumer_lag", &["topic", "partition", "consumer_group"]),
    ("kafka_processing_errors_total", &["topic", "consumer_group", "class"]),
    ("kafka_topic_messages", &["topic"]),
    ("notification_requests_published_total", &["channel", "template"]),
    ("notifications_settled_total", &["channel", "outcome"]),
    ("notification_delivery_seconds", &[]),
    ("routing_seconds", &[]),
    ("retries_total", &["stage"]),
    ("duplicates_skipped_total", &["stage"]),
    ("dead_letters_total", &["stage", "class"]),
    ("circuit_breaker_state", &["breaker"]),
    ("actor_restarts_total", &["actor"]),
    ("provider_requests_total", &["provider", "outcome"]),
    ("provider_reports_total", &["provider", "report"]),
];

#[test]
fn every_metric_is_exposed_from_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let serve = Invocation::new(folder.path(), &["serve"])
        .env("KAFKA_BROKERS", "embedded")
        .env("DATABASE_URL", "sqlite://notifications.db");
    let mut service = Service::spawn(serve);
    service.wait_until_ready();
    let metrics = service.metrics();
    let missing: Vec<&str> =
        METRICS.map(|(metric, _)| metric).into_iter().filter(|m| metrics.series(m).is_empty()).collect();
    assert_eq!(missing, Vec::<&str>::new(), "not exposed from the start");
    for (metric, labels) in METRICS {
        let series = metrics.series(metric);
        let has = |label: &str| series.iter().all(|sample| sample.labels.contains_key(label));
        assert!(labels.iter().all(|label| has(label)), "{metric} has the labels {labels:?}: {series:?}");
    }
    for group in ["orders", "users", "products", "delivery", "dead-letters"] {
        let group = format!("notification-service-{group}");
        let series = metrics.series("kafka_messages_consumed_total");
        assert!(series.iter().any(|sample| sample.labels["consumer_group"] == group), "{group} counts from the start");
    }
    assert_eq!(metrics.sum("dead_letters_total", &[]), 0, "and nothing has happened yet");
}
