//! Push messages over Google's API: devices that it does not know any more are forgotten. Needs no server.

use std::fs;

use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::alone::Alone;
use crate::support::provider::{Answer, Arrival, FakeProvider};
use crate::support::service::{Service, outcomes};
use crate::support::wait::{self, secs};

const LIVE: &str = "device-live";
const DEAD: &str = "device-dead";

const GRANTED: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 38\r\nConnection: close\r\n\r\n{\"access_token\":\"t\",\"expires_in\":3600}";
const TAKEN: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 37\r\nConnection: close\r\n\r\n{\"name\":\"projects/shop-1/messages/1\"}";
/// As Google documents it.
const UNREGISTERED: &str = concat!(
    "HTTP/1.1 404 Not Found\r\nContent-Length: 190\r\nConnection: close\r\n\r\n",
    r#"{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND","#,
    r#""details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}"#
);

#[test]
fn a_device_that_is_not_registered_any_more_is_forgotten() {
    let google = FakeProvider::answering(|arrival| {
        let bytes = match device(arrival).as_deref() {
            None => GRANTED,
            Some(DEAD) => UNREGISTERED,
            Some(_) => TAKEN,
        };
        Answer::Broken { bytes, taken: bytes == TAKEN }
    });
    let (_folder, provider) = provider(&google);
    let alone = Alone::start(&provider);
    let service = &alone.service;
    register(service, "ada", &[DEAD, LIVE]);
    register(service, "bob", &[DEAD]);

    let sent = service.wait_for_state(&service.submit(&push_to("ada")), "sent", secs(20));
    assert_eq!(outcomes(&sent), ["accepted"], "one device is enough: {sent}");
    assert_eq!(sent["receipt"], "projects/shop-1/messages/1", "{sent}");
    has_only(service, "ada", &[LIVE]);

    let failed = service.wait_for_state(&service.submit(&push_to("bob")), "failed", secs(20));
    assert_eq!(outcomes(&failed), ["permanent"], "{failed}");
    assert!(failed["reason"].as_str().is_some_and(|why| why.contains("UNREGISTERED")), "{failed}");
    has_only(service, "bob", &[]);

    // Nothing further goes to them.
    service.wait_for_state(&service.submit(&push_to("ada")), "sent", secs(20));
    service.wait_for_state(&service.submit(&push_to("bob")), "awaiting_contact", secs(20));
    let arrivals = google.arrivals();
    let sent_to = |token: &str| arrivals.iter().filter(|arrival| device(arrival).as_deref() == Some(token)).count();
    assert_eq!((sent_to(LIVE), sent_to(DEAD)), (2, 2));
}

/// The device that a message is for; a request for an access token has none.
fn device(arrival: &Arrival) -> Option<String> {
    let body: Value = serde_json::from_slice(&arrival.body).ok()?;
    body["message"]["token"].as_str().map(str::to_owned)
}

/// A `[[delivery.providers]]` for the project of a service account, whose file is in the folder.
fn provider(google: &FakeProvider) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let pem = key.private_key_to_pem_pkcs8().expect("PEM");
    let account = json!({
        "type": "service_account",
        "project_id": "shop-1",
        "private_key_id": "k1",
        "private_key": String::from_utf8(pem).expect("PEM"),
        "client_email": "push@shop-1.iam.gserviceaccount.com",
        "token_uri": format!("http://{}/token", google.address()),
    });
    let file = folder.path().join("account.json");
    fs::write(&file, account.to_string()).expect("written");
    let provider = format!(
        "[[delivery.providers]]\nname = \"push\"\nchannel = \"push\"\nkind = \"fcm\"\nurl = \"http://{}\"\n\
         credentials_file = \"{}\"\n",
        google.address(),
        file.display()
    );
    (folder, provider)
}

#[track_caller]
fn register(service: &Service, recipient: &str, tokens: &[&str]) {
    let devices: Vec<Value> = tokens.iter().map(|token| json!({"token": token, "platform": "android"})).collect();
    service.put(&format!("/api/v1/recipients/{recipient}"), &json!({"devices": devices}));
}

fn push_to(recipient: &str) -> Value {
    json!({"channel": "push", "recipient": recipient, "template": "order_shipped", "data": {"orderId": "4711"}})
}

/// Waits until these are a recipient's devices.
#[track_caller]
fn has_only(service: &Service, recipient: &str, tokens: &[&str]) {
    wait::until("the directory has learnt it", secs(10), || {
        let known = service.get(&format!("/api/v1/recipients/{recipient}")).json();
        let devices = known["devices"].as_array().cloned().unwrap_or_default();
        let found: Vec<&str> = devices.iter().filter_map(|device| device["token"].as_str()).collect();
        (found == tokens).then_some(())
    });
}
