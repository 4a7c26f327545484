//! The service's own clients of Kafka, without the service.

use std::collections::BTreeMap;

use notification_service::adapters::kafka::{ClientSettings, SourceSettings};
use notification_service::domain::record::{Headers, OutboundRecord};
use tokio::runtime::{Builder, Runtime};

use super::kafka::{Kafka, NOTIFICATIONS, ORDERS};
use super::wait::secs;

pub fn client(brokers: &str) -> ClientSettings {
    ClientSettings { brokers: brokers.to_owned(), client_id: "tests".into(), properties: BTreeMap::new() }
}

/// A member of a group over the topic of orders.
pub fn member(kafka: &Kafka) -> SourceSettings {
    SourceSettings {
        client: client(&kafka.brokers),
        group: kafka.named("a-group"),
        member: None,
        topics: vec![kafka.named(ORDERS).into()],
        auto_offset_reset: "earliest".into(),
        batch: 10,
        revoke_patience: secs(5),
        transactional: false,
    }
}

/// A record for the topic of notifications.
pub fn output(kafka: &Kafka) -> OutboundRecord {
    OutboundRecord {
        topic: kafka.named(NOTIFICATIONS).into(),
        key: None,
        value: b"{}".to_vec(),
        headers: Headers::default(),
    }
}

/// A runtime whose only thread is the caller's.
pub fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs it on such a runtime.
#[track_caller]
pub fn on_one_thread(test: impl Future<Output = ()>) {
    one_thread().block_on(async { tokio::time::timeout(secs(90), test).await.expect("in time") });
}
