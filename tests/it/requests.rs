//! Direct requests and the directory, over HTTP: what is asked at the door, and what becomes of it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::events::{order_created, order_shipped, request};
use crate::support::http_client::Answer;
use crate::support::provider::{Answer as Told, FakeProvider};
use crate::support::published::Story;
use crate::support::service::{Service, outcomes};
use crate::support::setup::Setup;
use crate::support::wait::{self, secs};

const ORDER: &str = r#"{"orderId":"4711","amount":99.10,"orderDate":"2026-01-15T10:30:00Z"}"#;
/// Longer than any wait in these tests.
const HOUR: Duration = Duration::from_secs(3600);

struct Test {
    service: Service,
    setup: Setup,
    provider: FakeProvider,
}

fn start(settings: &str) -> Test {
    let provider = FakeProvider::accepting();
    let setup = Setup::new(settings, &provider.for_all_channels(secs(1)));
    Test { service: setup.start(), setup, provider }
}

impl Test {
    #[track_caller]
    fn submit(&self, change: impl Fn(&mut Value), key: Option<&str>) -> Answer {
        let mut request = json!({"channel": "email", "recipient": "a@example.com", "template": "order_confirmation"});
        request["data"] = serde_json::from_str(ORDER).expect("JSON");
        change(&mut request);
        let headers: Vec<(&str, &str)> = key.map(|key| ("Idempotency-Key", key)).into_iter().collect();
        // A number keeps its text on the way through the service; here it must not lose it before.
        let text = request.to_string().replacen("99.1,", "99.10,", 1);
        self.service.send("POST", "/api/v1/notifications", &headers, &text)
    }

