//! Notifications: what a handler asks for, and the `NotificationRequested` event that carries it.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::catalog::NOTIFICATION_REQUESTED;
use super::channel::Channel;
use super::envelope::{Envelope, EnvelopeOut, MetadataOut, non_empty, to_json};
use super::error::DecodeError;
use super::events::VERSION;
use super::ids::request_id;

/// The `source` in everything that this service publishes.
pub const SOURCE: &str = "notification-service";

/// The category of notifications that name none, as their templates do not.
pub const DEFAULT_CATEGORY: &str = "transactional";

/// What a handler wants to be sent, before it gets its id and its envelope.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Orders what belongs together: the key on `notification-events`.
    pub aggregate_id: String,
    /// How to reach the recipient.
    pub channel: Channel,
    /// Which words to use.
    pub template: Cow<'static, str>,
    /// Whom to reach: an id of the directory or an address; alerts have none.
    pub recipient: Option<String>,
    /// The template's variables: a JSON object.
    pub data: Box<RawValue>,
}

#[derive(Serialize)]
struct RequestData<'a> {
    r#type: Channel,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a str>,
    template: &'a str,
    data: &'a RawValue,
}

/// A draft with its id and its JSON, ready to be published.
#[derive(Debug)]
pub struct PublishedRequest {
    /// UUIDv5 of (causing event, template, channel, recipient).
    pub id: uuid::Uuid,
    /// The envelope's text.
    pub json: Vec<u8>,
}

impl Draft {
    /// Puts the draft into its envelope, with this timestamp (RFC 3339, UTC).
    pub fn to_request(&self, cause: &Envelope<'_>, timestamp: &str) -> PublishedRequest {
        let id = request_id(&cause.event_id, &self.template, self.channel, self.recipient.as_deref());
        let mut buffer = uuid::Uuid::encode_buffer();
        let event_id: &str = id.hyphenated().encode_lower(&mut buffer);
        let json = to_json(&EnvelopeOut {
            event_id,
            event_type: NOTIFICATION_REQUESTED,
            aggregate_id: &self.aggregate_id,
            version: VERSION,
            timestamp,
            data: RequestData {
                r#type: self.channel,
                recipient: self.recipient.as_deref(),
                template: &self.template,
                data: &self.data,
            },
            metadata: MetadataOut {
                source: SOURCE,
                correlation_id: Some(cause.correlation_id()),
                causation_id: Some(&cause.event_id),
                caused_at: Some(&cause.timestamp),
            },
        });
        PublishedRequest { id, json }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestWire<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    recipient: Option<Cow<'a, str>>,
    #[serde(borrow)]
    template: Cow<'a, str>,
    #[serde(borrow, default)]
    category: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    critical: Option<bool>,
    #[serde(borrow, default)]
    send_at: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    expires_at: Option<Cow<'a, str>>,
}

/// A `NotificationRequested` as the delivery stage reads it.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Request {
    /// The request's `eventId`; any non-empty string, for others may publish requests too.
    pub id: String,
    pub aggregate_id: String,
    pub channel: Channel,
    pub recipient: Option<String>,
    pub template: String,
    pub category: Option<String>,
    pub correlation_id: String,
    pub causation_id: Option<String>,
    /// When the event behind the request happened (the request's own time when unknown).
    pub caused_at: Timestamp,
    /// It waits neither for the end of quiet hours nor for the throttle.
    pub critical: bool,
    /// Not to be sent before.
    pub send_at: Option<Timestamp>,
    /// Not to be sent from then on.
    pub expires_at: Option<Timestamp>,
    /// The template's variables as JSON text, where there are any.
    pub data: Option<String>,
}

impl Request {
    /// Reads a request from its envelope.
    ///
    /// # Errors
    /// A [`DecodeError`] that names the field and the rule.
    pub fn decode(envelope: &Envelope<'_>) -> Result<Self, DecodeError> {
        envelope.require_version(VERSION)?;
        let wire: RequestWire<'_> = envelope.data_as()?;
        let channel: Channel = wire.r#type.parse().map_err(|e| DecodeError::invalid("data.type", e))?;
        non_empty("data.template", &wire.template)?;
        match &wire.recipient {
            Some(recipient) => non_empty("data.recipient", recipient)?,
            None if channel == Channel::AdminAlert => {}
            None => return Err(DecodeError::MissingField { field: "data.recipient".into() }),
        }
        if let Some(data) = wire.data
            && !data.get().starts_with('{')
        {
            return Err(DecodeError::invalid("data.data", "expected an object"));
        }
        for (field, text) in [
            ("data.category", wire.category.as_deref()),
            ("metadata.causationId", envelope.metadata.causation_id.as_deref()),
        ] {
            if let Some(text) = text {
                non_empty(field, text)?;
            }
        }
        let (send_at, expires_at) = (moment("data.sendAt", wire.send_at)?, moment("data.expiresAt", wire.expires_at)?);
        let caused_at = envelope.metadata.caused_at.as_deref().and_then(super::time::parse_rfc3339);
        Ok(Self {
            id: envelope.event_id.to_string(),
            aggregate_id: envelope.aggregate_id.to_string(),
            channel,
            recipient: wire.recipient.map(Cow::into_owned),
            template: wire.template.into_owned(),
            category: wire.category.map(Cow::into_owned),
            correlation_id: envelope.correlation_id().to_owned(),
            causation_id: envelope.metadata.causation_id.as_deref().map(str::to_owned),
            caused_at: caused_at.unwrap_or(envelope.occurred_at),
            critical: wire.critical.unwrap_or_default(),
            send_at,
            expires_at,
            data: wire.data.map(|data| data.get().to_owned()),
        })
    }
}

