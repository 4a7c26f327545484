//! Tests the `fcm` provider against a server that answers as Google's documentation says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use jiff::Timestamp;
use openssl::hash::MessageDigest;
use openssl::sign::Verifier;
use serde_json::{Value, json};

use super::test_support::{ID, Request, Server, Then, answer, message, rsa_key, service_account, settings};
use super::{FcmProvider, ProviderKind, ProviderSettings};
use crate::domain::channel::Channel;
use crate::domain::recipient::{Device, Platform};
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// Google: tokens at `/token`, messages elsewhere.
struct Google {
    server: Server,
    provider: FcmProvider,
}

impl Google {
    async fn start(rule: impl Fn(&str) -> Then + Send + Sync + 'static) -> Self {
        Self::with_tokens(|_| granted(3600), rule).await
    }

    async fn with_tokens(
        tokens: impl Fn(usize) -> Then + Send + Sync + 'static,
        rule: impl Fn(&str) -> Then + Send + Sync + 'static,
    ) -> Self {
        let asked = AtomicUsize::new(0);
        let server = Server::by_rule(move |request| {
            if is_for_token(request) {
                tokens(asked.fetch_add(1, Ordering::SeqCst))
            } else {
                rule(request.json()["message"]["token"].as_str().unwrap_or_default())
            }
        })
        .await;
        let folder = tempfile::tempdir().expect("a folder");
        let account = service_account(folder.path(), &format!("http://{}/token", server.address));
        let url = format!("http://{}/", server.address);
        let timeout = Duration::from_secs(2);
        let settings =
            ProviderSettings { credentials_file: Some(account), timeout, ..settings(ProviderKind::Fcm, &url) };
        let provider = FcmProvider::new(&settings).unwrap_or_else(|error| panic!("{error}"));
        Self { server, provider }
    }

    async fn send(&self, devices: &[&str]) -> Result<Accepted, SendError> {
        let outcome = self.provider.send(&push(devices)).await;
        assert!(!format!("{outcome:?}").contains("s3cret"), "{outcome:?}");
        outcome
    }
}

fn is_for_token(request: &Request) -> bool {
    request.line.starts_with("POST /token ")
}

fn push(devices: &[&str]) -> Message {
    let device = |token: &&str| Device { token: (*token).to_owned(), platform: Platform::Android };
    Message { devices: devices.iter().map(device).collect(), ..message(Channel::Push, devices.first().copied()) }
}

fn granted(seconds: u64) -> Then {
    answer("200 OK", "", &json!({"access_token": "s3cret", "expires_in": seconds, "token_type": "Bearer"}).to_string())
}

fn taken(token: &str) -> Then {
    answer("200 OK", "", &json!({"name": format!("projects/shop-1/messages/{token}")}).to_string())
}

/// An error with FCM's own code in the details.
fn error(status: &str, canonical: &str, text: &str, own: &str) -> Then {
    error_with(
        status,
        "",
        canonical,
        text,
        json!([{
            "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": own
        }]),
    )
}

fn error_with(status: &str, headers: &str, canonical: &str, text: &str, details: Value) -> Then {
    let code: u16 = status[..3].parse().expect("a code");
    let body = json!({"error": {"code": code, "message": text, "status": canonical, "details": details}});
    answer(status, headers, &body.to_string())
}

fn unregistered() -> Then {
    error("404 Not Found", "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED")
}

