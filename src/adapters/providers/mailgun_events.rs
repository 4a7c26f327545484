//! Mailgun's webhooks: whether a call is Mailgun's, and what it says of an e-mail.
//!
//! After "Securing Webhooks", "Webhook Payloads" and "Tracking Failures" in Mailgun's documentation. The HTTP endpoint
//! is elsewhere.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::Sha256;

use super::mail_events::{MailEvent, MailEventError, MailEventKind, is_timely};
use super::mailgun_tokens::Tokens;

/// Mailgun repeats a call that was not taken for eight hours, and does not say that it signs it anew.
const OLDEST_SECONDS: i64 = 9 * 60 * 60;
/// A token has 50 characters.
const LONGEST_TOKEN: usize = 200;
/// Of a signature in hexadecimal digits.
const SIGNATURE_CHARS: usize = 64;

/// Reads calls that are signed with one key.
pub struct MailgunEvents {
    keyed: Hmac<Sha256>,
    tokens: Tokens,
}

#[derive(Deserialize)]
struct Call<'a> {
    signature: Signature,
    /// Read once it is believed.
    #[serde(rename = "event-data", borrow)]
    event: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Signature {
    timestamp: Value,
    token: String,
    signature: String,
    /// By the key of the account that owns the one that sent.
    parent_signature: Option<String>,
}

impl MailgunEvents {
    /// Takes the HTTP webhook signing key.
    ///
    /// # Errors
    /// What is wrong with the key, without the key.
    pub fn new(key: &str) -> Result<Self, &'static str> {
        let key = key.trim();
        if key.is_empty() {
            return Err("is empty");
        }
        let keyed = Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_err(|_| "cannot be used as a key")?;
        Ok(Self { keyed, tokens: Tokens::default() })
    }

    /// The event of a call, once its signature is found good; none if it says nothing that lasts.
    ///
    /// # Errors
    /// See [`MailEventError`].
    pub fn read(&self, body: &[u8], now: Timestamp) -> Result<Vec<MailEvent>, MailEventError> {
        let stranger = MailEventError::Stranger;
        let malformed = |error: serde_json::Error| MailEventError::Malformed(error.to_string());
        let call: Call<'_> = serde_json::from_slice(body).map_err(malformed)?;
        let timestamp = match &call.signature.timestamp {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let signed: i64 = timestamp.parse().map_err(|_| stranger("the signature's timestamp is malformed"))?;
        if !is_timely(signed, now, OLDEST_SECONDS) {
            return Err(stranger("the signature's timestamp is nine hours old or in the future"));
        }
        if !self.is_genuine(&timestamp, &call.signature) {
            return Err(stranger("the signature does not match"));
        }
        let event: Value = serde_json::from_str(call.event.get()).map_err(malformed)?;
        let name =
            text(&event, "/event").ok_or_else(|| MailEventError::Malformed("`event-data` has no `event`".into()))?;
        let event = mail_event(name, &event);
        if !self.tokens.binds(&call.signature.token, &format!("{name} {event:?}")) {
            return Err(stranger("the signature's token was used for another event"));
        }
        Ok(event.into_iter().collect())
    }

    fn is_genuine(&self, timestamp: &str, signature: &Signature) -> bool {
        if signature.token.len() > LONGEST_TOKEN {
            return false;
        }
        let mut mac = self.keyed.clone();
        mac.update(timestamp.as_bytes());
        mac.update(signature.token.as_bytes());
        let given = [Some(&signature.signature), signature.parent_signature.as_ref()];
        let mut given = given.into_iter().flatten().filter_map(|digits| from_hex(digits));
        given.any(|given| mac.clone().verify_slice(&given).is_ok())
    }
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let values: Option<Vec<u8>> = digits.chars().map(|c| c.to_digit(16).map(|value| value as u8)).collect();
    let values = values.filter(|values| values.len() == SIGNATURE_CHARS)?;
    Some(values.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect())
}

