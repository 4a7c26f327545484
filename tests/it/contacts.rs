//! Notifications whose recipients cannot be reached yet: how long they wait, and what is told of those that waited in
//! vain.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::provider::FakeProvider;
use crate::support::published::Story;
use crate::support::service::{Service, outcomes};
use crate::support::setup::Setup;
use crate::support::wait::{self, secs};

/// Those whose time is over are looked for three times per lease.
const OFTEN: &str = "[delivery]\nlease_ms = 7000\n";
const NOBODY: &str = "/api/v1/recipients/nobody-yet";

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn the_wait_for_a_contact_ends_with_the_notification_s_own_time() {
    let provider = FakeProvider::accepting();
    let setup = Setup::new(OFTEN, &provider.for_all_channels(secs(1)));
    let service = setup.start();
    let patient = service.submit(&to_nobody());
    service.wait_for_state(&patient, "awaiting_contact", secs(20));
    let mut dated = to_nobody();
    dated["expiresAt"] = json!((Timestamp::now() + secs(5)).to_string());
    let dated = service.submit(&dated);
    service.wait_for_state(&dated, "awaiting_contact", secs(20));

    let expired = service.wait_for_state(&dated, "expired", secs(30));
    assert_eq!((outcomes(&expired).len(), &expired["reason"]), (0, &json!("its time is over")), "{expired}");
    let time = |field: &str| expired[field].as_str().expect("a time").parse::<Timestamp>().expect("RFC 3339");
    assert!(time("settledAt") >= time("expiresAt"), "not before its time: {expired}");
    assert_eq!(told(&setup, &dated), ("NotificationSuppressed".to_owned(), json!("expired")));
    one_is_counted_as_expired(&service);
    let waits = service.notification(&patient).expect("it is known");
    assert_eq!(waits["state"], "awaiting_contact", "{waits}");
    assert!(provider.arrivals().is_empty(), "nowhere to send them");

    service.put(NOBODY, &json!({"email": "late@example.com"}));
    service.wait_for_state(&patient, "sent", secs(20));
    assert_eq!(told(&setup, &patient), ("NotificationSent".to_owned(), Value::Null));
    let arrivals = provider.arrivals();
    let sent: Vec<&str> = arrivals.iter().map(|arrival| arrival.key.as_str()).collect();
    assert_eq!(sent, [patient.as_str()], "what has expired stays unsent");
    assert_eq!(service.notification(&dated).expect("it is known")["state"], "expired");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn no_contact_is_waited_for_without_end() {
    let provider = FakeProvider::accepting();
    let settings = format!("{OFTEN}[delivery.recipients]\nawaiting_contact_ms = 3000\n");
    let setup = Setup::new(&settings, &provider.for_all_channels(secs(1)));
    let service = setup.start();
    let id = service.submit(&to_nobody());
    service.wait_for_state(&id, "awaiting_contact", secs(20));
    let expired = service.wait_for_state(&id, "expired", secs(30));
    let why = "no contact of the recipient became known in time";
    assert_eq!((outcomes(&expired).len(), &expired["reason"]), (0, &json!(why)), "{expired}");
    assert_eq!(told(&setup, &id), ("NotificationSuppressed".to_owned(), json!("no_contact")));
    one_is_counted_as_expired(&service);

    // The contact comes too late for this one, and in time for the next.
    service.put(NOBODY, &json!({"email": "late@example.com"}));
    let next = service.submit(&to_nobody());
    service.wait_for_state(&next, "sent", secs(20));
    assert!(provider.arrivals_of(&id).is_empty(), "what has expired stays unsent");
}

fn to_nobody() -> Value {
    json!({"channel": "email", "recipient": "nobody-yet", "template": "order_shipped", "data": {"orderId": "4711"}})
}

/// The type of the one lifecycle event about a notification, and its error code.
#[track_caller]
fn told(setup: &Setup, id: &str) -> (String, Value) {
    wait::until("a lifecycle event", secs(20), || {
        let story = Story::of(&setup.kafka);
        let by_request = story.lifecycle_by_request();
        let events = by_request.get(id)?;
        assert_eq!(events.len(), 1, "{id} is settled once");
        let value = events[0].record().value.as_deref().expect("a value");
        let event: Value = serde_json::from_slice(value).expect("JSON");
        Some((events[0].event_type.clone(), event["data"]["errorCode"].clone()))
    })
}

#[track_caller]
fn one_is_counted_as_expired(service: &Service) {
    wait::until("it is counted", secs(5), || {
        let labels = [("channel", "email"), ("outcome", "expired")];
        (service.metrics().sum("notifications_settled_total", &labels) == 1).then_some(())
    });
}
