//! What Twilio calls back to tell of text messages and SendGrid of e-mails, signed as they sign it. Needs no server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::{Value, json};
use sha1::Sha1;
use url::form_urlencoded;

use crate::support::alone::Alone;
use crate::support::provider::{Answer, FakeProvider};
use crate::support::service::Service;
use crate::support::wait::{self, secs};

const TOKEN: &str = "a-token";
/// As the service is reached from outside.
const OUTSIDE: &str = "https://notify.example.com";
const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{\"sid\":\"SM1\"}";

type Fields<'a> = &'a [(&'a str, &'a str)];

#[test]
fn what_twilio_signed_is_shown_and_heeded_and_nothing_else() {
    let provider = FakeProvider::answering(|_| Answer::Broken { bytes: CREATED, taken: true });
    let alone = Alone::start(&texts(&provider));
    let service = &alone.service;
    let (arrived, url) = sent(service, &provider, "+15550100101");
    let (lost, lost_url) = sent(service, &provider, "+15550100102");
    assert_eq!(url, format!("{OUTSIDE}/webhooks/texts?notification={arrived}"));

    let delivered = [("MessageSid", "SM1"), ("MessageStatus", "delivered"), ("To", "+15550100101")];
    let forged = [
        signature("another-token", &url, &delivered),
        signature(TOKEN, &lost_url, &delivered),
        signature(TOKEN, &url, &delivered[..2]),
        String::new(),
    ];
    for signature in &forged {
        assert_eq!(call(service, &url, &delivered, signature), 401, "{signature}");
    }
    assert_eq!(report(service, &arrived), Value::Null, "no stranger is believed");

    let by_twilio = |url: &str, fields: Fields<'_>| call(service, url, fields, &signature(TOKEN, url, fields));
    assert_eq!(by_twilio(&url, &[("MessageSid", "SM1"), ("MessageStatus", "eaten")]), 400);
    assert_eq!(by_twilio(&url, &[("MessageSid", "SM1"), ("MessageStatus", "sent")]), 204);
    assert_eq!(report(service, &arrived), Value::Null, "it is on its way");
    assert_eq!(by_twilio(&url, &delivered), 204);
    assert_eq!(by_twilio(&url, &delivered), 204, "it may come twice");
    assert_eq!(report(service, &arrived), "delivered");

    let undelivered =
        [("ErrorCode", "30005"), ("MessageSid", "SM1"), ("MessageStatus", "undelivered"), ("To", "+15550100102")];
    assert_eq!(by_twilio(&lost_url, &undelivered), 204);
    assert_eq!(report(service, &lost), "failed: 30005");
    assert_eq!(report(service, &arrived), "delivered", "of the one it names");
    let listed = service.get("/api/v1/suppressions").json()["items"].clone();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!((&listed[0]["channel"], &listed[0]["address"]), (&json!("sms"), &json!("+15550100102")));
    let next = service.submit(&text_to("+15550100102"));
    let next = service.wait_for_state(&next, "suppressed", secs(20));
    assert!(next["reason"].as_str().is_some_and(|why| why.contains("30005")), "{next}");
    assert_eq!(provider.arrivals().len(), 2, "there is no such number");
    wait::until("the reports are counted", secs(5), || {
        let metrics = service.metrics();
        let counted = |report| metrics.sum("provider_reports_total", &[("provider", "texts"), ("report", report)]);
        (counted("delivered") == 2 && counted("failed") == 1).then_some(())
    });
}

#[test]
fn what_sendgrid_signed_is_shown_and_a_bounce_ends_the_use_of_an_address() {
    let provider = FakeProvider::accepting();
    let (key, another) = (mail_key(), mail_key());
    let public = STANDARD.encode(key.public_key_to_der().expect("a public key"));
    let reports = format!("reports = {{ format = \"sendgrid\", key = \"{public}\" }}\n");
    let alone = Alone::start(&(provider.named("mail", "email", secs(5)) + &reports));
    let service = &alone.service;
    let mail = |address: &str| {
        service.submit(&json!({"channel": "email", "recipient": address, "template": "order_shipped",
                               "data": {"orderId": "4711"}}))
    };
    let (arrived, lost) = (mail("ann@example.com"), mail("bob@example.com"));
    for id in [&arrived, &lost] {
        service.wait_for_state(id, "sent", secs(20));
    }
    let report = |id: &str| service.notification(id).expect("it is known")["attempts"][0]["report"].clone();

    let events = json!([
        {"event": "delivered", "email": "ann@example.com", "timestamp": 1_513_299_570, "response": "250 OK",
         "smtp-id": format!("<{arrived}@example.com>"), "sg_event_id": "rWVYmVk90MjZJ9iohOBa3w=="},
        {"event": "deferred", "email": "ann@example.com", "timestamp": 1_513_299_569, "attempt": "1",
         "smtp-id": format!("<{arrived}@example.com>"), "sg_event_id": "t7LEShmowp86DTdUW8M-GQ=="},
        {"event": "bounce", "type": "bounce", "email": "bob@example.com", "timestamp": 1_513_299_569, "status": "5.0.0",
         "smtp-id": format!("<{lost}@example.com>"), "sg_event_id": "6g4ZI7SA-xmRDv57GoPIPw=="}
    ]);
    assert_eq!(call_as_sendgrid(service, &events, &another), 401);
    assert_eq!((report(&arrived), report(&lost)), (Value::Null, Value::Null), "no stranger is believed");
    assert_eq!(call_as_sendgrid(service, &json!({"event": "delivered"}), &key), 400);
    assert_eq!(call_as_sendgrid(service, &events, &key), 204);
    assert_eq!(call_as_sendgrid(service, &events, &key), 204, "it may come twice");
    assert_eq!((report(&arrived), report(&lost)), (json!("delivered"), json!("bounced")));
    let next = service.wait_for_state(&mail("bob@example.com"), "suppressed", secs(20));
    assert!(next["reason"].as_str().is_some_and(|why| why.contains("bounced")), "{next}");
    service.wait_for_state(&mail("ann@example.com"), "sent", secs(20));
    assert_eq!(provider.arrivals().len(), 3, "there is no such mailbox");

    let unsubscribed = json!([
        {"event": "unsubscribe", "email": "ann@example.com", "timestamp": 1_513_299_580,
         "smtp-id": format!("<{arrived}@example.com>"), "sg_event_id": "zz_BjPgU_5pS-J8vlfB1sg=="},
        {"event": "group_unsubscribe", "email": "cat@example.com", "timestamp": 1_513_299_580, "asm_group_id": 10,
         "smtp-id": "<another.sender@example.com>", "sg_event_id": "ahSCB7xYcXFb-hEaawsPRw=="}
    ]);
    assert_eq!(call_as_sendgrid(service, &unsubscribed, &key), 204);
    assert_eq!(report(&arrived), "unsubscribed");
    let preferences = service.get("/api/v1/recipients/ann@example.com/preferences").json();
    assert_eq!(preferences["optOut"], json!([{"channel": "email", "category": "*"}]));
    service.wait_for_state(&mail("ann@example.com"), "sent", secs(20));
    service.wait_for_state(&mail("cat@example.com"), "sent", secs(20));
}

fn mail_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

/// Of the time and the body; returns the status of the answer.
#[track_caller]
fn call_as_sendgrid(service: &Service, events: &Value, key: &PKey<Private>) -> u16 {
    let (timestamp, body) = (Timestamp::now().as_second().to_string(), events.to_string());
    let mut signer = Signer::new(MessageDigest::sha256(), key).expect("a signer");
    signer.update(format!("{timestamp}{body}").as_bytes()).expect("updated");
    let signature = STANDARD.encode(signer.sign_to_vec().expect("a signature"));
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Twilio-Email-Event-Webhook-Signature", signature.as_str()),
        ("X-Twilio-Email-Event-Webhook-Timestamp", timestamp.as_str()),
    ];
    service.send("POST", "/webhooks/mail", &headers, &body).status
}

