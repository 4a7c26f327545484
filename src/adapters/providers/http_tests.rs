//! Tests the `http` provider against a small HTTP server that answers by script.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::test_support::{ID, Server, Then, answer, settings};
use super::webhook_signature::WebhookSigner;
use super::{HttpProvider, ProviderKind, ProviderSettings, test_support};
use crate::domain::channel::Channel;
use crate::ports::provider::{Accepted, Message, Provider, SendError};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
fn url(server: &Server) -> String {
    format!("http://{}/notify?key=s3cret", server.address)
}

fn message() -> Message {
    test_support::message(Channel::Webhook, Some("https://hooks.example/x"))
}

fn provider(url: String, secret: Option<&str>) -> HttpProvider {
    with_timeout(url, secret, Duration::from_secs(10))
}

fn with_timeout(url: String, secret: Option<&str>, timeout: Duration) -> HttpProvider {
    let secret = secret.map(str::to_owned);
    HttpProvider::new(&ProviderSettings { timeout, secret, ..settings(ProviderKind::Http, &url) }).expect("a provider")
}

/// What the provider makes of one answer.
async fn outcome(then: Then) -> Result<Accepted, SendError> {
    let timeout = if matches!(then, Then::Hang) { Duration::from_millis(300) } else { Duration::from_secs(10) };
    let server = Server::start([then]).await;
    let outcome = with_timeout(url(&server), None, timeout).send(&message()).await;
    assert!(!format!("{outcome:?}").contains("s3cret"), "{outcome:?}");
    outcome
}

async fn receipt(body: &str) -> Option<String> {
    outcome(answer("200 OK", "", body)).await.expect("accepted").receipt
}

