//! Whatever stands in a record: a decision, never a panic; what goes out is JSON that the delivery stage can judge, and
//! what fails keeps its bytes.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use proptest::prelude::*;

use super::RoutingStage;
use crate::consume::durable_publish::DurablePublisher;
use crate::consume::stage::{Decision, Stage as _, TransactionalStage as _};
use crate::domain::dead_letter::{DeadLetter, Origin, Stage};
use crate::domain::envelope::Envelope;
use crate::domain::error::ErrorClass;
use crate::domain::notification::Request;
use crate::domain::record::{Coordinates, Headers, OutboundRecord, Record};
use crate::handlers::Registry;
use crate::ports::clock::SystemClock;
use crate::ports::publisher::{Acks, EventPublisher};
use crate::resilience::breaker::BreakerPolicy;
use crate::resilience::breaker_cell::BreakerCell;
use crate::telemetry::group_metrics::GroupMetrics;

struct Nowhere;

#[async_trait::async_trait]
impl EventPublisher for Nowhere {
    async fn publish(&self, _: &[OutboundRecord]) -> Acks {
        futures::future::ready(Vec::new()).boxed()
    }

    async fn flush(&self, _: Duration) -> bool {
        true
    }
}

fn stage() -> RoutingStage {
    let clock = Arc::new(SystemClock::default());
    let breaker = BreakerCell::new("kafka", BreakerPolicy::strict(1), clock.clone());
    let publisher = DurablePublisher::new(Arc::new(Nowhere), breaker, Duration::from_secs(1));
    let metrics = Arc::new(GroupMetrics::new("order-events", "test", "routing", &[]));
    RoutingStage::new(
        Arc::new(Registry::built_in()),
        publisher,
        None,
        None,
        "notification-events".into(),
        clock,
        metrics,
    )
}

fn record(key: Option<Vec<u8>>, value: Option<Vec<u8>>, headers: Vec<(String, Option<Vec<u8>>)>) -> Record {
    let mut packed = Headers::default();
    for (name, value) in &headers {
        packed.push(name, value.as_deref());
    }
    Record {
        at: Coordinates { topic: "order-events".into(), partition: 0, offset: 7 },
        assignment: 1,
        key: key.map(Into::into),
        value: value.map(Into::into),
        headers: packed,
        flaw: None,
    }
}

/// The decision is sound.
fn judge(stage: &RoutingStage, record: &Record) {
    match stage.decide(record, Timestamp::UNIX_EPOCH) {
        Decision::Skip => {}
        Decision::Act(effect) => {
            for output in RoutingStage::records(&effect) {
                let envelope = Envelope::decode(Some(&output.value)).expect("what goes out is an envelope");
                // A recipient may be no address and the like: the delivery stage says so.
                let _ = Request::decode(&envelope);
                assert!(output.key.as_deref().is_some_and(|key| !key.is_empty()));
            }
        }
        Decision::Fail(failure) => {
            assert_eq!(failure.class, ErrorClass::Permanent, "{failure:?}");
            let event_type = None;
            let letter = DeadLetter { origin: Origin::from(record), stage: Stage::Routing, failure, event_type };
            let json: serde_json::Value = serde_json::from_slice(&letter.to_json()).expect("a letter is JSON");
            assert!(json["failureReason"].as_str().is_some_and(|reason| reason.chars().count() <= 1000));
            // The outbox keeps delivery letters as JSON of this type: its bytes come back from there.
            let kept = serde_json::to_string(&letter).expect("serialises");
            let back: DeadLetter = serde_json::from_str(&kept).expect("reads back");
            assert_eq!(back.origin.value.as_deref(), record.value.as_deref());
            assert_eq!(back.origin.key.as_deref(), record.key.as_deref());
            assert_eq!(back.origin.headers, record.headers);
        }
    }
}