fn by_token(token: &str) -> Then {
    match token.split('-').next().unwrap_or_default() {
        "good" => taken(token),
        "dead" => unregistered(),
        "busy" => answer("503 Service Unavailable", "", ""),
        "hang" => Then::Hang,
        "quota" => error("429 Too Many Requests", "RESOURCE_EXHAUSTED", "Quota exceeded", "QUOTA_EXCEEDED"),
        "other" => error("403 Forbidden", "PERMISSION_DENIED", "SenderId mismatch", "SENDER_ID_MISMATCH"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn sends_with_the_service_account_s_token() {
    let mut google = Google::start(taken).await;
    let accepted = google.send(&["d1"]).await.expect("accepted");
    assert_eq!(accepted.receipt.as_deref(), Some("projects/shop-1/messages/d1"));

    let asked = google.server.request();
    assert_eq!(asked.line, "POST /token HTTP/1.1");
    let form = asked.form();
    assert_eq!(form[0], ("grant_type".into(), "urn:ietf:params:oauth:grant-type:jwt-bearer".into()));
    let parts: Vec<&str> = form[1].1.split('.').collect();
    let part = |n: usize| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[n]).expect("base64")).expect("JSON")
    };
    assert_eq!(part(0), json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
    let claims = part(1);
    assert_eq!(claims["iss"], "push@shop-1.iam.gserviceaccount.com");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/firebase.messaging");
    assert_eq!(claims["aud"], format!("http://{}/token", google.server.address));
    let issued = claims["iat"].as_i64().expect("a time");
    assert!((Timestamp::now().as_second() - issued).abs() <= 5);
    assert_eq!(claims["exp"].as_i64(), Some(issued + 3600));
    let key = rsa_key();
    let mut verifier = Verifier::new(MessageDigest::sha256(), &key).expect("a verifier");
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).expect("base64");
    let signed = format!("{}.{}", parts[0], parts[1]);
    assert!(verifier.verify_oneshot(&signature, signed.as_bytes()).expect("verified"));

    let sent = google.server.request();
    assert_eq!(sent.line, "POST /v1/projects/shop-1/messages:send HTTP/1.1");
    assert_eq!(sent.header("authorization"), "Bearer s3cret");
    let body = sent.json();
    let message = &body["message"];
    assert_eq!((&message["token"], &message["notification"]["title"]), (&json!("d1"), &json!("Your order")));
    assert_eq!(message["notification"]["body"], "Hello Ann\n.\n..two\n");
    let data = json!({"notificationId": ID, "template": "order_confirmation", "category": "transactional",
        "variables": "{\"amount\":1e3}"});
    assert_eq!(message["data"], data);
    let key = message["android"]["notification"]["tag"].as_str().expect("a tag");
    assert!(key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    for same in [
        &message["android"]["collapse_key"],
        &message["apns"]["headers"]["apns-collapse-id"],
        &message["webpush"]["headers"]["Topic"],
    ] {
        assert_eq!(same, key);
    }
}

#[tokio::test]
async fn a_token_is_shared_and_renewed_in_time() {
    let mut google = Google::start(taken).await;
    let sends = join_all((0..20).map(|_| google.send(&["d1"]))).await;
    assert!(sends.iter().all(Result::is_ok));
    let requests = google.server.all();
    assert_eq!((requests.len(), requests.iter().filter(|r| is_for_token(r)).count()), (21, 1));

    let mut google = Google::with_tokens(|_| granted(0), taken).await;
    for _ in 0..2 {
        google.send(&["d1"]).await.expect("accepted");
    }
    assert_eq!(google.server.all().iter().filter(|r| is_for_token(r)).count(), 2, "its life was over");
}

#[tokio::test]
async fn a_refused_token_is_replaced() {
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refused);
    let google = Google::start(move |token| match counter.fetch_add(1, Ordering::SeqCst) {
        0 => error("401 Unauthorized", "UNAUTHENTICATED", "invalid authentication credentials", ""),
        _ => taken(token),
    })
    .await;
    let first = google.send(&["d1"]).await;
    assert!(matches!(&first, Err(SendError::Transient(why)) if why.contains("UNAUTHENTICATED")), "{first:?}");
    google.send(&["d1"]).await.expect("accepted");
}

#[tokio::test]
async fn trouble_with_the_token_costs_no_notification() {
    let denied = json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}).to_string();
    for then in [
        answer("400 Bad Request", "", &denied),
        answer("503 Service Unavailable", "", ""),
        answer("200 OK", "", "<html>"),
        answer("200 OK", "", r#"{"access_token":"a\r\nb","expires_in":3600}"#),
        Then::Break(String::new()),
        Then::Hang,
    ] {
        let mut google = Google::with_tokens(move |_| then.clone(), taken).await;
        let outcomes = join_all((0..3).map(|_| google.send(&["d1"]))).await;
        assert!(outcomes.iter().all(|o| matches!(o, Err(SendError::Transient(_)))), "{outcomes:?}");
        let requests = google.server.all();
        assert!(requests.iter().all(is_for_token), "nothing is sent without a token");
        assert_eq!(requests.len(), 1, "those who waited do not try again at once");
    }
}

