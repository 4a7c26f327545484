//! What recipients read in the application itself, and what providers report later.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::events::request;
use crate::support::provider::FakeProvider;
use crate::support::service::Service;
use crate::support::setup::Setup;
use crate::support::wait::{self, secs};

const SECRET: &str = "report secret";

fn submit(service: &Service, recipient: &str) -> String {
    let data = json!({"firstName": "Ada", "email": "a@example.com", "registeredAt": "2026-01-15T10:30:00Z"});
    let body = json!({"channel": "in_app", "recipient": recipient, "template": "welcome", "data": data});
    let answer = service.send("POST", "/api/v1/notifications", &[], &body.to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// The events of an inbox, as a browser gets them.
fn listen(service: &Service, recipient: &str) -> BufReader<TcpStream> {
    let address = service.base().strip_prefix("http://").expect("http");
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(secs(10))).expect("a time-out");
    let path = format!("/api/v1/recipients/{recipient}/inbox/stream");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n").expect("asks");
    BufReader::new(stream)
}

/// The next `unread` of a stream.
fn next_unread(events: &mut BufReader<TcpStream>) -> u64 {
    let mut line = String::new();
    while events.read_line(&mut line).expect("an event") > 0 {
        if let Some(data) = line.trim().strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).expect("JSON");
            return data["unread"].as_u64().expect("a number");
        }
        line.clear();
    }
    panic!("the stream ended");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn an_inbox_is_read_counted_and_followed_live() {
    let setup = Setup::new("", "[[delivery.providers]]\nname = \"inbox\"\nchannel = \"in_app\"\nkind = \"inbox\"\n");
    let mut service = setup.start();
    let mut events = listen(&service, "u-1");
    assert_eq!(next_unread(&mut events), 0);
    let id = submit(&service, "u-1");
    let other = submit(&service, "u-2");
    assert_eq!(next_unread(&mut events), 1, "somebody else's changes nothing");
    service.wait_for_state(&id, "sent", secs(20));
    service.wait_for_state(&other, "sent", secs(20));

    let inbox = service.get("/api/v1/recipients/u-1/inbox").json();
    assert_eq!((&inbox["unread"], &inbox["items"][0]["id"]), (&json!(1), &json!(id)), "{inbox}");
    assert!(inbox["items"][0]["body"].as_str().is_some_and(|body| body.contains("Ada")), "{inbox}");
    assert_eq!(inbox["items"][0]["readAt"], Value::Null);
    let read = |path: &str| service.send("POST", &format!("/api/v1/recipients/u-1/inbox{path}"), &[], "").json();
    assert_eq!(read(&format!("/{other}/read"))["marked"], 0, "it is somebody else's");
    assert_eq!(read(&format!("/{id}/read"))["marked"], 1);
    assert_eq!(next_unread(&mut events), 0);
    assert_eq!(read("/read")["marked"], 0);
    let inbox = service.get("/api/v1/recipients/u-1/inbox").json();
    assert!(inbox["items"][0]["readAt"].is_string(), "{inbox}");

    // Whoever still listens does not keep the service from ending.
    service.terminate();
    assert!(service.wait_for_exit(secs(15)).success());
}

fn report(service: &Service, body: &str, secret: &str) -> u16 {
    let now = Timestamp::now().as_second();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(format!("m-1.{now}.{body}").as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let now = now.to_string();
    let headers = [("webhook-id", "m-1"), ("webhook-timestamp", &now), ("webhook-signature", &signature)];
    service.send("POST", "/webhooks/email", &headers, body).status
}

/// A service whose mail provider may report, once it has sent the notification `n-1` to this address.
fn that_sent(to: &str) -> (FakeProvider, Setup, Service) {
    let provider = FakeProvider::accepting();
    let setup = Setup::new("", &format!("{}secret = \"{SECRET}\"\n", provider.named("email", "email", secs(1))));
    let service = setup.start();
    setup.kafka.produce_one(request("n-1", "email", to).input());
    service.wait_for_state("n-1", "sent", secs(20));
    (provider, setup, service)
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_bounce_is_noted_and_ends_the_address_s_use() {
    let (_provider, setup, service) = that_sent("gone@example.com");
    let bounce =
        r#"{"type":"bounce","bounceType":"permanent","recipient":"Gone@example.com","messageId":"<n-1@example.com>"}"#;
    assert_eq!(report(&service, bounce, "another secret"), 401);
    assert_eq!(report(&service, "nonsense", SECRET), 400);
    assert_eq!(service.send("POST", "/webhooks/nobody", &[], bounce).status, 404);
    let listed = || service.get("/api/v1/suppressions").json()["items"].clone();
    assert_eq!(listed(), json!([]), "no stranger is believed");
    assert_eq!(report(&service, bounce, SECRET), 204);
    assert_eq!(report(&service, bounce, SECRET), 204, "it may come twice");
    assert_eq!(listed()[0]["address"], "gone@example.com");
    let noted = service.notification("n-1").expect("is there");
    assert_eq!(noted["attempts"][0]["report"], "bounced", "{noted}");
    setup.kafka.produce_one(request("n-2", "email", "gone@example.com").input());
    service.wait_for_state("n-2", "suppressed", secs(20));
    wait::until("the report is counted", secs(5), || {
        let bounced = service.metrics().sum("provider_reports_total", &[("report", "bounced")]);
        (bounced == 2).then_some(())
    });
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn who_unsubscribes_at_the_mail_service_refuses_the_kind_and_not_the_address() {
    let (_provider, _setup, service) = that_sent("ada@example.com");
    let event = |id: &str, address: &str| {
        format!(r#"{{"type":"unsubscribe","recipient":"{address}","messageId":"<{id}@example.com>"}}"#)
    };
    assert_eq!(report(&service, &event("n-1", "ada@example.com"), SECRET), 204);
    let category = service.notification("n-1").expect("is there")["category"].clone();
    let preferences = service.get("/api/v1/recipients/ada@example.com/preferences").json();
    assert_eq!(preferences["optOut"], json!([{"channel": "email", "category": category}]));
    let listed = || service.get("/api/v1/suppressions").json()["items"].clone();
    assert_eq!(listed(), json!([]));
    // Of one that nobody knows the kind cannot be told.
    assert_eq!(report(&service, &event("unknown", "eve@example.com"), SECRET), 204);
    assert_eq!(listed()[0]["address"], "eve@example.com");
}