/// JSON, nearly: scalars that parsers dislike, in objects and lists.
fn hostile_json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-0".to_owned()),
        Just("1e999".to_owned()),
        Just("9".repeat(400)),
        Just(r#""\ud800""#.to_owned()),
        Just(r#""\u0000""#.to_owned()),
        Just(r#""""#.to_owned()),
        Just(format!("\"{}\"", "x".repeat(5_000))),
        Just("NaN".to_owned()),
        "\"[a-zA-Z0-9 \\u{e4}\\u{1f69a}]{0,20}\"",
        "-?[0-9]{1,30}(\\.[0-9]{1,30})?",
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[a-zA-Z]{0,8}", inner), 0..4).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

/// An envelope in which any field may be anything, or be there twice, or not at all.
fn hostile_envelope() -> impl Strategy<Value = String> {
    let good = [
        ("eventId", r#""e-1""#),
        ("eventType", r#""OrderCreated""#),
        ("aggregateId", r#""o-1""#),
        ("version", "1"),
        ("timestamp", r#""2026-01-15T10:30:00Z""#),
        ("data", r#"{"orderId":"o","customerId":"c","amount":9.90,"email":"a@b.c","userId":"u","firstName":"F"}"#),
        ("metadata", r#"{"correlationId":"r"}"#),
    ];
    let types = prop::sample::select(vec!["OrderCreated", "OrderPaid", "OrderShipped", "UserRegistered", "Unknown"]);
    let data_field = prop::sample::select(vec!["orderId", "customerId", "amount", "currency", "userId", "email"]);
    let changes = prop::collection::vec((0..good.len(), hostile_json(), 0..4u8), 0..3);
    (types, changes, data_field, prop::option::of(hostile_json())).prop_map(move |(kind, changes, field, inner)| {
        let mut fields: Vec<(String, String)> =
            good.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        fields[1].1 = format!("\"{kind}\"");
        if let Some(inner) = inner {
            fields[5].1 = fields[5].1.replacen('{', &format!("{{\"{field}\":{inner},"), 1);
        }
        for (place, value, how) in changes {
            match how {
                0 => fields[place].1 = value,
                1 => fields.push((good[place].0.to_owned(), value)),
                2 => fields[place].0.push('x'),
                _ => fields.push(("extra".to_owned(), value)),
            }
        }
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

fn bytes(most: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..most))
}

fn headers() -> impl Strategy<Value = Vec<(String, Option<Vec<u8>>)>> {
    let name = prop_oneof![Just("traceparent".to_owned()), Just("eventType".to_owned()), "\\PC{0,12}"];
    prop::collection::vec((name, bytes(80)), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn envelopes_with_anything_in_them(json in hostile_envelope(), key in bytes(20), headers in headers()) {
        judge(&stage(), &record(key, Some(json.into_bytes()), headers));
    }

    #[test]
    fn any_json(json in hostile_json()) {
        judge(&stage(), &record(None, Some(json.into_bytes()), Vec::new()));
    }

    #[test]
    fn any_bytes(key in bytes(50), value in bytes(600), headers in headers()) {
        judge(&stage(), &record(key, value, headers));
    }

    #[test]
    fn envelopes_cut_or_damaged(json in hostile_envelope(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut damaged = json.clone().into_bytes();
        let place = at.index(damaged.len());
        damaged[place] = byte;
        judge(&stage(), &record(None, Some(damaged), Vec::new()));
        judge(&stage(), &record(None, Some(json.into_bytes()[..place].to_vec()), Vec::new()));
    }
}

#[test]
fn the_large_and_the_deep() {
    let stage = stage();
    let envelope = |data: &str| {
        format!(
            r#"{{"eventId":"e","eventType":"OrderCreated","aggregateId":"o","version":1,"timestamp":"2026-01-15T10:30:00Z","data":{data}}}"#
        )
    };
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let long = "x".repeat(1 << 20);
    let order = r#""orderId":"o","customerId":"c","amount":1"#;
    let values = [
        deep.clone(),
        "{\"a\":".repeat(100_000),
        envelope(&deep),
        envelope(&format!(r#"{{{order},"extra":{deep}}}"#)),
        envelope(&format!(r#"{{{order},"currency":"{long}"}}"#)),
        envelope(&format!(r#"{{"orderId":"{long}","customerId":"c","amount":1}}"#)),
        envelope(&format!(r#"{{"orderId":"o","customerId":"c","amount":{}}}"#, "9".repeat(1 << 20))),
        long,
    ];
    for value in values {
        judge(&stage, &record(None, Some(value.into_bytes()), Vec::new()));
    }
    let many = (0..10_000).map(|n| (format!("header-{n}"), Some(vec![b'x'; 10]))).collect();
    judge(&stage, &record(Some(vec![0; 1 << 20]), Some(b"nonsense".to_vec()), many));
}