async fn wait(headers: &str) -> Duration {
    match outcome(answer("429 Too Many Requests", headers, "slow down")).await {
        Err(SendError::RateLimited { retry_after, reason }) => {
            assert_eq!(reason, "429 Too Many Requests: slow down");
            retry_after
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn posts_a_signed_document() {
    let mut server = Server::start([answer("202 Accepted", "", r#"{"id":"r-1"}"#)]).await;
    let accepted = provider(url(&server), Some(SECRET)).send(&message()).await.expect("accepted");
    assert_eq!(accepted.receipt.as_deref(), Some("r-1"));

    let request = server.request();
    assert_eq!(request.line, "POST /notify?key=s3cret HTTP/1.1");
    assert_eq!(request.body, serde_json::to_vec(&message()).expect("json"));
    assert!(String::from_utf8_lossy(&request.body).contains(r#""data":{"amount":1e3},"attempt":2"#));
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("user-agent"), concat!("notification-service/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.header("idempotency-key"), ID);
    assert_eq!(request.header("webhook-id"), ID);
    let timestamp: i64 = request.header("webhook-timestamp").parse().expect("seconds");
    assert!((Timestamp::now().as_second() - timestamp).abs() <= 5);
    let expected = WebhookSigner::new(SECRET).map(|signer| signer.sign(ID, timestamp, &request.body));
    assert_eq!(Ok(request.header("webhook-signature").to_owned()), expected);
}

#[tokio::test]
async fn a_document_has_its_fields_though_there_is_nothing_in_them() {
    let mut server = Server::start([answer("200 OK", "", "")]).await;
    let bare = Message { recipient: None, subject: None, ..test_support::message(Channel::AdminAlert, None) };
    provider(url(&server), None).send(&bare).await.expect("accepted");
    let document: Value = serde_json::from_slice(&server.request().body).expect("json");
    let fields = document.as_object().expect("an object");
    for field in ["recipient", "to", "subject"] {
        assert_eq!(fields.get(field), Some(&Value::Null), "{document}");
    }
    for field in ["html", "devices", "unsubscribeUrl"] {
        assert!(!fields.contains_key(field), "{document}");
    }
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed_and_connections_are_used_again() {
    let mut server = Server::start([answer("200 OK", "", ""), answer("204 No Content", "", "")]).await;
    let provider = provider(url(&server), None);
    for _ in 0..2 {
        provider.send(&message()).await.expect("accepted");
    }
    let (first, second) = (server.request(), server.request());
    assert!(!first.headers.keys().any(|name| name.starts_with("webhook-")));
    assert_eq!((first.connection, second.connection), (0, 0));
}

#[tokio::test]
async fn userinfo_is_sent_as_basic_authentication() {
    let mut server = Server::start([answer("200 OK", "", "")]).await;
    let url = url(&server).replace("http://", "http://user:pass@");
    provider(url, None).send(&message()).await.expect("accepted");
    assert_eq!(server.request().header("authorization"), "Basic dXNlcjpwYXNz");
}

#[tokio::test]
async fn the_receipt_is_the_id_of_the_answer() {
    assert_eq!(receipt(r#"{"id":"a","more":{"id":"b"}}"#).await.as_deref(), Some("a"));
    assert_eq!(receipt(r#"{"id":123456789012345678901234567890}"#).await.unwrap_or_default().len(), 30);
    for without in ["", "thanks", "[1]", r#"["a"]"#, r#"{"id":null}"#, r#"{"id":""}"#, r#"{"id":{"x":1}}"#, r#"{"id":"#]
    {
        assert_eq!(receipt(without).await, None, "{without}");
    }
    assert_eq!(receipt(&format!(r#"{{"id":"a","x":"{}"}}"#, "x".repeat(70_000))).await, None);
    let cut = outcome(Then::Break("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\":".into())).await;
    assert_eq!(cut, Ok(Accepted::default()));
}

#[tokio::test]
async fn the_status_decides() {
    for status in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "422 Unprocessable Entity"] {
        let expected = SendError::Permanent(format!("{status}: no  good"));
        assert_eq!(outcome(answer(status, "", "no\r\ngood\n")).await, Err(expected));
    }
    for status in ["408 Request Timeout", "500 Internal Server Error", "503 Service Unavailable"] {
        assert_eq!(outcome(answer(status, "", "")).await, Err(SendError::Transient(status.into())));
    }
    match outcome(answer("400 Bad Request", "", &"ü".repeat(1000))).await {
        Err(SendError::Permanent(reason)) => assert_eq!(reason.chars().filter(|c| *c == 'ü').count(), 200),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn redirections_are_named_and_not_followed() {
    let mut target = Server::start([answer("200 OK", "", "")]).await;
    let location = format!("Location: http://user:s3cret@{}/s3cret\r\n", target.address);
    for status in ["301 Moved Permanently", "307 Temporary Redirect"] {
        match outcome(answer(status, &location, "")).await {
            Err(SendError::Permanent(reason)) => {
                assert!(reason.contains(status) && reason.contains("`127.0.0.1`"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(target.requests.try_recv().is_err());
    assert!(matches!(outcome(answer("304 Not Modified", "", "")).await, Err(SendError::Permanent(_))));
}

#[tokio::test]
async fn rate_limits_say_how_long() {
    assert_eq!(wait("Retry-After: 7\r\n").await, Duration::from_secs(7));
    assert_eq!(wait("Retry-After: 999999\r\n").await, Duration::from_secs(3600));
    assert_eq!(wait("").await, Duration::from_secs(30));
    assert_eq!(wait("Retry-After: later\r\n").await, Duration::from_secs(30));
    assert_eq!(wait("Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n").await, Duration::ZERO);
    let soon = Timestamp::now() + jiff::SignedDuration::from_secs(100);
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).expect("a date");
    let seconds = wait(&format!("Retry-After: {date}\r\n")).await.as_secs();
    assert!((95..=100).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn what_never_left_is_transient() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let refused = provider(format!("http://user:s3cret@{address}/s3cret"), None).send(&message()).await;
    assert!(matches!(&refused, Err(SendError::Transient(reason)) if !reason.contains("s3cret")), "{refused:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("answered");
    });
    let no_tls = provider(format!("https://{address}"), None).send(&message()).await;
    assert!(matches!(no_tls, Err(SendError::Transient(_))), "{no_tls:?}");

    let bad_id = provider(format!("http://{address}"), None).send(&Message { id: "a\nb".into(), ..message() }).await;
    assert!(matches!(bad_id, Err(SendError::Permanent(_))), "{bad_id:?}");
}

#[tokio::test]
async fn what_may_have_arrived_is_unknown() {
    let broken = ["", "HTTP/1.1 200 O", "220 mail.example ESMTP\r\n", "\u{0}\u{1}garbage\r\n\r\n"]
        .map(|text| Then::Break(text.into()));
    for then in broken.into_iter().chain([Then::Hang]) {
        let outcome = outcome(then).await;
        assert!(matches!(outcome, Err(SendError::Unknown(_))), "{outcome:?}");
    }
}
