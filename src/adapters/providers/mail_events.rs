//! What mail services report afterwards: bounces, complaints, deliveries, unsubscriptions.
//!
//! The format is the service's own, so that any mail service's webhook can be turned into it by a few lines in between:
//! one JSON object, or a list of them, signed by Standard Webhooks.
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

use super::webhook_signature::WebhookSigner;
use crate::domain::recipient::is_email;

pub use super::webhook_signature::SignatureError;

/// The most events in one list.
const MOST_EVENTS: usize = 500;

/// What happened to an e-mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailEventKind {
    /// The address does not exist or takes nothing: nothing further shall be sent to it.
    BouncedForGood,
    /// It did not arrive; the next one may.
    BouncedForNow,
    /// The recipient called it spam: nothing further shall be sent to the address.
    Complaint,
    /// The recipient's server took it.
    Delivered,
    /// The recipient wants no further ones.
    Unsubscribed,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailEvent {
    /// What happened.
    pub kind: MailEventKind,
    /// The e-mail address.
    pub address: String,
    /// The e-mail's Message-ID without angle brackets; what stands before the `@` is the notification's id, unless that
    /// has characters that a Message-ID cannot have.
    pub message_id: Option<String>,
    /// When it happened, if the service said so.
    pub at: Option<Timestamp>,
}

/// Why a report is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailEventError {
    /// It is not believed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
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
        let address = address.trim().to_owned();
        if !is_email(&address) {
            return Err("its recipient is no e-mail address");
        }
        let message_id = self.message_id.map(|id| id.trim().trim_matches(['<', '>']).to_owned());
        Ok(MailEvent { kind, address, message_id: message_id.filter(|id| !id.is_empty()), at: self.timestamp })
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
            address: "ann@example.com".into(),
            message_id: Some("n-1@example.com".into()),
            at: Some("2026-11-25T10:00:00Z".parse().expect("a time")),
        };
        assert_eq!(events, Ok(vec![expected]));
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
