//! What mail services report afterwards: bounces, complaints, deliveries, unsubscriptions.
//!
//! The format that is read here is the service's own, so that any mail service's webhook can be turned into it by a few
//! lines in between: one JSON object, or a list of them, signed by Standard Webhooks. `sendgrid_events` and
//! `mailgun_events` read what those services send themselves.
//!
//! ```json
//! {"type": "bounce", "bounceType": "permanent", "recipient": "ann@example.com",
//!  "messageId": "<0b9f6f0e-7a36-5b1c-9d0a-2f6f3c1f9b11@example.com>", "timestamp": "2026-11-25T10:00:00Z"}
//! ```
//!
//! `type` is `bounce`, `complaint`, `delivery` or `unsubscribe`; a bounce has `bounceType` `permanent` or `transient`.
//! `address` may stand for `recipient`. `messageId` (the e-mail's Message-ID) and `timestamp` (RFC 3339) are optional,
//! and so are further fields, which are ignored.
//!
//! Pure functions; the HTTP endpoint is elsewhere.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::webhook_signature::WebhookSigner;
use crate::domain::recipient::is_email;

pub use super::webhook_signature::SignatureError;

/// The most events in one list.
const MOST_EVENTS: usize = 500;
/// How far a mail service's clock may be ahead of this one, in seconds.
const AHEAD_SECONDS: i64 = 300;

/// What happened to an e-mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailEventKind {
    /// The address does not exist or takes nothing: nothing further shall be sent to it.
    BouncedForGood,
    /// It did not arrive; the next one may.
    BouncedForNow,
    /// The mail service did not even try, and not because of the address.
    Dropped,
    /// The recipient called it spam: nothing further shall be sent to the address.
    Complaint,
    /// The recipient's server took it.
    Delivered,
    /// The recipient wants no further ones of its kind.
    Unsubscribed,
    /// The recipient wants none at all.
    UnsubscribedFromAll,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailEvent {
    /// What happened.
    pub kind: MailEventKind,
    /// The e-mail address, if what was given is one, and what happened may be held against it.
    pub address: Option<String>,
    /// The notification's id, if the event says which e-mail it is about.
    pub notification: Option<String>,
    /// When it happened, if the service said so.
    pub at: Option<Timestamp>,
}

impl MailEvent {
    /// What a mail service tells of its own accord. `given` is the notification's id where the sender gave it along;
    /// else it stands in the Message-ID, if that is the one that the e-mail came with.
    pub(super) fn told(
        kind: MailEventKind,
        address: Option<&str>,
        given: Option<&str>,
        message_id: Option<&str>,
        at: Option<&Value>,
    ) -> Self {
        let notification = given.map(str::to_owned).or_else(|| notification_of(message_id?));
        let lists = matches!(kind, MailEventKind::Unsubscribed | MailEventKind::UnsubscribedFromAll);
        Self {
            kind,
            // The service keeps a list of those who unsubscribed by itself, and it may be another sender's.
            address: address_of(address.filter(|_| !lists)),
            // One bad id must not cost the call its other events.
            notification: notification.filter(|id| !id.contains(char::is_control)),
            at: at.and_then(moment),
        }
    }
}

/// Why a report is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailEventError {
    /// It is not believed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is not believed, by a mail service's own way of signing; says why.
    #[error("{0}")]
    Stranger(&'static str),
    /// It is no JSON of this form; says where.
    #[error("the report makes no sense: {0}")]
    Malformed(String),
}

/// Reads reports that are signed with one secret.
pub struct MailEvents {
    signer: WebhookSigner,
}

/// The headers of Standard Webhooks.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct SignedHeaders<'a> {
    pub id: &'a str,
    pub timestamp: &'a str,
    pub signature: &'a str,
}

impl MailEvents {
    /// Takes `whsec_` and base64, or any other text for its bytes.
    ///
    /// # Errors
    /// What is wrong with the secret, without the secret.
    pub fn new(secret: &str) -> Result<Self, &'static str> {
        Ok(Self { signer: WebhookSigner::new(secret)? })
    }

    /// The events of a report, once its signature is found good.
    ///
    /// # Errors
    /// See [`MailEventError`]. A list with one event that makes no sense is refused as a whole.
    pub fn read(
        &self,
        headers: SignedHeaders<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Vec<MailEvent>, MailEventError> {
        self.signer.verify(headers.id, headers.timestamp, headers.signature, body, now)?;
        parse(body)
    }
}

