//! Alerts to administrators over an incoming webhook as Slack has them.

use serde_json::{Value, json};

use crate::support::alone::Alone;
use crate::support::events::{Event, object, quoted};
use crate::support::provider::{Answer, Arrival, FakeProvider};
use crate::support::published::Story;
use crate::support::service::{Service, outcomes};
use crate::support::setup::Setup;
use crate::support::wait::{self, secs};

/// Whoever knows it may post there.
const HOOK: &str = "/services/T0/B0/s3cret";
const INVALID_PAYLOAD: &str =
    "HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\nConnection: close\r\n\r\ninvalid_payload";
const INVALID_TOKEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\nConnection: close\r\n\r\ninvalid_token";

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn administrators_hear_that_a_product_is_sold_out() {
    let slack = FakeProvider::accepting();
    let setup = Setup::new("", &hook(&slack));
    let service = setup.start();
    let fields = [("productId", quoted("prod-1")), ("productName", quoted("<!channel> Kettle & \"Fjord\""))];
    setup.kafka.produce_one(Event::new("ProductOutOfStock", "sold-out", "prod-1", object(&fields)).input());
    let id = Story::request_of(&setup.kafka, "sold-out");
    let sent = service.wait_for_state(&id, "sent", secs(20));
    assert_eq!(outcomes(&sent), ["accepted"]);
    assert_eq!((&sent["channel"], &sent["receipt"]), (&json!("admin_alert"), &Value::Null), "{sent}");

    let [arrival] = &slack.arrivals()[..] else { panic!("one alert") };
    assert_eq!(arrival.path, HOOK);
    let posted: Value = serde_json::from_slice(&arrival.body).expect("JSON");
    let header = "Out of stock: &lt;!channel&gt; Kettle &amp; \"Fjord\" (prod-1)";
    let blocks = &posted["blocks"];
    assert_eq!(blocks[0], json!({"type": "header", "text": {"type": "plain_text", "text": header, "emoji": false}}));
    let section = &blocks[1]["text"];
    assert_eq!((&blocks[1]["type"], &section["type"]), (&json!("section"), &json!("mrkdwn")), "{posted}");
    assert_eq!(section["verbatim"], true, "no name calls a channel");
    let text = section["text"].as_str().expect("a text");
    assert!(text.contains("Product id: prod-1") && !text.contains('<'), "{text}");
    assert_eq!(blocks.as_array().map(Vec::len), Some(2), "{posted}");
    assert_eq!(posted["text"], format!("{header}\n{text}"), "the same for what shows no blocks");
}

#[test]
fn alerts_wait_as_long_as_slack_says_and_use_no_step() {
    let slack =
        FakeProvider::answering(|arrival| if arrival.nth == 1 { Answer::RetryAfter(2) } else { Answer::Accept });
    // A step of the schedule would be one too many.
    let alone = Alone::start(&format!("[delivery.retry]\nschedule_ms = []\n{}", hook(&slack)));
    let service = &alone.service;
    let limited = alert(service, "first");
    let first = wait::until("its request", secs(20), || slack.arrivals().first().cloned());
    let other = alert(service, "second");
    let sent = service.wait_for_state(&limited, "sent", secs(20));
    assert_eq!(outcomes(&sent), ["rate_limited", "accepted"]);
    service.wait_for_state(&other, "sent", secs(20));
    let later = &slack.arrivals()[1..];
    assert_eq!(later.len(), 2);
    for arrival in later {
        let waited = arrival.at - first.at;
        assert!(waited.as_millis() >= 1950, "one came {waited:?} after the limit");
    }
}

#[test]
fn a_payload_that_slack_refuses_is_final_and_a_hook_that_it_refuses_is_not() {
    let slack = FakeProvider::answering(|arrival| match arrival.nth {
        _ if names(arrival, "spoilt") => Answer::Broken { bytes: INVALID_PAYLOAD, taken: false },
        1 => Answer::Broken { bytes: INVALID_TOKEN, taken: false },
        _ => Answer::Accept,
    });
    let alone = Alone::start(&format!("[delivery.retry]\nschedule_ms = [300]\n{}", hook(&slack)));
    let service = &alone.service;
    // The operator has put the hook right meanwhile.
    let sent = service.wait_for_state(&alert(service, "sound"), "sent", secs(20));
    assert_eq!(outcomes(&sent), ["transient", "accepted"], "{sent}");
    let failed = service.wait_for_state(&alert(service, "spoilt"), "failed", secs(20));
    assert_eq!(outcomes(&failed), ["permanent"], "no retry: {failed}");
    assert!(failed["reason"].as_str().is_some_and(|why| why.contains("invalid_payload")), "{failed}");
    assert!(![sent, failed].iter().any(|shown| shown.to_string().contains("s3cret")), "the hook is a secret");
    assert_eq!(slack.arrivals().len(), 3);
}

/// A `[[delivery.providers]]` for alerts.
fn hook(slack: &FakeProvider) -> String {
    format!(
        "[[delivery.providers]]\nname = \"alerts\"\nchannel = \"admin_alert\"\nkind = \"slack\"\n\
         url = \"http://{}{HOOK}\"\ntimeout_ms = 5000\n",
        slack.address()
    )
}

/// Asks for an alert about a product of this name; returns its id.
#[track_caller]
fn alert(service: &Service, product: &str) -> String {
    let data = json!({"productId": "prod-1", "productName": product, "outOfStockAt": "2026-01-15T10:30:00Z"});
    service.submit(&json!({"channel": "admin_alert", "template": "product_out_of_stock", "data": data}))
}

fn names(arrival: &Arrival, product: &str) -> bool {
    String::from_utf8_lossy(&arrival.body).contains(product)
}
