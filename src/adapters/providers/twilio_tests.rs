//! Tests the `twilio` provider against a server that answers as Twilio's documentation says.

use std::time::Duration;

use super::test_support::{Server, Then, answer, message, settings};
use super::{ProviderKind, ProviderSettings, TwilioProvider};
use crate::domain::channel::Channel;
use crate::ports::provider::{Accepted, Message, Provider, SendError};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const TO: &str = "+15550100123";

fn sms() -> Message {
    message(Channel::Sms, Some(TO))
}

fn account(server: &Server) -> ProviderSettings {
    settings(ProviderKind::Twilio, &format!("http://{ACCOUNT}:s3cret%2Ftoken@{}", server.address))
}

fn provider(settings: &ProviderSettings) -> TwilioProvider {
    TwilioProvider::new(settings).unwrap_or_else(|error| panic!("{error}"))
}

fn created() -> Then {
    let body = r#"{"account_sid":"AC0123456789abcdef0123456789abcdef","body":"Hello","error_code":null,
        "error_message":null,"num_segments":"1","sid":"SM6a11ce","status":"queued","to":"+15550100123"}"#;
    answer("201 Created", "Content-Type: application/json\r\n", body)
}

/// An error as Twilio's REST API answers it.
pub(super) fn error(status: &str, code: u32, text: &str) -> Then {
    let number = &status[..3];
    let more = format!("https://www.twilio.com/docs/errors/{code}");
    let body = format!(r#"{{"code":{code},"message":"{text}","more_info":"{more}","status":{number}}}"#);
    answer(status, "Content-Type: application/json\r\n", &body)
}

async fn outcome(then: Then) -> Result<Accepted, SendError> {
    let mut server = Server::start([then]).await;
    let outcome = provider(&account(&server)).send(&sms()).await;
    assert_eq!(server.all().len(), 1, "one request");
    assert!(!format!("{outcome:?}").contains("s3cret"), "{outcome:?}");
    outcome
}

#[tokio::test]
async fn posts_a_form_for_the_account() {
    let mut server = Server::start([created()]).await;
    let callback = Some("https://n.example/callbacks/twilio?a=b&c".to_owned());
    let settings = ProviderSettings { status_callback_url: callback, ..account(&server) };
    let text = "Grüße & 100 % + \u{202e}שלום💌\r\nX: y";
    let accepted = provider(&settings).send(&Message { body: text.into(), ..sms() }).await.expect("accepted");
    assert_eq!(accepted.receipt.as_deref(), Some("SM6a11ce"));

    let request = server.request();
    assert_eq!(request.line, format!("POST /2010-04-01/Accounts/{ACCOUNT}/Messages.json HTTP/1.1"));
    // base64 of ACCOUNT:s3cret/token
    let login = "Basic QUMwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjpzM2NyZXQvdG9rZW4=";
    assert_eq!(request.header("authorization"), login);
    assert_eq!(request.header("content-type"), "application/x-www-form-urlencoded");
    let fields = request.form();
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    assert_eq!((field("To"), field("From"), field("Body")), (Some(TO), Some("+15550100999"), Some(text)));
    assert_eq!(
        field("StatusCallback"),
        Some("https://n.example/callbacks/twilio?a=b&c&notification=0b9f6f0e-7a36-5b1c-9d0a-2f6f3c1f9b11")
    );
    assert_eq!(fields.len(), 4);
}

#[tokio::test]
async fn a_messaging_service_and_a_path_in_front_are_kept() {
    let mut server = Server::start([created()]).await;
    let url = format!("{}/gateway/", account(&server).url);
    let from = Some("MG0123456789abcdef0123456789abcdef".to_owned());
    provider(&ProviderSettings { url, from, ..account(&server) }).send(&sms()).await.expect("accepted");
    let request = server.request();
    assert!(request.line.starts_with("POST /gateway/2010-04-01/Accounts/AC"), "{}", request.line);
    let sender = request.form().into_iter().find(|(name, _)| name == "MessagingServiceSid");
    assert!(sender.is_some_and(|(_, value)| value.starts_with("MG")));
    assert!(!request.form().iter().any(|(name, _)| name == "From" || name == "StatusCallback"));
}

#[tokio::test]
async fn refusals_of_a_number_are_told_apart() {
    let stop = outcome(error("400 Bad Request", 21610, "Attempt to send to unsubscribed recipient")).await;
    assert!(matches!(&stop, Err(SendError::Suppressed(why)) if why.contains("21610")), "{stop:?}");
    for (code, text) in
        [(21211, "Invalid 'To' Phone Number: +15550100123"), (21614, "'To' number is not a valid mobile number")]
    {
        match outcome(error("400 Bad Request", code, text)).await {
            Err(SendError::Gone { addresses, reason }) => {
                assert_eq!(addresses, [TO]);
                assert_eq!(reason, format!("400 Bad Request: {code} {text}"));
            }
            other => panic!("{other:?}"),
        }
    }
    for code in [21408, 21608, 21612, 21617, 30007] {
        let refused = outcome(error("400 Bad Request", code, "no")).await;
        assert!(matches!(refused, Err(SendError::Permanent(_))), "{code}: {refused:?}");
    }
}

#[tokio::test]
async fn an_operator_s_mistake_costs_no_notification() {
    for (status, code) in [
        ("401 Unauthorized", 20003),
        ("403 Forbidden", 20005),
        ("404 Not Found", 20404),
        ("400 Bad Request", 21212),
        ("400 Bad Request", 21606),
        ("400 Bad Request", 21660),
        ("403 Forbidden", 0),
    ] {
        let refused = outcome(error(status, code, "no")).await;
        assert!(matches!(refused, Err(SendError::Transient(_))), "{code}: {refused:?}");
    }
    let location = "Location: https://s3cret.example/s3cret/s3cret\r\n".replace("s3cret.", "other.");
    let moved = outcome(answer("301 Moved Permanently", &location, "")).await;
    assert!(matches!(&moved, Err(SendError::Transient(why)) if why.contains("other.example")), "{moved:?}");
}

#[tokio::test]
async fn limits_pause() {
    let wait = async |then| match outcome(then).await {
        Err(SendError::RateLimited { retry_after, .. }) => retry_after,
        other => panic!("{other:?}"),
    };
    let text = "Too Many Requests";
    assert_eq!(wait(error("429 Too Many Requests", 20429, text)).await, Duration::from_secs(30));
    assert_eq!(wait(error("400 Bad Request", 21611, "queue full")).await, Duration::from_secs(60));
    assert_eq!(wait(error("429 Too Many Requests", 63038, "daily limit")).await, Duration::from_secs(3600));
    assert_eq!(wait(answer("429 Too Many Requests", "Retry-After: 7\r\n", "")).await, Duration::from_secs(7));
}

#[tokio::test]
async fn a_success_that_is_none_is_unknown() {
    let page = outcome(answer("200 OK", "", "<html>log in</html>")).await;
    assert!(matches!(page, Err(SendError::Unknown(_))), "{page:?}");
    let cut = outcome(Then::Break("HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"sid\":".into())).await;
    assert_eq!(cut, Ok(Accepted::default()));
}

#[tokio::test]
async fn what_cannot_be_an_sms_is_not_sent() {
    let mut server = Server::start([created()]).await;
    let provider = provider(&account(&server));
    for (to, body, expected) in [
        (Some(TO), "ü".repeat(1601), "1601 characters"),
        (Some(TO), String::new(), "empty"),
        (None, "a".into(), "no number"),
    ] {
        let refused = provider.send(&Message { to: to.map(str::to_owned), body, ..sms() }).await;
        assert!(matches!(&refused, Err(SendError::Permanent(why)) if why.contains(expected)), "{refused:?}");
    }
    assert!(server.requests.try_recv().is_err());
    provider.send(&Message { body: "ü".repeat(1600), ..sms() }).await.expect("accepted");
}