fn mail_event(name: &str, event: &Value) -> Option<MailEvent> {
    let kind = kind(name, event)?;
    let parts = ["/recipient", "/user-variables/notification", "/message/headers/message-id"];
    let [address, given, message_id] = parts.map(|part| text(event, part));
    Some(MailEvent::told(kind, address, given, message_id, event.get("timestamp")))
}

fn kind(name: &str, event: &Value) -> Option<MailEventKind> {
    match name {
        "delivered" => Some(MailEventKind::Delivered),
        "failed" => failure(event),
        "complained" => Some(MailEventKind::Complaint),
        "unsubscribed" => Some(MailEventKind::Unsubscribed),
        "rejected" => Some(MailEventKind::Dropped),
        // accepted, stored, opened, clicked, and what Mailgun adds one day.
        _ => None,
    }
}

/// Mailgun keeps lists of addresses to which it sends nothing, and goes on sending after other failures than bounces:
/// `old` (the server was away for too long), `espblock` (about the sender), `generic`. It does not list all reasons; a
/// bounce says mostly whether it is a hard one. Who unsubscribed did so from another e-mail: nothing is known of what
/// this one's recipient thinks of its kind.
fn failure(event: &Value) -> Option<MailEventKind> {
    let reason = text(event, "/reason");
    if text(event, "/severity") != Some("permanent") {
        // It is tried again, but for the last time, which Mailgun may call temporary as well.
        return (reason == Some("old")).then_some(MailEventKind::BouncedForNow);
    }
    Some(match (reason, text(event, "/delivery-status/bounce-type")) {
        (Some("suppress-unsubscribe"), _) => MailEventKind::Dropped,
        (Some("suppress-complaint"), _) => MailEventKind::Complaint,
        (Some("suppress-bounce"), _) => MailEventKind::BouncedForGood,
        (Some("old" | "espblock"), _) | (_, Some("soft")) => MailEventKind::BouncedForNow,
        (_, Some("hard")) | (Some("bounce" | "delayed-bounce" | "hardfail") | None, _) => MailEventKind::BouncedForGood,
        _ => MailEventKind::BouncedForNow,
    })
}