/// The id in an e-mail's Message-ID, with or without angle brackets: what stands before the `@`, unless the id has
/// characters that a Message-ID cannot have.
fn notification_of(message_id: &str) -> Option<String> {
    let id = message_id.trim().trim_matches(['<', '>']);
    let id = id.split_once('@').map_or(id, |(id, _)| id);
    Some(id.to_owned()).filter(|id| !id.is_empty())
}

/// The address in an event, if it is one.
fn address_of(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|text| is_email(text)).map(str::to_owned)
}

/// Seconds of Unix time, as a number or a text.
fn moment(value: &Value) -> Option<Timestamp> {
    let seconds: f64 = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    Timestamp::from_millisecond((seconds * 1000.0).round() as i64).ok()
}

/// True for a signature of this time that is not older than so many seconds, nor much ahead of the clock here.
pub(super) fn is_timely(signed: i64, now: Timestamp, oldest: i64) -> bool {
    (-AHEAD_SECONDS..=oldest).contains(&now.as_second().saturating_sub(signed))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(rename = "type")]
    kind: RawKind,
    bounce_type: Option<BounceType>,
    recipient: Option<String>,
    address: Option<String>,
    message_id: Option<String>,
    timestamp: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawKind {
    Bounce,
    Complaint,
    Delivery,
    Unsubscribe,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum BounceType {
    Permanent,
    Transient,
}

fn parse(body: &[u8]) -> Result<Vec<MailEvent>, MailEventError> {
    let malformed = |error: serde_json::Error| MailEventError::Malformed(error.to_string());
    let raw: Vec<Raw> = if body.trim_ascii_start().first() == Some(&b'[') {
        serde_json::from_slice(body).map_err(malformed)?
    } else {
        vec![serde_json::from_slice(body).map_err(malformed)?]
    };
    if raw.len() > MOST_EVENTS {
        return Err(MailEventError::Malformed(format!("more than {MOST_EVENTS} events")));
    }
    let numbered = raw.into_iter().enumerate();
    numbered
        .map(|(index, raw)| raw.event().map_err(|why| MailEventError::Malformed(format!("event {index}: {why}"))))
        .collect()
}

impl Raw {
    fn event(self) -> Result<MailEvent, &'static str> {
        let kind = match (self.kind, self.bounce_type) {
            (RawKind::Bounce, Some(BounceType::Permanent)) => MailEventKind::BouncedForGood,
            (RawKind::Bounce, Some(BounceType::Transient)) => MailEventKind::BouncedForNow,
            (RawKind::Bounce, None) => return Err("a bounce needs a bounceType, `permanent` or `transient`"),
            (RawKind::Complaint, _) => MailEventKind::Complaint,
            (RawKind::Delivery, _) => MailEventKind::Delivered,
            (RawKind::Unsubscribe, _) => MailEventKind::Unsubscribed,
        };
        let address = self.recipient.or(self.address).ok_or("needs a recipient or an address")?;
        let address = Some(address_of(Some(&address)).ok_or("its recipient is no e-mail address")?);
        let notification = self.message_id.as_deref().and_then(notification_of);
        Ok(MailEvent { kind, address, notification, at: self.timestamp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn read(body: &str) -> Result<Vec<MailEvent>, MailEventError> {
        let signer = WebhookSigner::new("secret").expect("a secret");
        let signature = signer.sign("evt_1", NOW, body.as_bytes());
        let timestamp = NOW.to_string();
        let headers = SignedHeaders { id: "evt_1", timestamp: &timestamp, signature: &signature };
        let now = Timestamp::from_second(NOW + 10).expect("a time");
        MailEvents::new("secret").expect("a secret").read(headers, body.as_bytes(), now)
    }

    fn kind(body: &str) -> MailEventKind {
        read(body).unwrap_or_else(|error| panic!("{body}: {error}"))[0].kind
    }

    #[test]
    fn an_event_is_read_whole() {
        let events = read(
            r#"{"type":"bounce","bounceType":"permanent","recipient":" ann@example.com ","messageId":"<n-1@example.com>",
                "timestamp":"2026-11-25T10:00:00Z","diagnostic":{"code":"5.1.1"}}"#,
        );
        let expected = MailEvent {
            kind: MailEventKind::BouncedForGood,
            address: Some("ann@example.com".into()),
            notification: Some("n-1".into()),
            at: Some("2026-11-25T10:00:00Z".parse().expect("a time")),
        };
        assert_eq!(events, Ok(vec![expected]));
    }

    #[test]
    fn a_message_id_names_the_notification() {
        for (message_id, id) in [
            ("<n-1@example.com>", Some("n-1")),
            (" n-1@example.com ", Some("n-1")),
            ("n-1", Some("n-1")),
            ("<@example.com>", None),
            ("", None),
        ] {
            assert_eq!(notification_of(message_id).as_deref(), id, "{message_id}");
        }
    }

    #[test]
    fn times_are_numbers_or_texts() {
        let half_past = Timestamp::from_millisecond(NOW * 1000 + 500).ok();
        assert_eq!(moment(&serde_json::json!(1_700_000_000.5)), half_past);
        assert_eq!(moment(&serde_json::json!("1700000000.5")), half_past);
        for none in [serde_json::json!("soon"), serde_json::json!(1e300), Value::Null] {
            assert_eq!(moment(&none), None, "{none}");
        }
        let now = Timestamp::from_second(NOW).expect("a time");
        let timely = [NOW + 300, NOW - 60].map(|signed| is_timely(signed, now, 60));
        let untimely = [NOW + 301, NOW - 61, i64::MIN, i64::MAX].map(|signed| is_timely(signed, now, 60));
        assert_eq!((timely, untimely), ([true; 2], [false; 4]));
    }

    #[test]
    fn kinds_are_told_apart() {
        let of = |kind_: &str, more: &str| kind(&format!(r#"{{"type":"{kind_}","address":"a@b.example"{more}}}"#));
        let bounce = |kind: &str| of("bounce", &format!(r#","bounceType":"{kind}""#));
        let bounces = (bounce("permanent"), bounce("transient"));
        assert_eq!(bounces, (MailEventKind::BouncedForGood, MailEventKind::BouncedForNow));
        assert_eq!(of("complaint", ""), MailEventKind::Complaint);
        let others = (of("unsubscribe", ""), of("delivery", ""));
        assert_eq!(others, (MailEventKind::Unsubscribed, MailEventKind::Delivered));
    }

    #[test]
    fn lists_are_taken_whole_or_not_at_all() {
        let good = r#"{"type":"delivery","recipient":"a@b.example"}"#;
        assert_eq!(read(&format!(" [{good},{good}]")).map(|events| events.len()), Ok(2));
        assert_eq!(read("[]"), Ok(Vec::new()));
        let bad = format!(r#"[{good},{{"type":"bounce","recipient":"a@b.example"}}]"#);
        assert!(matches!(read(&bad), Err(MailEventError::Malformed(why)) if why.starts_with("event 1: a bounce")));
        let crowd = format!("[{}{good}]", format!("{good},").repeat(MOST_EVENTS));
        assert!(matches!(read(&crowd), Err(MailEventError::Malformed(_))));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for body in [
            "",
            "null",
            "5",
            r#"{"type":"bounce","bounceType":"soft","recipient":"a@b.example"}"#,
            r#"{"type":"open","recipient":"a@b.example"}"#,
            r#"{"type":"complaint"}"#,
            r#"{"type":"complaint","recipient":"customer-7"}"#,
            r#"{"type":"complaint","recipient":"a@b.example","timestamp":"yesterday"}"#,
        ] {
            assert!(matches!(read(body), Err(MailEventError::Malformed(_))), "{body}");
        }
        let events = MailEvents::new("secret").expect("a secret");
        let headers = SignedHeaders { id: "evt_1", timestamp: "1700000000", signature: "v1,AAAA" };
        let now = Timestamp::from_second(NOW).expect("a time");
        let unsigned = events.read(headers, b"{}", now);
        assert_eq!(unsigned, Err(MailEventError::Signature(SignatureError::Mismatch)));
    }
}
