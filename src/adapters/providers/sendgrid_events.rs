//! SendGrid's signed Event Webhook: whether a call is SendGrid's, and what it says of e-mails.
//!
//! After "Event Webhook Reference" and "Getting Started with the Event Webhook Security Features" in Twilio SendGrid's
//! documentation. Pure functions; the HTTP endpoint is elsewhere.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::sign::Verifier;
use serde_json::{Map, Value};

use super::mail_events::{MailEvent, MailEventError, MailEventKind, is_timely};

/// What is signed of a call besides its body, in lower case.
pub const TIMESTAMP_HEADER: &str = "x-twilio-email-event-webhook-timestamp";
/// Where the signature is, in lower case.
pub const SIGNATURE_HEADER: &str = "x-twilio-email-event-webhook-signature";

/// SendGrid repeats a call that was not taken for 24 hours, and does not say whether it signs it anew. What is heard
/// twice changes nothing; what is never heard again is a complaint that nobody heeds.
const OLDEST_SECONDS: i64 = 25 * 60 * 60;

/// Reads calls that are signed with the private key of one public key.
pub struct SendGridEvents {
    key: PKey<Public>,
}

impl SendGridEvents {
    /// Takes the verification key as SendGrid shows it, base64 of a public key, or the same as PEM.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn new(key: &str) -> Result<Self, &'static str> {
        let read = if key.contains("-----BEGIN") {
            PKey::public_key_from_pem(key.as_bytes()).ok()
        } else {
            let encoded: String = key.split_ascii_whitespace().collect();
            STANDARD.decode(encoded).ok().and_then(|der| PKey::public_key_from_der(&der).ok())
        };
        let key = read.ok_or("is no public key in base64 or PEM")?;
        let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
        if curve == Some(Nid::X9_62_PRIME256V1) { Ok(Self { key }) } else { Err("is no key of the curve P-256") }
    }

    /// The events of a call that matter here, once its signature is found good.
    ///
    /// # Errors
    /// See [`MailEventError`].
    pub fn read(
        &self,
        timestamp: &str,
        signature: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Vec<MailEvent>, MailEventError> {
        let stranger = MailEventError::Stranger;
        let malformed = "X-Twilio-Email-Event-Webhook-Signature or -Timestamp is missing or malformed";
        let signed: i64 = timestamp.parse().map_err(|_| stranger(malformed))?;
        let signature = STANDARD.decode(signature).map_err(|_| stranger(malformed))?;
        if !is_timely(signed, now, OLDEST_SECONDS) {
            return Err(stranger("X-Twilio-Email-Event-Webhook-Timestamp is more than a day old or in the future"));
        }
        if !self.is_genuine(timestamp, body, &signature) {
            return Err(stranger("X-Twilio-Email-Event-Webhook-Signature does not match"));
        }
        parse(body)
    }

    fn is_genuine(&self, timestamp: &str, body: &[u8], signature: &[u8]) -> bool {
        let verified = Verifier::new(MessageDigest::sha256(), &self.key).and_then(|mut verifier| {
            verifier.update(timestamp.as_bytes())?;
            verifier.update(body)?;
            verifier.verify(signature)
        });
        // What is no signature at all is an error and not a false.
        verified.unwrap_or(false)
    }
}

/// An event is read by names, not into a structure: the sender's own arguments stand among SendGrid's fields.
type Event = Map<String, Value>;

fn parse(body: &[u8]) -> Result<Vec<MailEvent>, MailEventError> {
    let events: Vec<Event> =
        serde_json::from_slice(body).map_err(|error| MailEventError::Malformed(error.to_string()))?;
    Ok(events.iter().filter_map(mail_event).collect())
}

/// `None` for what says nothing that lasts. Nothing else is refused: the call would be repeated for a day, with good
/// events in it.
fn mail_event(event: &Event) -> Option<MailEvent> {
    let kind = kind(event)?;
    let [address, given, message_id] = ["email", "notification", "smtp-id"].map(|name| text(event, name));
    Some(MailEvent::told(kind, address, given, message_id, event.get("timestamp")))
}