#[tokio::test]
async fn errors_are_told_apart() {
    let one = async |then: Then| {
        let mut google = Google::start(move |_| then.clone()).await;
        let outcome = google.send(&["d1"]).await;
        assert_eq!(google.server.all().iter().filter(|r| !is_for_token(r)).count(), 1);
        outcome
    };
    let no_token = "The registration token is not a valid FCM registration token";
    let violation = |field: &str| {
        let details = json!([{"@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": field, "description": "Invalid value"}]}]);
        error_with("400 Bad Request", "", "INVALID_ARGUMENT", "Invalid value", details)
    };
    for gone in [
        unregistered(),
        error("400 Bad Request", "INVALID_ARGUMENT", no_token, "INVALID_ARGUMENT"),
        violation("message.token"),
    ] {
        match one(gone).await {
            Err(SendError::Gone { addresses, .. }) => assert_eq!(addresses, ["d1"]),
            other => panic!("{other:?}"),
        }
    }
    let too_big = error("400 Bad Request", "INVALID_ARGUMENT", "Message too big", "INVALID_ARGUMENT");
    let mismatch = error("403 Forbidden", "PERMISSION_DENIED", "SenderId mismatch", "SENDER_ID_MISMATCH");
    for permanent in [violation("message.data[0].value"), too_big, mismatch] {
        let refused = one(permanent).await;
        assert!(matches!(refused, Err(SendError::Permanent(_))), "{refused:?}");
    }
    for transient in [
        error("503 Service Unavailable", "UNAVAILABLE", "overloaded", "UNAVAILABLE"),
        error("500 Internal Server Error", "INTERNAL", "internal", "INTERNAL"),
        error("401 Unauthorized", "UNAUTHENTICATED", "APNs certificate", "THIRD_PARTY_AUTH_ERROR"),
        error("403 Forbidden", "PERMISSION_DENIED", "API not enabled", ""),
        error_with("404 Not Found", "", "NOT_FOUND", "Requested entity was not found.", json!([])),
        answer("404 Not Found", "", "<html>no such page</html>"),
    ] {
        let refused = one(transient).await;
        assert!(matches!(refused, Err(SendError::Transient(_))), "{refused:?}");
    }
    let wait = async |headers: &'static str| {
        let details = json!([{"errorCode": "QUOTA_EXCEEDED"}]);
        match one(error_with("429 Too Many Requests", headers, "RESOURCE_EXHAUSTED", "Quota", details)).await {
            Err(SendError::RateLimited { retry_after, .. }) => retry_after.as_secs(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((wait("").await, wait("Retry-After: 7\r\n").await), (60, 7));
    let page = one(answer("200 OK", "", "<html>")).await;
    assert!(matches!(page, Err(SendError::Unknown(_))), "{page:?}");
}

#[tokio::test]
async fn one_device_is_enough() {
    let mut google = Google::start(by_token).await;
    let accepted = google.send(&["dead-1", "good-1", "busy-1", "good-2", "other-1", "dead-2"]).await.expect("accepted");
    let names = "projects/shop-1/messages/good-1 projects/shop-1/messages/good-2";
    assert_eq!(accepted.receipt.as_deref(), Some(names));
    assert_eq!(accepted.gone, ["dead-1", "dead-2"]);
    assert_eq!(google.server.all().len(), 7);
    google.send(&["good-1", "good-1"]).await.expect("accepted");
    assert_eq!(google.server.all().len(), 1, "each device once");
}

#[tokio::test]
async fn without_a_device_that_took_it_what_promises_most_decides() {
    let google = Google::start(by_token).await;
    match google.send(&["dead-1", "other-1", "dead-2"]).await {
        Err(SendError::Gone { addresses, reason }) => {
            assert_eq!(addresses, ["dead-1", "dead-2"]);
            assert!(reason.contains("UNREGISTERED") && reason.contains("SENDER_ID_MISMATCH"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let permanent = google.send(&["other-1"]).await;
    assert!(matches!(permanent, Err(SendError::Permanent(_))), "{permanent:?}");
    let transient = google.send(&["dead-1", "busy-1", "other-1"]).await;
    assert!(matches!(transient, Err(SendError::Transient(_))), "{transient:?}");
    let limited = google.send(&["busy-1", "quota-1", "dead-1"]).await;
    assert!(matches!(limited, Err(SendError::RateLimited { .. })), "{limited:?}");
    let unknown = google.send(&["quota-1", "hang-1", "busy-1"]).await;
    assert!(matches!(unknown, Err(SendError::Unknown(_))), "{unknown:?}");
}

#[tokio::test]
async fn many_devices_share_one_time_limit() {
    let google = Google::start(by_token).await;
    let devices: Vec<String> = (0..40).map(|n| format!("hang-{n}")).collect();
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let started = std::time::Instant::now();
    let outcome = google.send(&devices).await;
    assert!(matches!(outcome, Err(SendError::Unknown(_))), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn what_cannot_be_a_push_is_not_sent() {
    let mut google = Google::start(taken).await;
    let none = google.send(&[]).await;
    assert!(matches!(&none, Err(SendError::Permanent(why)) if why.contains("no device")), "{none:?}");
    let large = google.provider.send(&Message { body: "ü".repeat(2000), ..push(&["d1"]) }).await;
    assert!(matches!(&large, Err(SendError::Permanent(why)) if why.contains("4096")), "{large:?}");
    assert!(google.server.all().is_empty());
}

#[tokio::test]
async fn files_that_are_no_service_account_are_named_and_not_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("account.json");
    let problem = |content: &str| {
        std::fs::write(&path, content).expect("written");
        let credentials_file = Some(path.clone());
        let settings = ProviderSettings { credentials_file, ..settings(ProviderKind::Fcm, "https://fcm.example") };
        FcmProvider::new(&settings).err().expect("a problem").to_string()
    };
    let with_key = |key: &str, uri: &str| {
        json!({"project_id": "p", "client_email": "e", "private_key": key, "token_uri": uri}).to_string()
    };
    let key = String::from_utf8(rsa_key().private_key_to_pem_pkcs8().expect("pem")).expect("pem");
    for content in [
        "",
        "s3cret",
        r#"{"private_key": "s3cret"}"#,
        &with_key("s3cret", "https://a.example"),
        &with_key(&key, "ftp://s3cret"),
        &"s3cret".repeat(20_000),
    ] {
        let text = problem(content);
        assert!(text.starts_with("provider `mail`: `credentials_file` names `"), "{text}");
        assert!(!text.contains("s3cret") && !text.contains("PRIVATE"), "{text}");
    }
    std::fs::remove_file(&path).expect("removed");
    let gone = ProviderSettings { credentials_file: Some(path), ..settings(ProviderKind::Fcm, "https://fcm.example") };
    assert!(FcmProvider::new(&gone).is_err());
}
