//! What providers may answer, and what becomes of the notification.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::events::{email_of, order_created, request, user_registered};
use crate::support::producer::Sent;
use crate::support::provider::{Answer, FakeProvider};
use crate::support::published::{DeadLetter, Story};
use crate::support::service::{Service, attempts, outcomes};
use crate::support::setup::Setup;
use crate::support::verify;
use crate::support::wait::{self, secs};

const SOMEONE: &str = "someone@example.com";
const QUICK: &str = "[delivery]\nlease_ms = 7000\n[delivery.retry]\nschedule_ms = [500, 500, 1000]\n";
/// The first retry comes after every deadline of these tests.
const PATIENT: &str = "[delivery.retry]\nschedule_ms = [600000]\n";
/// A single round: a step of the schedule would be one too many.
const ONE_ROUND: &str = "[delivery.retry]\nschedule_ms = []\n";

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_transient_failure_is_tried_again() {
    let fails_once = FakeProvider::answering(|a| if a.nth == 1 { Answer::Status(503) } else { Answer::Accept });
    let test = Test::with(QUICK, &fails_once.named("email", "email", secs(1)));
    test.setup.kafka.produce_one(request("n-1", "email", SOMEONE).input());
    let notification = test.service.wait_for_state("n-1", "sent", secs(20));
    assert_eq!(outcomes(&notification), ["transient", "accepted"]);
    let receipt = notification["receipt"].as_str().unwrap_or_default();
    assert!(receipt.starts_with("receipt-"), "the provider's receipt: {notification}");
    let [first, second] = &fails_once.arrivals_of("n-1")[..] else { panic!("two requests") };
    assert_eq!((first.document().attempt, second.document().attempt), (1, 2));
    let waited = second.at - first.at;
    assert!(waited >= Duration::from_millis(490), "the first step of the schedule passed: {waited:?}");
    test.is_told("n-1", "NotificationSent");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn the_next_provider_of_the_channel_takes_over_at_once() {
    let provider = FakeProvider::answering(|a| if a.path == "/first" { Answer::Status(503) } else { Answer::Accept });
    let test = Test::with(PATIENT, &provider.first_and_second(secs(1)));
    test.setup.kafka.produce_one(request("n-1", "email", SOMEONE).input());
    let notification = test.service.wait_for_state("n-1", "sent", secs(20));
    assert_eq!(outcomes(&notification), ["transient", "accepted"]);
    assert_eq!(attempts(&notification, "provider"), ["first", "second"]);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_refusal_is_final() {
    let provider = FakeProvider::answering(|_| Answer::Status(400));
    let test = Test::with(QUICK, &provider.first_and_second(secs(1)));
    let sent = test.setup.kafka.produce_one(request("n-1", "email", SOMEONE).input());
    let notification = test.service.wait_for_state("n-1", "failed", secs(20));
    assert_eq!(outcomes(&notification), ["permanent"], "no retry and no other provider");
    assert_eq!(attempts(&notification, "provider"), ["first"]);
    test.is_dead(&sent, "permanent");
    test.is_told("n-1", "NotificationFailed");
    // One that no record asked for.
    let data = json!({"orderId": "4711"});
    let direct = json!({"channel": "email", "recipient": SOMEONE, "template": "order_shipped", "data": data});
    let id = test.service.submit(&direct);
    test.service.wait_for_state(&id, "failed", secs(20));
    let letter = wait::until("its dead letter", secs(20), || {
        Story::of(&test.setup.kafka).letters.into_iter().find(|letter| letter.original_topic == "api")
    });
    assert_eq!((letter.original_partition, letter.original_offset), (None, None));
    assert_eq!(letter.error_class, "permanent");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn after_the_last_step_it_is_a_dead_letter() {
    let provider = FakeProvider::answering(|_| Answer::Status(503));
    let two_steps = "[delivery.retry]\nschedule_ms = [300, 300]\n";
    let test = Test::with(two_steps, &provider.named("email", "email", secs(1)));
    let sent = test.setup.kafka.produce_one(request("n-1", "email", SOMEONE).input());
    let notification = test.service.wait_for_state("n-1", "failed", secs(20));
    assert_eq!(outcomes(&notification), ["transient"; 3], "two steps mean three rounds");
    test.is_dead(&sent, "transient");
    test.is_told("n-1", "NotificationFailed");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_rate_limit_pauses_the_lane_and_uses_no_step() {
    let limit_once = |a: &crate::support::provider::Arrival| match (a.key.as_str(), a.nth) {
        ("n-1", 1) => Answer::RetryAfter(2),
        _ => Answer::Accept,
    };
    let provider = FakeProvider::answering(limit_once);
    let test = Test::with(ONE_ROUND, &provider.named("email", "email", secs(1)));
    test.setup.kafka.produce_one(request("n-1", "email", SOMEONE).input());
    let limited = provider.wait_for_arrival("n-1", 1, secs(20));
    test.setup.kafka.produce_one(request("n-2", "email", SOMEONE).input());
    let notification = test.service.wait_for_state("n-1", "sent", secs(20));
    assert_eq!(outcomes(&notification), ["rate_limited", "accepted"]);
    test.service.wait_for_state("n-2", "sent", secs(20));
    for (id, nth) in [("n-1", 2), ("n-2", 1)] {
        let waited = provider.wait_for_arrival(id, nth, secs(1)).at - limited.at;
        assert!(waited >= Duration::from_millis(1950), "{id} came {waited:?} after the limit");
    }
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn silence_is_an_unknown_outcome_and_is_repeated_with_the_same_key() {
    let provider = FakeProvider::answering(|a| if a.nth == 1 { Answer::Hang } else { Answer::Accept });
    let test = Test::with(QUICK, &provider.named("email", "email", secs(1)));
    test.setup.kafka.produce_one(request("n-1", "email", SOMEONE).input());
    let notification = test.service.wait_for_state("n-1", "sent", secs(20));
    assert_eq!(outcomes(&notification), ["unknown", "accepted"]);
    let keys: Vec<String> = provider.arrivals().iter().map(|arrival| arrival.key.clone()).collect();
    assert_eq!(keys, ["n-1", "n-1"]);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_notification_waits_for_its_contact() {
    let provider = FakeProvider::accepting();
    let test = Test::with(QUICK, &provider.for_all_channels(secs(1)));
    test.setup.kafka.produce_one(order_created("order-event", "4711", "late-customer", "99.10").input());
    let id = Story::request_of(&test.setup.kafka, "order-event");
    test.service.wait_for_state(&id, "awaiting_contact", secs(20));
    assert!(provider.arrivals().is_empty(), "nowhere to send it");

    test.setup.kafka.produce_one(user_registered("registration", "late-customer").input());
    // Within a second of the contact's arrival, which takes its own way through Kafka.
    let arrival = provider.wait_for_arrival(&id, 1, secs(2));
    assert_eq!(arrival.document().to, Some(email_of("late-customer")));
    test.service.wait_for_state(&id, "sent", secs(5));
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_request_that_comes_twice_is_delivered_once() {
    let provider = FakeProvider::accepting();
    let test = Test::with(QUICK, &provider.for_all_channels(secs(1)));
    let twice = request("n-1", "email", SOMEONE).input();
    let behind = request("n-2", "email", SOMEONE).input().with_key("notification-n-1");
    test.setup.kafka.produce(vec![twice.clone(), twice.clone(), behind.clone()]);
    test.service.wait_for_state("n-1", "sent", secs(20));
    test.service.wait_for_state("n-2", "sent", secs(20));
    // Once more, now that it is settled.
    test.setup.kafka.produce(vec![twice, request("n-3", "email", SOMEONE).input().with_key("notification-n-1")]);
    test.service.wait_for_state("n-3", "sent", secs(20));
    assert_eq!(provider.arrivals_of("n-1").len(), 1);
    let skipped = test.service.metrics().sum("duplicates_skipped_total", &[("stage", "delivery")]);
    assert_eq!(skipped, 2, "and the duplicates are counted");
    test.is_told("n-1", "NotificationSent");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn addresses_may_come_with_the_request() {
    let provider = FakeProvider::accepting();
    let test = Test::with(QUICK, &provider.for_all_channels(secs(1)));
    let mut carried = request("n-carried", "email", "nobody-knows");
    carried.data = carried.data.replacen("\"amount\"", "\"email\":\"carried@example.com\",\"amount\"", 1);
    let inputs = [request("n-mail", "email", SOMEONE), request("n-sms", "sms", "+15550100123"), carried];
    test.setup.kafka.produce(inputs.map(|event| event.input()).to_vec());
    for (id, to) in [("n-mail", SOMEONE), ("n-sms", "+15550100123"), ("n-carried", "carried@example.com")] {
        let document = provider.wait_for_arrival(id, 1, secs(20)).document();
        assert_eq!(document.to.as_deref(), Some(to), "{id}");
        assert!(document.data.get().contains("\"amount\":99.10"), "the number keeps its text: {}", document.data);
    }
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn what_cannot_be_delivered_at_all_is_a_dead_letter() {
    let provider = FakeProvider::accepting();
    let test = Test::with(QUICK, &provider.named("email", "email", secs(1)));
    let mut no_template = request("n-template", "email", SOMEONE);
    no_template.data = no_template.data.replacen("order_confirmation", "no_such_template", 1);
    let inputs = [request("n-pigeon", "pigeon", SOMEONE), no_template, request("n-push", "push", SOMEONE)];
    let sent = test.setup.kafka.produce(inputs.map(|event| event.input()).to_vec());
    let [pigeon, template, push] = [&sent[0], &sent[1], &sent[2]].map(|sent| test.is_dead(sent, "permanent"));
    assert!(pigeon.failure_reason.contains("pigeon"), "{}", pigeon.failure_reason);
    assert!(template.failure_reason.contains("no_such_template"), "{}", template.failure_reason);
    assert_eq!(push.error_code, "no_provider", "{}", push.failure_reason);
    let failed: Value = test.service.wait_for_state("n-template", "failed", secs(5));
    assert_eq!(outcomes(&failed), Vec::<&str>::new(), "nothing was sent");
    assert!(provider.arrivals().is_empty());
}

struct Test {
    service: Service,
    setup: Setup,
}

impl Test {
    fn with(settings: &str, providers: &str) -> Self {
        let setup = Setup::new(settings, providers);
        Self { service: setup.start(), setup }
    }

    /// The notification has its one lifecycle event.
    #[track_caller]
    fn is_told(&self, id: &str, event_type: &str) {
        wait::until(&format!("{event_type} of {id}"), secs(20), || {
            Story::of(&self.setup.kafka).lifecycle_by_request().contains_key(id).then_some(())
        });
        self.setup.kafka.wait_until_drained(secs(20));
        let story = Story::of(&self.setup.kafka);
        let told: Vec<&str> = story.lifecycle_by_request()[id].iter().map(|e| e.event_type.as_str()).collect();
        assert_eq!(told, [event_type]);
    }

    /// The request has its one dead letter of the delivery stage, with the request in it.
    #[track_caller]
    fn is_dead(&self, sent: &Sent, class: &str) -> DeadLetter {
        let letter = wait::until("the dead letter", secs(20), || {
            let mut letters = Story::of(&self.setup.kafka).letters;
            letters.retain(|letter| letter.original_offset == Some(sent.offset));
            letters.retain(|letter| letter.original_partition == Some(sent.partition));
            assert!(letters.len() <= 1, "one dead letter: {letters:?}");
            letters.pop()
        });
        verify::sound_letter(&letter);
        assert_eq!(letter.original_topic, sent.topic);
        assert_eq!((letter.stage.as_str(), letter.error_class.as_str()), ("delivery", class), "{letter:?}");
        assert_eq!(letter.original(), sent.input.value, "the request stands in it byte for byte");
        letter
    }
}