fn kind(event: &Event) -> Option<MailEventKind> {
    match text(event, "event")? {
        "delivered" => Some(MailEventKind::Delivered),
        "bounce" => Some(bounce(text(event, "type"), text(event, "status"))),
        "dropped" => Some(drop_for(text(event, "reason").unwrap_or_default())),
        "spamreport" => Some(MailEventKind::Complaint),
        "group_unsubscribe" => Some(MailEventKind::Unsubscribed),
        "unsubscribe" => Some(MailEventKind::UnsubscribedFromAll),
        // processed, deferred, open, click, group_resubscribe, and what SendGrid adds one day.
        _ => None,
    }
}

/// `blocked` is about the message or the sender, or the server was away for too long; SendGrid itself goes on sending
/// to the address. Older calls have no type.
fn bounce(kind: Option<&str>, status: Option<&str>) -> MailEventKind {
    let for_good = match kind {
        Some(kind) => kind == "bounce",
        None => status.is_some_and(|status| status.starts_with('5')),
    };
    if for_good { MailEventKind::BouncedForGood } else { MailEventKind::BouncedForNow }
}

/// SendGrid keeps lists of addresses to which it sends nothing; other reasons are about the message or the account. Who
/// unsubscribed did so from another e-mail: nothing is known of what this one's recipient thinks of its kind.
fn drop_for(reason: &str) -> MailEventKind {
    match reason.trim().to_ascii_lowercase().as_str() {
        "bounced address" | "invalid" => MailEventKind::BouncedForGood,
        "spam reporting address" => MailEventKind::Complaint,
        _ => MailEventKind::Dropped,
    }
}

