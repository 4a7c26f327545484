//! What the world is told about a settled notification, and the dead letter of a failed one.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::catalog::{NOTIFICATION_FAILED, NOTIFICATION_SENT, NOTIFICATION_SUPPRESSED};
use crate::domain::channel::Channel;
use crate::domain::dead_letter::{DeadLetter, Failure, Origin, Stage};
use crate::domain::envelope::{EnvelopeOut, MetadataOut, raw_json};
use crate::domain::events::VERSION;
use crate::domain::ids::lifecycle_id;
use crate::domain::notification::SOURCE;
use crate::domain::record::Headers;
use crate::domain::time::format_utc;
use crate::domain::trace::TraceContext;
use crate::ports::ledger::{Claimed, OutboxKind, OutboxMessage};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LifecycleData<'a> {
    notification_id: &'a str,
    channel: Channel,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a str>,
    template: &'a str,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// `NotificationSent`.
pub fn sent(claimed: &Claimed, attempts: u32, provider: &str, receipt: Option<&str>, now: Timestamp) -> OutboxMessage {
    let data = LifecycleData { provider: Some(provider), receipt, ..data(claimed, attempts) };
    lifecycle(NOTIFICATION_SENT, claimed, &data, now)
}

/// `NotificationSuppressed`: it is not sent, and that is no failure.
pub fn suppressed(claimed: &Claimed, attempts: u32, code: &str, reason: &str, now: Timestamp) -> OutboxMessage {
    let data = LifecycleData { error_code: Some(code), reason: Some(reason), ..data(claimed, attempts) };
    lifecycle(NOTIFICATION_SUPPRESSED, claimed, &data, now)
}

/// `NotificationFailed` and the dead letter.
pub fn failed(claimed: &Claimed, attempts: u32, failure: Failure, now: Timestamp) -> Vec<OutboxMessage> {
    let data =
        LifecycleData { error_code: Some(&failure.code), reason: Some(&failure.reason), ..data(claimed, attempts) };
    let event = lifecycle(NOTIFICATION_FAILED, claimed, &data, now);
    let letter = DeadLetter {
        origin: Origin {
            topic: claimed.origin.topic.clone(),
            partition: claimed.origin.partition,
            offset: claimed.origin.offset,
            key: claimed.origin.key.clone(),
            value: Some(claimed.request_json.clone().into_bytes()),
            headers: headers_of(claimed),
        },
        stage: Stage::Delivery,
        failure,
        event_type: Some(crate::domain::catalog::NOTIFICATION_REQUESTED.to_owned()),
    };
    let body = raw_json(&letter);
    vec![event, OutboxMessage { kind: OutboxKind::DeadLetter, key: None, headers: Headers::default(), body }]
}

fn data(claimed: &Claimed, attempts: u32) -> LifecycleData<'_> {
    LifecycleData {
        notification_id: &claimed.id,
        channel: claimed.channel,
        recipient: claimed.recipient.as_deref(),
        template: &claimed.template,
        attempts,
        provider: None,
        receipt: None,
        error_code: None,
        reason: None,
    }
}

fn lifecycle(event_type: &str, claimed: &Claimed, data: &LifecycleData<'_>, now: Timestamp) -> OutboxMessage {
    let id = lifecycle_id(&claimed.id, event_type, claimed.reopened);
    let timestamp = format_utc(now);
    let body = raw_json(&EnvelopeOut {
        event_id: &id.to_string(),
        event_type,
        aggregate_id: &claimed.aggregate_id,
        version: VERSION,
        timestamp: &timestamp,
        data,
        metadata: MetadataOut {
            source: SOURCE,
            correlation_id: Some(&claimed.correlation_id),
            causation_id: Some(&claimed.id),
            caused_at: None,
        },
    });
    OutboxMessage {
        kind: OutboxKind::Lifecycle,
        key: Some(claimed.aggregate_id.clone().into_bytes()),
        headers: headers(event_type, claimed, &timestamp, id),
        body,
    }
}

fn headers(event_type: &str, claimed: &Claimed, timestamp: &str, id: Uuid) -> Headers {
    let incoming = headers_of(claimed).get("traceparent").and_then(TraceContext::parse);
    let mut headers = Headers::default();
    headers.push("eventType", Some(event_type.as_bytes()));
    headers.push("source", Some(SOURCE.as_bytes()));
    headers.push("timestamp", Some(timestamp.as_bytes()));
    headers.push("aggregateId", Some(claimed.aggregate_id.as_bytes()));
    headers.push("traceparent", Some(TraceContext::continued(incoming, id).to_header().as_bytes()));
    headers
}

/// The ledger wrote them, so they read back; a stranger's edit costs the headers, not the notification.
fn headers_of(claimed: &Claimed) -> Headers {
    serde_json::from_str(&claimed.origin.headers_json).unwrap_or_default()
}
