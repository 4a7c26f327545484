//! Tests the `slack` provider against a server that answers as Slack's documentation says.

use std::time::Duration;

use serde_json::Value;

use super::test_support::{Server, Then, answer, message, settings};
use super::{ProviderKind, SlackProvider};
use crate::domain::channel::Channel;
use crate::ports::provider::{Accepted, Message, Provider, SendError};

fn alert() -> Message {
    Message { recipient: None, ..message(Channel::AdminAlert, None) }
}

fn provider(server: &Server) -> SlackProvider {
    let url = format!("http://{}/services/T0/B0/s3cret", server.address);
    SlackProvider::new(&settings(ProviderKind::Slack, &url)).unwrap_or_else(|error| panic!("{error}"))
}

async fn outcome(then: Then) -> Result<Accepted, SendError> {
    let server = Server::start([then]).await;
    let outcome = provider(&server).send(&alert()).await;
    assert!(!format!("{outcome:?}").contains("s3cret"), "{outcome:?}");
    outcome
}

async fn posted(message: Message) -> Value {
    let mut server = Server::start([answer("200 OK", "", "ok")]).await;
    assert_eq!(provider(&server).send(&message).await, Ok(Accepted::default()));
    let request = server.request();
    assert_eq!(request.line, "POST /services/T0/B0/s3cret HTTP/1.1");
    assert_eq!(request.header("content-type"), "application/json");
    let payload = request.json();
    let blocks = payload["blocks"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(blocks.len() <= 50);
    for block in blocks {
        let most = if block["type"] == "header" { 150 } else { 3000 };
        let text = block["text"]["text"].as_str().expect("a text");
        assert!(!text.is_empty() && text.chars().count() <= most, "{block}");
        assert!(!text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").contains(['&', '<', '>']));
    }
    assert!(payload["text"].as_str().expect("a text").chars().count() <= 40_000);
    payload
}

#[tokio::test]
async fn posts_blocks_and_the_same_as_text() {
    let payload =
        posted(Message { subject: Some("Out of\r\nstock".into()), body: "Lamp is gone".into(), ..alert() }).await;
    assert_eq!(payload["text"], "Out of stock\nLamp is gone");
    assert_eq!(payload["blocks"][0]["text"]["text"], "Out of stock");
    assert_eq!(payload["blocks"][0]["text"]["type"], "plain_text");
    assert_eq!(payload["blocks"][1]["text"]["text"], "Lamp is gone");
    assert_eq!(payload["blocks"][1]["text"]["verbatim"], true);
    let bare = posted(Message { subject: None, body: "Lamp".into(), ..alert() }).await;
    assert_eq!((&bare["text"], bare["blocks"].as_array().map(Vec::len)), (&Value::from("Lamp"), Some(1)));
    let blank = posted(Message { subject: Some("\r\n".into()), body: " \n".into(), ..alert() }).await;
    assert_eq!(blank["blocks"], Value::Null);
}

#[tokio::test]
async fn nothing_in_the_text_is_a_command() {
    let hostile = "<!channel> <https://evil.example|log in> & &lt; > @here";
    let payload = posted(Message { subject: Some(hostile.into()), body: hostile.into(), ..alert() }).await;
    let expected = "&lt;!channel&gt; &lt;https://evil.example|log in&gt; &amp; &amp;lt; &gt; @here";
    assert_eq!(payload["blocks"][1]["text"]["text"], expected);
    assert_eq!(payload["text"], format!("{expected}\n{expected}"));
}

#[tokio::test]
async fn long_texts_keep_within_slack_s_limits() {
    for piece in ["ü", "&", "a;&<", "💌", "line\n"] {
        let long = piece.repeat(100_000);
        posted(Message { subject: Some(long.clone()), body: long, ..alert() }).await;
    }
    let body = format!("{}END", "x".repeat(7000));
    let payload = posted(Message { body: body.clone(), ..alert() }).await;
    let blocks = payload["blocks"].as_array().expect("blocks");
    let told: String = blocks[1..].iter().filter_map(|block| block["text"]["text"].as_str()).collect();
    assert_eq!(told, body);
    let cut = posted(Message { body: "x".repeat(50_000), ..alert() }).await;
    assert!(cut["text"].as_str().is_some_and(|text| text.ends_with("(cut off: the text has 50000 characters)")));
}

#[tokio::test]
async fn bad_payloads_are_final_and_bad_webhooks_wait_for_the_operator() {
    for word in ["invalid_payload", "no_text", "too_many_attachments", "invalid_blocks"] {
        let refused = outcome(answer("400 Bad Request", "", word)).await;
        assert_eq!(refused, Err(SendError::Permanent(format!("400 Bad Request: {word}"))));
    }
    for (status, word) in [
        ("400 Bad Request", "user_not_found"),
        ("403 Forbidden", "action_prohibited"),
        ("403 Forbidden", "invalid_token"),
        ("404 Not Found", "channel_not_found"),
        ("404 Not Found", "no_service"),
        ("404 Not Found", "no_team"),
        ("410 Gone", "channel_is_archived"),
        ("500 Internal Server Error", "rollup_error"),
        ("503 Service Unavailable", ""),
    ] {
        let refused = outcome(answer(status, "", word)).await;
        assert!(matches!(&refused, Err(SendError::Transient(why)) if why.contains(word)), "{word}: {refused:?}");
    }
    let limited = outcome(answer("429 Too Many Requests", "Retry-After: 30\r\n", "rate_limited")).await;
    assert!(
        matches!(limited, Err(SendError::RateLimited { retry_after, .. }) if retry_after == Duration::from_secs(30))
    );
    let moved = outcome(answer("302 Found", "Location: /services/T0/B0/s3cret\r\n", "")).await;
    assert!(matches!(moved, Err(SendError::Transient(_))), "{moved:?}");
}