fn texts(provider: &FakeProvider) -> String {
    format!(
        "[[delivery.providers]]\nname = \"texts\"\nchannel = \"sms\"\nkind = \"twilio\"\n\
         url = \"http://AC1:{TOKEN}@{}\"\nfrom = \"+15550100000\"\n\
         status_callback_url = \"{OUTSIDE}/webhooks/texts\"\n",
        provider.address()
    )
}

fn text_to(number: &str) -> Value {
    json!({"channel": "sms", "recipient": number, "template": "order_shipped", "data": {"orderId": "4711"}})
}

/// Sends a text message. Returns the notification's id, and where Twilio was told to report about it.
#[track_caller]
fn sent(service: &Service, provider: &FakeProvider, number: &str) -> (String, String) {
    let id = service.submit(&text_to(number));
    service.wait_for_state(&id, "sent", secs(20));
    let arrivals = provider.arrivals();
    let form = &arrivals.last().expect("it was posted").body;
    let found = form_urlencoded::parse(form).find(|(name, _)| name == "StatusCallback");
    let (_, url) = found.expect("where to report");
    (id, url.into_owned())
}

/// What the notification shows as reported; the report changes nothing else.
#[track_caller]
fn report(service: &Service, id: &str) -> Value {
    let shown = service.notification(id).expect("it is known");
    assert_eq!((&shown["state"], &shown["receipt"]), (&json!("sent"), &json!("SM1")), "{shown}");
    shown["attempts"][0]["report"].clone()
}

/// Of the URL, and of the names and values of all fields in the order of their names.
fn signature(token: &str, url: &str, fields: Fields<'_>) -> String {
    let mut fields = fields.to_vec();
    fields.sort_unstable();
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("any key");
    mac.update(url.as_bytes());
    for (name, value) in fields {
        mac.update(format!("{name}{value}").as_bytes());
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Calls back, and returns the status of the answer.
#[track_caller]
fn call(service: &Service, url: &str, fields: Fields<'_>, signature: &str) -> u16 {
    let path = url.strip_prefix(OUTSIDE).expect("a path of the service");
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        form.append_pair(name, value);
    }
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Twilio-Signature", signature)];
    service.send("POST", path, &headers, &form.finish()).status
}
