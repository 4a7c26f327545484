//! Records that are no events, and requests that cannot be met: each is set aside whole, and what stands behind it goes
//! on.

use crate::support::broken;
use crate::support::events::{Event, Input, object, order_created, quoted, request, user_registered};
use crate::support::kafka::{NOTIFICATIONS, ORDERS, PRODUCTS, USERS};
use crate::support::oracle::{Oracle, Refused};
use crate::support::producer::Sent;
use crate::support::provider::FakeProvider;
use crate::support::published::{DeadLetter, Story};
use crate::support::random::Random;
use crate::support::service::{Service, outcomes};
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::{self, secs};

/// A customer that needs no entry in the directory.
const CUSTOMER: &str = "someone@example.com";

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn every_kind_of_nonsense_is_set_aside_on_every_topic() {
    let (provider, setup) = whole_service();
    let _service = setup.start();
    let mut inputs = Vec::new();
    for topic in [ORDERS, USERS, PRODUCTS, NOTIFICATIONS] {
        // The handler goes by the body, so an order is as good as any event wherever it arrives.
        let good = match topic {
            NOTIFICATIONS => request("good-request", "email", CUSTOMER),
            _ => order_created(&format!("good-on-{topic}"), "4711", CUSTOMER, "1e3"),
        };
        // One key, one partition: the good one is behind all the others.
        let good = good_of(good, topic);
        for (name, value) in broken::variants(&good.0) {
            let bad = good.1.clone().with_value(value).with_header("nonsense", Some(name.as_bytes()));
            inputs.push(bad.with_header("nothing", None).with_header("bytes", Some(b"\xff\x00")));
        }
        inputs.push(good.1);
    }
    let sent = setup.kafka.produce(inputs);
    provider.wait_for_accepted(4, secs(60));
    setup.kafka.wait_until_drained(secs(60));

    let story = Story::of(&setup.kafka);
    let bad = sent.iter().filter(|sent| sent.input.headers.iter().any(|(name, _)| name == "nonsense"));
    let refused: Vec<Refused<'_>> =
        bad.map(|sent| Refused { sent, stage: stage_of(sent), names: Vec::new() }).collect();
    assert_eq!(refused.len(), sent.len() - 4);
    verify::dead_letters(&refused, &story, Copies::AsCaused);
    assert_eq!(provider.accepted_count(), 4, "and no nonsense is delivered");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_payload_that_fits_into_no_letter_is_parked() {
    let (provider, setup) = whole_service();
    let service = setup.start();
    let noise = Random::new(1).bytes(990_000);
    let mut padded = order_created("padded", "4711", CUSTOMER, "\"99.10\"");
    padded.data = padded.data.replacen('{', &format!("{{\"padding\":{},", quoted(&"x".repeat(999_000))), 1);
    let good = order_created("good", "4711", CUSTOMER, "99.10").input().with_key("big");
    let sent = setup.kafka.produce(vec![
        good.clone().with_value(Some(noise)),
        good.clone().with_value(Some(padded.json().into_bytes())),
        good,
    ]);
    provider.wait_for_accepted(1, secs(60));

    let [noise, padded] = [&sent[0], &sent[1]].map(|sent| letter_about(&setup, sent));
    // Twelve hundred thousand characters of base64 are more than Kafka takes.
    assert_eq!(noise.original_message_encoding, "parked");
    assert_eq!(payload(&service, &noise), sent[0].input.value);
    assert_eq!(payload(&service, &padded), sent[1].input.value);
    assert_eq!((padded.stage.as_str(), padded.error_class.as_str()), ("routing", "permanent"));
    assert!(padded.failure_reason.contains("amount"), "{}", padded.failure_reason);
    assert_eq!(noise.record().key, Some(b"big".to_vec()));
    setup.kafka.wait_until_drained(secs(20));
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn headers_and_keys_change_nothing() {
    let (provider, setup) = whole_service();
    let _service = setup.start();
    let order = |id: &str| order_created(id, &format!("order-of-{id}"), CUSTOMER, "0.10").input();
    let mut bare = order("bare");
    bare.headers.clear();
    let mut lying = order("lying").with_header("source", Some(b"somebody else"));
    lying.headers[0].1 = Some(b"UserLogin".to_vec());
    let lying = lying.with_header("aggregateId", Some(b"another")).with_header("timestamp", Some(b"never"));
    let sent = setup.kafka.produce(vec![
        user_registered("registration", "user-1").input(),
        bare,
        lying,
        order("keyless").without_key(),
        order("strange headers").with_header("eventType", None).with_header("x", Some(b"\xff\xfe")),
        order("on another topic").on(PRODUCTS).without_key(),
        order("keyless nonsense").without_key().with_value(Some(b"nonsense".to_vec())),
        Event::new("CartAbandoned", "unrouted", "cart-1", object(&[("userId", quoted("user-1"))])).input(),
    ]);
    let oracle = Oracle::of(&sent);
    assert_eq!((oracle.requests.len(), oracle.refused.len(), oracle.skipped), (6, 1, 1));
    // E-mail addresses as customers: the directory does not know them, and need not.
    provider.wait_for_accepted(6, secs(60));
    wait::until("six lifecycle events", secs(20), || (Story::of(&setup.kafka).lifecycle.len() == 6).then_some(()));
    setup.kafka.wait_until_drained(secs(30));
    let story = Story::of(&setup.kafka);
    let ids = verify::requests(&oracle, &story, Copies::AsCaused);
    verify::each_was_told_as_sent(&ids, &story, Copies::AsCaused);
    verify::dead_letters(&oracle.refused, &story, Copies::AsCaused);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn what_is_no_request_on_the_delivery_topic_is_skipped() {
    let (provider, setup) = whole_service();
    let service = setup.start();
    let about = object(&[("anything", quoted("goes"))]);
    let strange = ["NotificationSent", "NotificationOpened", "CartAbandoned"].map(|event_type| {
        Event::new(event_type, &format!("a {event_type}"), "notification-1", about.clone()).input().on(NOTIFICATIONS)
    });
    let good = request("good", "email", CUSTOMER).input().with_key("notification-1");
    setup.kafka.produce(strange.into_iter().chain([good]).collect());
    service.wait_for_state("good", "sent", secs(20));
    setup.kafka.wait_until_drained(secs(20));
    verify::dead_letters(&[], &Story::of(&setup.kafka), Copies::AsCaused);
    assert_eq!(provider.arrivals().len(), 1);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_request_with_an_address_that_is_none_or_without_a_variable_is_set_aside_with_the_reason() {
    let (provider, setup) = whole_service();
    let service = setup.start();
    let changed = |mut event: Event, from: &str, to: &str| {
        assert!(event.data.contains(from), "{from} stands in {}", event.data);
        event.data = event.data.replacen(from, to, 1);
        event
    };
    let amount = "\"amount\":99.10,";
    let mail = changed(request("mail", "email", "nobody"), amount, &format!("{amount}\"email\":\"no address\","));
    let text = changed(request("text", "sms", "nobody"), amount, &format!("{amount}\"phone\":\"0123\","));
    let words = changed(request("words", "email", CUSTOMER), amount, "");
    let cases = [
        (mail, "invalid_address", "no address"),
        (text, "invalid_address", "0123"),
        (request("hook", "webhook", "nobody"), "invalid_address", "must be a URL"),
        (words, "missing_variable", "amount"),
    ];
    let sent = setup.kafka.produce(cases.iter().map(|(event, ..)| event.input()).collect());
    for ((event, code, word), sent) in cases.iter().zip(&sent) {
        let letter = letter_about(&setup, sent);
        verify::sound_letter(&letter);
        let found = (letter.stage.as_str(), letter.error_class.as_str(), letter.error_code.as_str());
        assert_eq!(found, ("delivery", "permanent", *code), "{}", letter.failure_reason);
        assert!(letter.failure_reason.contains(*word), "{word} in: {}", letter.failure_reason);
        assert_eq!(letter.original(), sent.input.value, "the request stands in it byte for byte");
        let failed = service.wait_for_state(&event.event_id, "failed", secs(20));
        assert_eq!(outcomes(&failed), Vec::<&str>::new(), "nothing was sent: {failed}");
    }
    wait::until("each is counted", secs(10), || {
        let labels = [("stage", "delivery"), ("class", "permanent")];
        (service.metrics().sum("dead_letters_total", &labels) == cases.len() as u64).then_some(())
    });
    assert_eq!(Story::of(&setup.kafka).letters.len(), cases.len(), "and has one letter");
    assert!(provider.arrivals().is_empty());
}

fn whole_service() -> (FakeProvider, Setup) {
    let provider = FakeProvider::accepting();
    let setup = Setup::new("", &provider.for_all_channels(secs(5)));
    (provider, setup)
}

/// A good event with its record on one partition of this topic.
fn good_of(event: Event, topic: &'static str) -> (Event, Input) {
    let input = event.input().on(topic).with_key("one partition");
    (event, input)
}

fn stage_of(sent: &Sent) -> &'static str {
    if sent.input.topic == NOTIFICATIONS { "delivery" } else { "routing" }
}

#[track_caller]
fn letter_about(setup: &Setup, sent: &Sent) -> DeadLetter {
    wait::until("the dead letter", secs(30), || {
        let about =
            |l: &DeadLetter| (l.original_partition, l.original_offset) == (Some(sent.partition), Some(sent.offset));
        Story::of(&setup.kafka).letters.into_iter().find(about)
    })
}

/// The bytes of the original record, from the letter or from where they are parked.
#[track_caller]
fn payload(service: &Service, letter: &DeadLetter) -> Option<Vec<u8>> {
    let Some(id) = letter.parked_id.as_ref() else { return letter.original() };
    let answer = service.get(&format!("/api/v1/dead-letters/{id}/payload"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    Some(answer.body)
}
