//! The metrics that dashboards and alerts are built on.

use serde_json::json;

use crate::support::alone::Alone;
use crate::support::command::Invocation;
use crate::support::provider::{Answer, FakeProvider};
use crate::support::service::Service;
use crate::support::wait::{self, secs};

/// Every metric of the contract with its labels.
const METRICS: [(&str, &[&str]); 17] = [
    ("kafka_messages_consumed_total", &["topic", "consumer_group"]),
    ("kafka_consumer_lag", &["topic", "partition", "consumer_group"]),
    ("kafka_processing_errors_total", &["topic", "consumer_group", "class"]),
    ("kafka_topic_messages", &["topic"]),
    ("notification_requests_published_total", &["channel", "template"]),
    ("notifications_settled_total", &["channel", "outcome"]),
    ("notifications_waiting", &["channel", "state"]),
    ("notifications_overdue_seconds", &["channel"]),
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

#[test]
fn what_a_provider_answers_is_counted_by_its_outcome() {
    let half = "HTTP/1.1 200 As Told\r\nContent-Length: 90\r\n\r\n{\"id\":\"rec";
    let provider = FakeProvider::answering(move |arrival| {
        let document = arrival.document();
        let asked = |word: &str| document.data.get().contains(word);
        match arrival.nth {
            _ if asked("refuses") => Answer::Status(400),
            1 if asked("closes at once") => Answer::Broken { bytes: "", taken: false },
            1 if asked("closes in the status") => Answer::Broken { bytes: "HTTP/1.1 20", taken: true },
            1 if asked("closes in the body") => Answer::Broken { bytes: half, taken: true },
            1 if asked("fails") => Answer::Status(503),
            1 if asked("limits") => Answer::RetryAfter(1),
            _ => Answer::Accept,
        }
    });
    let settings = format!("[delivery.retry]\nschedule_ms = [300]\n{}", provider.named("email", "email", secs(5)));
    let alone = Alone::start(&settings);
    let service = &alone.service;
    for (order, state) in [
        ("accepts", "sent"),
        ("closes at once", "sent"),
        ("closes in the status", "sent"),
        ("closes in the body", "sent"),
        ("fails", "sent"),
        ("limits", "sent"),
        ("refuses", "failed"),
    ] {
        let data = json!({"orderId": order});
        let request =
            json!({"channel": "email", "recipient": "a@example.com", "template": "order_shipped", "data": data});
        service.wait_for_state(&service.submit(&request), state, secs(20));
    }
    let metrics = service.metrics();
    let counted = ["accepted", "unknown", "transient", "rate_limited", "permanent"]
        .map(|outcome| metrics.sum("provider_requests_total", &[("provider", "email"), ("outcome", outcome)]));
    assert_eq!(counted, [6, 2, 1, 1, 1], "the status was there when the body broke off");
    assert_eq!(metrics.sum("retries_total", &[("stage", "delivery")]), 4);
}

#[test]
fn what_waits_is_shown_until_it_is_sent() {
    let provider = FakeProvider::answering(|_| Answer::Accept);
    let alone = Alone::start(&provider.named("email", "email", secs(5)));
    let service = &alone.service;
    assert_eq!(service.post("/api/v1/breakers/provider:email/open", &[]).status, 200);
    for recipient in ["a@example.com", "b@example.com", "nobody-knows"] {
        let data = json!({"orderId": "ord-1"});
        let request = json!({"channel": "email", "recipient": recipient, "template": "order_shipped", "data": data});
        service.submit(&request);
    }
    let shown = |state: &str, count: u64| {
        let labels = [("channel", "email"), ("state", state)];
        wait::until("what waits is counted", secs(30), || {
            (service.metrics().sum("notifications_waiting", &labels) == count).then_some(())
        });
    };
    let overdue = |is: fn(f64) -> bool| {
        wait::until("the oldest is shown", secs(30), || {
            let metrics = service.metrics();
            let series = metrics.series("notifications_overdue_seconds");
            series.iter().any(|sample| sample.labels["channel"] == "email" && is(sample.value)).then_some(())
        });
    };
    shown("pending", 3);
    overdue(|seconds| seconds > 1.0);
    assert_eq!(service.post("/api/v1/breakers/provider:email/auto", &[]).status, 200);
    shown("pending", 0);
    shown("awaiting_contact", 1);
    overdue(|seconds| seconds == 0.0);
}
