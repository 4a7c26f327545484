//! What Twilio calls back to tell of text messages, signed as Twilio signs it. Needs no server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
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