fn text<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.get(name)?.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::pkey::Private;
    use openssl::sign::Signer;

    use super::*;

    /// What SendGrid's own libraries are tested with.
    const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaI\
        NXvVpiglSI8eNEc6wEA3F+g==";
    const SIGNATURE: &str =
        "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=";
    const AT: i64 = 1_600_112_502;
    const BODY: &str = concat!(
        r#"[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address","#,
        r#""sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA","#,
        r#""sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0","#,
        r#""smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]"#,
        "\r\n"
    );

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn key(curve: Nid) -> PKey<Private> {
        let group = EcGroup::from_curve_name(curve).expect("a curve");
        PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
    }

    fn public(key: &PKey<Private>) -> String {
        STANDARD.encode(key.public_key_to_der().expect("a public key"))
    }

    /// What a call says that is signed as it should be.
    fn read(body: &str) -> Result<Vec<MailEvent>, MailEventError> {
        let key = key(Nid::X9_62_PRIME256V1);
        let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
        signer.update(format!("{AT}{body}").as_bytes()).expect("updated");
        let signature = STANDARD.encode(signer.sign_to_vec().expect("a signature"));
        let events = SendGridEvents::new(&public(&key)).unwrap_or_else(|problem| panic!("{problem}"));
        events.read(&AT.to_string(), &signature, body.as_bytes(), at(AT + 1))
    }

    #[test]
    fn agrees_with_sendgrids_own_libraries() {
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &KEY[..64], &KEY[64..]);
        for key in [KEY.to_owned(), format!(" {}\n{} ", &KEY[..64], &KEY[64..]), pem] {
            let events = SendGridEvents::new(&key).unwrap_or_else(|problem| panic!("{key}: {problem}"));
            let event = MailEvent {
                kind: MailEventKind::BouncedForGood,
                address: Some("hello@world.com".into()),
                notification: Some("LRzXl_NHStOGhQ4kofSm_A".into()),
                at: Some(at(1_600_112_492)),
            };
            assert_eq!(events.read(&AT.to_string(), SIGNATURE, BODY.as_bytes(), at(AT)), Ok(vec![event]));
        }
    }

    #[test]
    fn believes_only_what_is_signed_and_recent() {
        let events = SendGridEvents::new(KEY).unwrap_or_else(|problem| panic!("{problem}"));
        let (time, other_time) = (AT.to_string(), (AT + 1).to_string());
        let changed = BODY.replace("hello", "jello");
        let refused = |timestamp: &str, signature: &str, body: &str, now: i64| {
            let read = events.read(timestamp, signature, body.as_bytes(), at(now));
            assert!(matches!(read, Err(MailEventError::Stranger(_))), "{timestamp} {signature} {now}: {read:?}");
        };
        for now in [AT - 300, AT, AT + OLDEST_SECONDS] {
            assert!(events.read(&time, SIGNATURE, BODY.as_bytes(), at(now)).is_ok(), "{now}");
        }
        for now in [AT - 301, AT + OLDEST_SECONDS + 1] {
            refused(&time, SIGNATURE, BODY, now);
        }
        refused(&time, SIGNATURE, &changed, AT);
        refused(&time, SIGNATURE, BODY.trim_end(), AT);
        refused(&other_time, SIGNATURE, BODY, AT);
        for timestamp in ["", "soon", "99999999999999999999"] {
            refused(timestamp, SIGNATURE, BODY, AT);
        }
        let cut = STANDARD.encode(&STANDARD.decode(SIGNATURE).expect("base64")[..40]);
        for signature in ["", "AAAA", "no base64!", cut.as_str()] {
            refused(&time, signature, BODY, AT);
        }
        let other = SendGridEvents::new(&public(&key(Nid::X9_62_PRIME256V1))).unwrap_or_else(|e| panic!("{e}"));
        let by_another = other.read(&time, SIGNATURE, BODY.as_bytes(), at(AT));
        assert!(matches!(by_another, Err(MailEventError::Stranger(why)) if why.ends_with("does not match")));
    }

    #[test]
    fn keys_that_cannot_verify_are_refused() {
        let problem = |key: &str| SendGridEvents::new(key).err().unwrap_or_default();
        for bad in ["", "s3cret", "AAAA", "-----BEGIN PUBLIC KEY-----", &KEY[..60]] {
            assert_eq!(problem(bad), "is no public key in base64 or PEM", "{bad}");
        }
        assert!(problem(&public(&key(Nid::SECP384R1))).contains("P-256"));
        let rsa = super::super::test_support::rsa_key();
        assert!(problem(&public(&rsa)).contains("P-256"));
    }

    /// The examples of the reference, with the fields that differ.
    #[test]
    fn each_event_is_told_apart() {
        let of = |more: &str| {
            let common = r#""email":"example@test.com","timestamp":1513299569,"category":["cat facts"],
                "smtp-id":"<14c5d75ce93.dfd.64b469@ismtpd-555>","sg_event_id":"6g4ZI7SA-xmRDv57GoPIPw==",
                "sg_message_id":"14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0""#;
            let events = read(&format!("[{{{common},{more}}}]")).unwrap_or_else(|error| panic!("{more}: {error}"));
            events.first().map(|event| {
                let lists = matches!(event.kind, MailEventKind::Unsubscribed | MailEventKind::UnsubscribedFromAll);
                assert_eq!(event.address.as_deref(), Some("example@test.com").filter(|_| !lists));
                assert_eq!(event.notification.as_deref(), Some("14c5d75ce93.dfd.64b469"));
                event.kind
            })
        };
        for (event, kind) in [
            (r#""event":"delivered","response":"250 OK""#, MailEventKind::Delivered),
            (
                r#""event":"bounce","type":"bounce","reason":"500 unknown recipient","status":"5.0.0""#,
                MailEventKind::BouncedForGood,
            ),
            (r#""event":"bounce","reason":"500 unknown recipient","status":"5.0.0""#, MailEventKind::BouncedForGood),
            (r#""event":"bounce","reason":"400 try again later","status":"4.0.0""#, MailEventKind::BouncedForNow),
            (
                r#""event":"bounce","type":"blocked","reason":"552 5.2.2 over quota","status":"5.2.2","tls":1"#,
                MailEventKind::BouncedForNow,
            ),
            (
                r#""event":"bounce","type":"blocked","reason":"unable to get mx info","tls":0"#,
                MailEventKind::BouncedForNow,
            ),
            (r#""event":"dropped","reason":"Bounced Address","status":"5.0.0""#, MailEventKind::BouncedForGood),
            (r#""event":"dropped","reason":"Invalid""#, MailEventKind::BouncedForGood),
            (r#""event":"dropped","reason":"Spam Reporting Address""#, MailEventKind::Complaint),
            (r#""event":"dropped","reason":"Unsubscribed Address""#, MailEventKind::Dropped),
            (r#""event":"dropped","reason":"Recipient List over Package Quota""#, MailEventKind::Dropped),
            (r#""event":"dropped""#, MailEventKind::Dropped),
            (r#""event":"spamreport""#, MailEventKind::Complaint),
            (r#""event":"unsubscribe""#, MailEventKind::UnsubscribedFromAll),
            (r#""event":"group_unsubscribe","asm_group_id":10"#, MailEventKind::Unsubscribed),
        ] {
            assert_eq!(of(event), Some(kind), "{event}");
        }
        for event in [
            r#""event":"processed","pool":{"name":"new_MY_test","id":210}"#,
            r#""event":"deferred","response":"400 try again later","attempt":"5""#,
            r#""event":"open","useragent":"Mozilla/4.0","ip":"255.255.255.255""#,
            r#""event":"click","url":"https://shop.example/","url_offset":{"index":0,"type":"html"}"#,
            r#""event":"group_resubscribe","asm_group_id":10"#,
            r#""event":"account_status_change","type":"compliance_suspend""#,
        ] {
            assert_eq!(of(event), None, "{event}");
        }
    }

    #[test]
    fn an_argument_names_the_notification_before_the_message_id_does() {
        let of = |more: &str| {
            let event = format!(r#"[{{"event":"delivered","email":"a@b.example"{more}}}]"#);
            read(&event).unwrap_or_else(|error| panic!("{error}"))[0].notification.clone()
        };
        assert_eq!(of(r#","notification":"n@1","smtp-id":"<x@y>""#).as_deref(), Some("n@1"));
        assert_eq!(of(r#","notification":5,"smtp-id":"<x@y>""#).as_deref(), Some("x"));
        assert_eq!(of(r#","notification":"","smtp-id":"""#), None);
    }

    #[test]
    fn times_are_numbers_or_texts_and_what_is_no_address_is_none() {
        let events = read(
            r#"[{"event":"bounce","type":"bounce","email":"a@b.example","timestamp":20},
                {"event":"delivered","email":"a@b.example","timestamp":10},
                {"email":"not an email address","smtp-id":"<4FB29F5D.5080404@sendgrid.com>","timestamp":"30",
                 "reason":"Invalid","event":"dropped","category":["category1"],"type":5,"uid":"123456"}]"#,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        let times: Vec<_> = events.iter().map(|event| event.at.map(Timestamp::as_second)).collect();
        assert_eq!(times, [Some(20), Some(10), Some(30)]);
        assert_eq!((events[2].kind, &events[2].address), (MailEventKind::BouncedForGood, &None));
        assert_eq!(read("[]"), Ok(Vec::new()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = r#"{"event":"open","email":"a@b.example"}"#;
        let nameless = format!(r#"[{good},{{"email":"a@b.example"}}]"#);
        assert_eq!(read(&nameless), Ok(Vec::new()), "the others count");
        let deep = "[".repeat(100_000);
        for body in ["", "null", "{}", good, "[5]", "[[]]", &deep] {
            let start: String = body.chars().take(50).collect();
            assert!(matches!(read(body), Err(MailEventError::Malformed(_))), "{start}");
        }
    }
}