fn moment(field: &str, text: Option<Cow<'_, str>>) -> Result<Option<Timestamp>, DecodeError> {
    let parse = |text: Cow<'_, str>| {
        super::time::parse_rfc3339(&text).ok_or_else(|| DecodeError::invalid(field, "expected an RFC 3339 date-time"))
    };
    text.map(parse).transpose()
}

/// The template's variables inside the text of a request's envelope; an empty object when it has none.
///
/// # Errors
/// A [`DecodeError`] when the text is no request.
pub fn template_data(envelope_json: &str) -> Result<Box<RawValue>, DecodeError> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        data: Inner<'a>,
    }
    #[derive(Deserialize)]
    struct Inner<'a> {
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let outer: Outer<'_> = super::envelope::from_json(envelope_json, "")?;
    let text = outer.data.data.map_or("{}", RawValue::get);
    RawValue::from_string(text.to_owned()).map_err(|e| DecodeError::InvalidJson(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause() -> String {
        r#"{"eventId":"evt-1","eventType":"OrderCreated","aggregateId":"o-1","version":1,
            "timestamp":"2026-01-15T10:30:00+00:00","data":{},"metadata":{"correlationId":"req-1"}}"#
            .to_owned()
    }

    #[test]
    fn a_draft_becomes_the_contract_s_envelope_and_reads_back() {
        let cause = cause();
        let envelope = Envelope::decode(Some(cause.as_bytes())).expect("valid");
        let draft = Draft {
            aggregate_id: "notification-12345".into(),
            channel: Channel::Email,
            template: "order_confirmation".into(),
            recipient: Some("customer-789".into()),
            data: RawValue::from_string(r#"{"orderId":"12345","amount":99.10}"#.into()).expect("JSON"),
        };
        let request = draft.to_request(&envelope, "2026-02-01T00:00:00.000Z");
        let text = String::from_utf8(request.json).expect("utf8");
        let id = request.id;
        assert_eq!(
            text,
            format!(
                r#"{{"eventId":"{id}","eventType":"NotificationRequested","aggregateId":"notification-12345","version":1,"timestamp":"2026-02-01T00:00:00.000Z","data":{{"type":"email","recipient":"customer-789","template":"order_confirmation","data":{{"orderId":"12345","amount":99.10}}}},"metadata":{{"source":"notification-service","correlationId":"req-1","causationId":"evt-1","causedAt":"2026-01-15T10:30:00+00:00"}}}}"#
            )
        );
        let again = Envelope::decode(Some(text.as_bytes())).expect("valid");
        let read = Request::decode(&again).expect("a request");
        assert_eq!(read.id, id.to_string());
        assert_eq!(read.caused_at, envelope.occurred_at);
        assert_eq!(template_data(&text).expect("data").get(), r#"{"orderId":"12345","amount":99.10}"#);
    }

    #[test]
    fn bad_requests_are_refused_by_field() {
        let base = r#"{"eventId":"e","eventType":"NotificationRequested","aggregateId":"n","version":1,"timestamp":"2026-01-15T10:30:00Z","data":DATA}"#;
        for (data, field) in [
            (r#"{"type":"pigeon","recipient":"r","template":"t"}"#, "data.type"),
            (r#"{"type":"email","template":"t"}"#, "data.recipient"),
            (r#"{"type":"email","recipient":"r","template":""}"#, "data.template"),
            (r#"{"type":"email","recipient":"\u0000","template":"t"}"#, "data.recipient"),
            (r#"{"type":"email","recipient":"r","template":"t","data":[1]}"#, "data.data"),
            (r#"{"recipient":"r","template":"t"}"#, "data.type"),
            (r#"{"type":"email","recipient":"r","template":"t","sendAt":"tomorrow"}"#, "data.sendAt"),
            (r#"{"type":"email","recipient":"r","template":"t","expiresAt":7}"#, "data.expiresAt"),
        ] {
            let json = base.replace("DATA", data);
            let envelope = Envelope::decode(Some(json.as_bytes())).expect("envelope");
            let error = Request::decode(&envelope).expect_err(data).to_string();
            assert!(error.contains(field), "{data}: {error}");
        }
        let alert = base.replace("DATA", r#"{"type":"admin_alert","template":"t"}"#);
        assert!(Request::decode(&Envelope::decode(Some(alert.as_bytes())).expect("envelope")).is_ok());
    }
}