    #[track_caller]
    fn accepted(&self, change: impl Fn(&mut Value)) -> String {
        let answer = self.submit(change, None);
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    #[track_caller]
    fn put(&self, path: &str, body: &Value) {
        let answer = self.service.send("PUT", path, &[], &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// The types of the lifecycle events about a notification.
    fn told(&self, id: &str) -> Vec<String> {
        wait::until("a lifecycle event", secs(20), || {
            let story = Story::of(&self.setup.kafka);
            let events = story.lifecycle_by_request();
            events.get(id).map(|events| events.iter().map(|e| e.event_type.clone()).collect())
        })
    }
}

fn in_future(wait: Duration) -> String {
    (Timestamp::now() + wait).to_string()
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_direct_request_is_delivered_and_its_key_makes_it_one() {
    let test = start("");
    let first = test.submit(|_| {}, Some("key-1"));
    assert_eq!(first.status, 202, "{}", first.text());
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    let again = test.submit(|_| {}, Some("key-1"));
    assert_eq!((again.status, again.json()), (202, first.json()));
    let other = test.submit(|r| r["recipient"] = json!("b@example.com"), Some("key-1"));
    assert_eq!(other.status, 422, "{}", other.text());
    let sent = test.service.wait_for_state(&id, "sent", secs(20));
    assert_eq!(outcomes(&sent), ["accepted"]);
    assert_eq!(test.told(&id), ["NotificationSent"]);
    let document = test.provider.wait_for_arrival(&id, 1, secs(1)).document();
    assert_eq!((document.to.as_deref(), document.channel.as_str()), (Some("a@example.com"), "email"));
    assert!(document.data.get().contains("99.10"), "{}", document.data);
    assert_eq!(test.provider.arrivals().len(), 1);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn what_is_wrong_is_told_at_the_door_by_its_field() {
    let test = start("");
    let wrong = |change: &dyn Fn(&mut Value), field: &str| {
        let answer = test.submit(change, None);
        assert_eq!(answer.status, 400, "{field}: {}", answer.text());
        assert_eq!(answer.json()["status"], 400);
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(field), "{field}: {detail}");
    };
    wrong(&|r| r["channel"] = json!("pigeon"), "`channel`");
    wrong(&|r| drop(r.as_object_mut().expect("object").remove("channel")), "`channel`");
    wrong(&|r| r["template"] = json!("no_such_template"), "`template`");
    wrong(&|r| r["template"] = json!(""), "`template`");
    wrong(&|r| drop(r["data"].as_object_mut().expect("object").remove("amount")), "amount");
    wrong(&|r| r["data"] = json!([1]), "`data`");
    wrong(&|r| drop(r.as_object_mut().expect("object").remove("recipient")), "`recipient`");
    wrong(&|r| r["recipient"] = json!(7), "`recipient`");
    wrong(&|r| r["recipient"] = json!("ada@@example.com"), "`recipient`");
    wrong(&|r| r["sendAt"] = json!("tomorrow"), "`sendAt`");
    wrong(&|r| r["expiresAt"] = json!("2026-13-01T00:00:00Z"), "`expiresAt`");
    wrong(&|r| r["critical"] = json!("yes"), "`critical`");
    wrong(&|r| r["category"] = json!(""), "`category`");
    wrong(&|r| r["channel"] = json!("webhook"), "`recipient`");
    wrong(&|r| r["expires_at"] = json!("2027-01-01T00:00:00Z"), "`expires_at`");
    let carried = |r: &mut Value| {
        r["recipient"] = json!("customer-1");
        r["data"]["email"] = json!("nonsense");
    };
    wrong(&carried, "nonsense");
    for body in ["", "nonsense", "[]", "{\"channel\":\"email\""] {
        let answer = test.service.send("POST", "/api/v1/notifications", &[], body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    let long = "k".repeat(256);
    assert_eq!(test.submit(|_| {}, Some(&long)).status, 400);
    let all = test.service.get("/api/v1/notifications").json();
    assert_eq!(all["items"], json!([]), "nothing was taken");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_time_may_be_given_and_what_waits_can_be_cancelled_and_tried_again() {
    let test = start("");
    let soon = in_future(Duration::from_millis(1500));
    let dated = test.accepted(|r| r["sendAt"] = json!(soon));
    let begun = std::time::Instant::now();
    let later = test.accepted(|r| r["sendAt"] = json!(in_future(HOUR)));
    let stale = test.accepted(|r| r["expiresAt"] = json!("2026-01-01T00:00:00Z"));
    let expired = test.service.wait_for_state(&stale, "expired", secs(20));
    assert_eq!(outcomes(&expired), Vec::<&str>::new());
    assert_eq!(test.told(&stale), ["NotificationSuppressed"]);
    test.service.wait_for_state(&dated, "sent", secs(20));
    assert!(begun.elapsed() >= Duration::from_millis(1000), "not before its time");

    let cancel = |id: &str| test.service.send("POST", &format!("/api/v1/notifications/{id}/cancel"), &[], "");
    let retry = |id: &str| test.service.send("POST", &format!("/api/v1/notifications/{id}/retry"), &[], "");
    let cancelled = cancel(&later);
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")), "{}", cancelled.text());
    assert_eq!(cancel(&later).status, 409);
    assert_eq!(cancel(&dated).status, 409, "it is sent");
    assert_eq!(retry(&dated).status, 409, "it is sent");
    assert_eq!(cancel("nobody").status, 404);
    assert_eq!(retry("nobody").status, 404);
    assert_eq!(test.told(&later), ["NotificationSuppressed"]);
    let reopened = retry(&later);
    assert_eq!((reopened.status, &reopened.json()["state"]), (200, &json!("pending")), "{}", reopened.text());
    assert_eq!((&reopened.json()["settledAt"], &reopened.json()["reason"]), (&Value::Null, &Value::Null));
    test.service.wait_for_state(&later, "sent", secs(20));
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn the_directory_is_fed_over_http_and_checked() {
    let test = start("");
    let id = test.accepted(|r| r["recipient"] = json!("customer-1"));
    test.service.wait_for_state(&id, "awaiting_contact", secs(20));
    test.put(
        "/api/v1/recipients/customer-1",
        &json!({"email": "late@example.com", "locale": "de", "timeZone": "Europe/Berlin"}),
    );
    let arrival = test.provider.wait_for_arrival(&id, 1, secs(1));
    assert_eq!(arrival.document().to.as_deref(), Some("late@example.com"));
    let known = test.service.get("/api/v1/recipients/customer-1").json();
    assert_eq!((&known["email"], &known["timeZone"]), (&json!("late@example.com"), &json!("Europe/Berlin")));
    for (field, body) in [
        ("email", json!({"email": "nonsense"})),
        ("phone", json!({"phone": "0123"})),
        ("locale", json!({"locale": "d e"})),
        ("timeZone", json!({"timeZone": "Europe/Atlantis"})),
        ("devices[0].platform", json!({"devices": [{"token": "t", "platform": "toaster"}]})),
        ("devices[0].token", json!({"devices": [{"token": "", "platform": "ios"}]})),
        ("unknown", json!({"unknown": 1})),
    ] {
        let answer = test.service.send("PUT", "/api/v1/recipients/customer-1", &[], &body.to_string());
        assert_eq!(answer.status, 400, "{field}");
        assert!(answer.text().contains(field), "{field}: {}", answer.text());
    }
    assert_eq!(test.service.get("/api/v1/recipients/nobody").status, 404);

    let erased = test.service.send("DELETE", "/api/v1/recipients/customer-1", &[], "");
    assert_eq!((erased.status, &erased.json()["notifications"]), (200, &json!(1)), "{}", erased.text());
    assert_eq!(test.service.get("/api/v1/recipients/customer-1").status, 404);
    let kept = test.service.get(&format!("/api/v1/notifications/{id}")).json();
    assert_eq!((&kept["state"], &kept["recipient"]), (&json!("sent"), &Value::Null));
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn refusals_suppressions_and_quiet_hours_are_heeded() {
    let test = start("");
    let refusals =
        json!({"optOut": [{"channel": "email", "category": "marketing"}, {"channel": "sms", "category": "*"}]});
    test.put("/api/v1/recipients/a@example.com/preferences", &refusals);
    let marketing = test.accepted(|r| r["category"] = json!("marketing"));
    let receipt = test.accepted(|_| {});
    let refused = test.service.wait_for_state(&marketing, "suppressed", secs(20));
    assert_eq!(outcomes(&refused), Vec::<&str>::new());
    assert_eq!(test.told(&marketing), ["NotificationSuppressed"]);
    test.service.wait_for_state(&receipt, "sent", secs(20));

    let suppress = json!({"channel": "email", "address": "B@example.com", "reason": "bounce"}).to_string();
    let suppressed = test.service.send("POST", "/api/v1/suppressions", &[], &suppress);
    assert_eq!((suppressed.status, &suppressed.json()["reason"]), (201, &json!("bounce")), "{}", suppressed.text());
    let again = suppress.replace("bounce", "complaint");
    let again = test.service.send("POST", "/api/v1/suppressions", &[], &again);
    assert_eq!((again.status, again.json()), (201, suppressed.json()), "it keeps its reason");
    let misspelt = suppress.replace("reason", "raeson");
    let misspelt = test.service.send("POST", "/api/v1/suppressions", &[], &misspelt);
    assert!(misspelt.status == 400 && misspelt.text().contains("raeson"), "{}", misspelt.text());
    let bounced = test.accepted(|r| r["recipient"] = json!("b@example.com"));
    let bounced = test.service.wait_for_state(&bounced, "suppressed", secs(20));
    assert!(bounced["reason"].as_str().is_some_and(|why| why.contains("bounce")), "{bounced}");
    let listed = test.service.get("/api/v1/suppressions").json();
    assert_eq!(listed["items"], json!([suppressed.json()]));
    assert_eq!(listed["items"][0]["address"], "b@example.com");
    let gone = test.service.send("DELETE", "/api/v1/suppressions/email/b@example.com", &[], "");
    assert_eq!(gone.status, 204);

    // Quiet from now on, for hours, wherever the clock stands.
    let now = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let clock = |hours: i64| (&now + jiff::SignedDuration::from_hours(hours)).strftime("%H:%M").to_string();
    let quiet = json!({"optOut": [], "quietHours": {"from": clock(-1), "to": clock(3)}});
    test.put("/api/v1/recipients/c@example.com/preferences", &quiet);
    let waits = test.accepted(|r| r["recipient"] = json!("c@example.com"));
    let passes = test.accepted(|r| {
        r["recipient"] = json!("c@example.com");
        r["critical"] = json!(true);
    });
    test.service.wait_for_state(&passes, "sent", secs(20));
    let held = wait::until("it waits for the end of quiet hours", secs(20), || {
        test.service.notification(&waits).filter(|n| n["reason"] == "quiet hours")
    });
    assert_eq!(held["state"], "pending");
    let due: Timestamp = held["nextAttemptAt"].as_str().expect("a time").parse().expect("RFC 3339");
    assert!(due > Timestamp::now() + Duration::from_secs(3600), "{held}");
    for (field, body) in [
        ("optOut[0].channel", json!({"optOut": [{"channel": "pigeon"}]})),
        ("quietHours.to", json!({"quietHours": {"from": "22:00", "to": "7"}})),
    ] {
        let answer = test.service.send("PUT", "/api/v1/recipients/x/preferences", &[], &body.to_string());
        assert!(answer.status == 400 && answer.text().contains(field), "{field}: {}", answer.text());
    }
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn an_e_mail_can_be_refused_with_one_click() {
    let secret = "[delivery.recipients]\nunsubscribe_base_url = \"https://notify.example\"\nunsubscribe_secret = \"0123456789abcdef\"\n";
    let test = start(secret);
    let news = |r: &mut Value| r["category"] = json!("news");
    let first = test.accepted(news);
    let arrival = test.provider.wait_for_arrival(&first, 1, secs(20));
    let document: Value = serde_json::from_slice(&arrival.body).expect("JSON");
    let link = document["unsubscribeUrl"].as_str().expect("a link").to_owned();
    let path = link.strip_prefix("https://notify.example").expect("below the base").to_owned();
    let look = test.service.get(&path);
    assert!(look.status == 200 && look.text().contains("news"), "{}", look.text());
    let second = test.accepted(news);
    test.service.wait_for_state(&second, "sent", secs(20));
    let click = test.service.send("POST", &path, &[], "List-Unsubscribe=One-Click");
    assert_eq!(click.status, 200, "{}", click.text());
    let third = test.accepted(news);
    test.service.wait_for_state(&third, "suppressed", secs(20));
    let receipt = test.accepted(|_| {});
    let arrival = test.provider.wait_for_arrival(&receipt, 1, secs(20));
    let document: Value = serde_json::from_slice(&arrival.body).expect("JSON");
    assert_eq!(document.get("unsubscribeUrl"), None, "receipts are sent anyway");
    assert_eq!(test.service.get("/unsubscribe/nonsense").status, 404);
    assert_eq!(test.service.send("POST", &format!("{path}A"), &[], "").status, 404);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_newer_notification_replaces_one_that_still_waits() {
    let test = start("");
    let customer = "late-customer";
    test.setup.kafka.produce_one(order_created("created", "4711", customer, "99.10").input());
    test.setup.kafka.produce_one(order_created("other", "4712", customer, "5").input());
    let id_of = |event: &str| Story::request_of(&test.setup.kafka, event);
    let (created, other) = (id_of("created"), id_of("other"));
    test.service.wait_for_state(&created, "awaiting_contact", secs(20));
    test.service.wait_for_state(&other, "awaiting_contact", secs(20));
    test.setup.kafka.produce_one(order_shipped("shipped", "4711", customer).input());
    let shipped = id_of("shipped");
    let replaced = test.service.wait_for_state(&created, "suppressed", secs(20));
    assert_eq!(replaced["reason"], format!("superseded by {shipped}"));
    assert_eq!(test.told(&created), ["NotificationSuppressed"]);
    test.put(&format!("/api/v1/recipients/{customer}"), &json!({"email": "late@example.com"}));
    test.service.wait_for_state(&shipped, "sent", secs(20));
    test.service.wait_for_state(&other, "sent", secs(20));
    assert!(test.provider.arrivals_of(&created).is_empty());
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn of_two_that_came_together_for_nobody_known_only_the_newer_is_sent() {
    let test = start("");
    let customer = "later-customer";
    let events = [order_created("created", "4711", customer, "99.10"), order_shipped("shipped", "4711", customer)];
    test.setup.kafka.produce(events.map(|event| event.input()).to_vec());
    let [created, shipped] = ["created", "shipped"].map(|event| Story::request_of(&test.setup.kafka, event));
    for id in [&created, &shipped] {
        test.service.wait_for_state(id, "awaiting_contact", secs(20));
    }
    test.put(&format!("/api/v1/recipients/{customer}"), &json!({"email": "later@example.com"}));
    test.service.wait_for_state(&shipped, "sent", secs(20));
    let replaced = test.service.wait_for_state(&created, "suppressed", secs(20));
    assert_eq!(replaced["reason"], format!("superseded by {shipped}"));
    assert_eq!(test.told(&created), ["NotificationSuppressed"]);
    assert!(test.provider.arrivals_of(&created).is_empty());
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_recipient_gets_no_more_than_the_throttle_allows() {
    let test = start("[delivery.recipients]\nthrottle = 2\nthrottle_window_ms = 3000\n");
    let ids: Vec<String> = (0..3).map(|_| test.accepted(|_| {})).collect();
    let critical = test.accepted(|r| r["critical"] = json!(true));
    let other = test.accepted(|r| r["recipient"] = json!("b@example.com"));
    for id in ids.iter().chain([&critical, &other]) {
        test.service.wait_for_state(id, "sent", secs(20));
    }
    let times: Vec<_> = ids.iter().map(|id| test.provider.wait_for_arrival(id, 1, secs(1)).at).collect();
    let (first, last) = (times.iter().min().expect("three"), times.iter().max().expect("three"));
    assert!(*last - *first >= Duration::from_millis(2900), "the third waited for the window: {:?}", *last - *first);
}

/// The owner of the number once answered STOP.
const STOPPED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 71\r\nConnection: close\r\n\r\n\
    {\"code\":21610,\"message\":\"Attempt to send to unsubscribed\",\"status\":400}";

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_number_whose_owner_stopped_is_not_written_to_again() {
    let provider = FakeProvider::answering(|_| Told::Broken { bytes: STOPPED, taken: false });
    let setup = Setup::new("", &provider.twilio("texts"));
    let test = Test { service: setup.start(), setup, provider };
    let ask = |request: &mut Value| {
        request["channel"] = json!("sms");
        request["recipient"] = json!("+15550100199");
    };
    let first = test.accepted(ask);
    let first = test.service.wait_for_state(&first, "suppressed", secs(20));
    assert_eq!(outcomes(&first), ["permanent"], "{first}");
    wait::until("it is learnt", secs(20), || {
        let listed = test.service.get("/api/v1/suppressions").json();
        (listed["items"][0]["address"] == "+15550100199").then_some(())
    });
    let second = test.accepted(ask);
    let second = test.service.wait_for_state(&second, "suppressed", secs(20));
    assert_eq!((outcomes(&second).len(), test.provider.arrivals().len()), (0, 1), "{second}");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_list_is_narrowed_and_paged() {
    let test = start("");
    let mine = request("n-kafka", "email", "a@example.com");
    test.setup.kafka.produce_one(mine.input());
    test.service.wait_for_state("n-kafka", "sent", secs(20));
    let sms = test.accepted(|r| {
        r["channel"] = json!("sms");
        r["recipient"] = json!("+15550100123");
    });
    test.service.wait_for_state(&sms, "sent", secs(20));
    let ids = |query: &str| {
        let page = test.service.get(&format!("/api/v1/notifications?{query}"));
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        let ids: Vec<String> = page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|n| n["id"].as_str().expect("an id").to_owned())
            .collect();
        (ids, page["nextCursor"].as_str().map(str::to_owned))
    };
    assert_eq!(ids("channel=sms").0, std::slice::from_ref(&sms));
    assert_eq!(ids("recipient=a@example.com&state=sent&template=order_confirmation").0, ["n-kafka"]);
    assert!(ids("state=failed").0.is_empty());
    let (first, cursor) = ids("limit=1");
    assert_eq!(first, [sms]);
    let (second, _) = ids(&format!("limit=1&cursor={}", cursor.expect("there is more")));
    assert_eq!(second, ["n-kafka"]);
    assert_eq!(ids("limit=501").0.len(), 2, "more than a page holds");
    for (field, query) in [
        ("state", "state=happy"),
        ("channel", "channel=x"),
        ("limit", "limit=0"),
        ("limit", "limit=x"),
        ("cursor", "cursor=x"),
        ("from", "from=x"),
        ("status", "status=failed"),
    ] {
        let answer = test.service.get(&format!("/api/v1/notifications?{query}"));
        assert!(answer.status == 400 && answer.text().contains(field), "{query}: {}", answer.text());
    }
}