fn text<'a>(event: &'a Value, pointer: &str) -> Option<&'a str> {
    event.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::bytes::hex;

    const KEY: &str = "key-1234567890";
    const AT: i64 = 1_770_920_772;
    const TOKEN: &str = "e0b5477167110d68991efc6b9f89f0a11066af27834600e123";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn reader(key: &str) -> MailgunEvents {
        MailgunEvents::new(key).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn digits(key: &str, timestamp: &str, token: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key");
        mac.update(format!("{timestamp}{token}").as_bytes());
        hex(&mac.finalize().into_bytes())
    }

    fn call(event: Value) -> Value {
        let timestamp = AT.to_string();
        let signature = digits(KEY, &timestamp, TOKEN);
        json!({"signature": {"token": TOKEN, "timestamp": timestamp, "signature": signature}, "event-data": event})
    }

    fn read(call: &Value) -> Result<Vec<MailEvent>, MailEventError> {
        reader(KEY).read(call.to_string().as_bytes(), at(AT + 1))
    }

    /// As the documentation's example of a permanent failure.
    fn permanent_failure() -> Value {
        json!({
            "event": "failed", "id": "2kFItcrLQuKTdp-Ia2Xr7w", "timestamp": 1_770_918_175.592,
            "log-level": "error", "severity": "permanent", "reason": "bounce",
            "flags": {"is-authenticated": true, "is-routed": false, "is-test-mode": false},
            "message": {"attachments": [], "size": 341, "headers": {
                "message-id": "20260212174254.1234567890abcdef@sample.example",
                "from": "Sample Sender <sender@sample.example>", "to": "badrecipient@sample.example",
                "subject": "Sample webhook payload"}},
            "recipient": "badrecipient@sample.example", "recipient-domain": "sample.example",
            "recipient-provider": "Other", "tags": ["webhook_payload"], "campaigns": [],
            "delivery-status": {"attempt-no": 1, "code": 550, "enhanced-code": "5.5.0", "description": null,
                "message": "5.5.0 Requested action not taken: mailbox unavailable", "bounce-type": "hard"},
            "envelope": {"sender": "sender@sample.example", "targets": "badrecipient@sample.example",
                "transport": "smtp", "sending-ip": "192.0.2.10"},
            "user-variables": []
        })
    }

    #[test]
    fn an_event_is_read_whole() {
        let event = MailEvent {
            kind: MailEventKind::BouncedForGood,
            address: Some("badrecipient@sample.example".into()),
            notification: Some("20260212174254.1234567890abcdef".into()),
            at: Timestamp::from_millisecond(1_770_918_175_592).ok(),
        };
        assert_eq!(read(&call(permanent_failure())), Ok(vec![event]));
    }

    #[test]
    fn believes_only_what_is_signed_and_recent() {
        // Made with `openssl dgst -sha256 -hmac`.
        let known = "954652ed42c48876bdcb8cc1699588a0aefbd8774a1a81a03a6f8984aa7e5842";
        assert_eq!(digits(KEY, &AT.to_string(), TOKEN), known);
        let good = call(permanent_failure());
        let refused = |call: &Value, key: &str, now: i64| {
            let read = reader(key).read(call.to_string().as_bytes(), at(now));
            assert!(matches!(read, Err(MailEventError::Stranger(_))), "{now} {read:?}: {}", call["signature"]);
        };
        for now in [AT - 300, AT, AT + OLDEST_SECONDS] {
            assert!(reader(KEY).read(good.to_string().as_bytes(), at(now)).is_ok(), "{now}");
        }
        for now in [AT - 301, AT + OLDEST_SECONDS + 1] {
            refused(&good, KEY, now);
        }
        refused(&good, "key-1234567891", AT);
        let with = |field: &str, value: Value| {
            let mut changed = good.clone();
            changed["signature"][field] = value;
            changed
        };
        for (field, value) in [
            ("timestamp", json!((AT + 1).to_string())),
            ("timestamp", json!("soon")),
            ("timestamp", json!(1e9)),
            ("timestamp", Value::Null),
            ("token", json!("another")),
            ("token", json!("x".repeat(1000))),
            ("signature", json!("")),
            ("signature", json!(&known[..62])),
            ("signature", json!("ä".repeat(64))),
            ("signature", json!("0".repeat(64))),
        ] {
            refused(&with(field, value), KEY, AT);
        }
        assert!(reader(KEY).read(with("timestamp", json!(AT)).to_string().as_bytes(), at(AT)).is_ok(), "a number");
    }

    #[test]
    fn the_owner_of_an_account_signs_too() {
        let timestamp = AT.to_string();
        let mut call = call(permanent_failure());
        call["signature"]["signature"] = json!(digits("the key of the account", &timestamp, TOKEN));
        assert!(read(&call).is_err());
        call["signature"]["parent-signature"] = json!(digits(KEY, &timestamp, TOKEN));
        assert!(read(&call).is_ok());
    }

    #[test]
    fn a_signature_cannot_be_used_for_another_event() {
        let reader = reader(KEY);
        let read = |event: Value| reader.read(call(event).to_string().as_bytes(), at(AT));
        assert!(read(permanent_failure()).is_ok());
        assert!(read(permanent_failure()).is_ok(), "it may be repeated");
        let mut same = permanent_failure();
        same["delivery-status"]["attempt-no"] = json!(2);
        assert!(read(same).is_ok(), "it says the same");
        let mut other = permanent_failure();
        other["recipient"] = json!("somebody@else.example");
        assert!(matches!(read(other), Err(MailEventError::Stranger(_))));
        let opened = json!({"event": "opened", "recipient": "badrecipient@sample.example"});
        assert!(matches!(read(opened), Err(MailEventError::Stranger(_))));
    }

    #[test]
    fn each_event_is_told_apart() {
        let of = |event: Value| {
            let mut whole = permanent_failure();
            for (field, value) in event.as_object().expect("fields") {
                whole[field.as_str()] = value.clone();
            }
            read(&call(whole)).unwrap_or_else(|error| panic!("{event}: {error}")).first().map(|event| event.kind)
        };
        let failed = |reason: Value| json!({"event": "failed", "severity": "permanent", "reason": reason});
        for (event, kind) in [
            (json!({"event": "delivered"}), MailEventKind::Delivered),
            (json!({"event": "complained"}), MailEventKind::Complaint),
            (json!({"event": "unsubscribed", "tags": ["*"]}), MailEventKind::Unsubscribed),
            (json!({"event": "rejected", "reject": {"reason": "Sandbox"}}), MailEventKind::Dropped),
            (failed(json!("bounce")), MailEventKind::BouncedForGood),
            (failed(json!("delayed-bounce")), MailEventKind::BouncedForGood),
            (failed(json!("suppress-bounce")), MailEventKind::BouncedForGood),
            (failed(Value::Null), MailEventKind::BouncedForGood),
            (failed(json!("suppress-complaint")), MailEventKind::Complaint),
            (failed(json!("suppress-unsubscribe")), MailEventKind::Dropped),
            (failed(json!("old")), MailEventKind::BouncedForNow),
            (failed(json!("espblock")), MailEventKind::BouncedForNow),
            (failed(json!("generic")), MailEventKind::BouncedForGood),
            (json!({"reason": "generic", "delivery-status": {"code": 550}}), MailEventKind::BouncedForNow),
            (json!({"reason": "hardfail", "delivery-status": {"code": 550}}), MailEventKind::BouncedForGood),
            (json!({"delivery-status": {"code": 552, "bounce-type": "soft"}}), MailEventKind::BouncedForNow),
            (json!({"severity": "temporary", "reason": "old"}), MailEventKind::BouncedForNow),
        ] {
            assert_eq!(of(event.clone()), Some(kind), "{event}");
        }
        for event in [
            json!({"severity": "temporary", "reason": "generic", "delivery-status": {"code": 421}}),
            json!({"severity": "temporary", "reason": "bounce"}),
            json!({"event": "accepted"}),
            json!({"event": "opened", "client-info": {"client-name": "Chrome"}}),
            json!({"event": "clicked", "url": "https://shop.example/"}),
        ] {
            assert_eq!(of(event.clone()), None, "{event}");
        }
    }

    #[test]
    fn a_variable_names_the_notification_before_the_message_id_does() {
        let mut event = permanent_failure();
        event["user-variables"] = json!({"notification": "n@1"});
        let named = read(&call(event)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(named[0].notification.as_deref(), Some("n@1"));
        let bare = json!({"event": "rejected", "reject": {"reason": "Sandbox"}, "recipient": "customer-7"});
        let bare = read(&call(bare)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((&bare[0].notification, &bare[0].address, bare[0].at), (&None, &None, None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let read = |body: &str| reader(KEY).read(body.as_bytes(), at(AT));
        for body in ["", "null", "[]", "{}", "event=delivered&timestamp=1", r#"{"signature":{"token":"t"}}"#] {
            assert!(matches!(read(body), Err(MailEventError::Malformed(_))), "{body}");
        }
        for event in [json!({}), json!([]), json!({"event": 5}), Value::Null] {
            let refused = read(&call(event.clone()).to_string());
            assert!(matches!(refused, Err(MailEventError::Malformed(why)) if why.contains("no `event`")), "{event}");
        }
        assert!(MailgunEvents::new("").is_err());
    }
}
