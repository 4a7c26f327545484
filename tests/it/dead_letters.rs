//! The table of dead letters: all that stands on their topic, once, and found by its cause.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::database::LetterRow;
use crate::support::events::{Input, object, order_created, quoted, request};
use crate::support::kafka::{DEAD_LETTERS, NOTIFICATIONS, ORDERS, USERS};
use crate::support::provider::FakeProvider;
use crate::support::published::{DeadLetter, Story};
use crate::support::random::Random;
use crate::support::servers::Outage;
use crate::support::setup::Setup;
use crate::support::wait::{self, secs};

/// A customer that needs no entry in the directory.
const CUSTOMER: &str = "someone@example.com";
const ONLY_ROUTING: &str = "[delivery]\nenabled = false\n";

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn letters_are_found_by_their_cause() {
    letters_of_one_cause_group("at_least_once");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn letters_of_transactions_are_found_by_their_cause() {
    letters_of_one_cause_group("exactly_once");
}

fn letters_of_one_cause_group(guarantee: &str) {
    let provider = FakeProvider::accepting();
    let settings = format!("[routing]\nguarantee = {}\n", quoted(guarantee));
    let setup = Setup::new(&settings, &provider.for_all_channels(secs(5)));
    let service = setup.start();
    let inputs = poison();
    let letters = inputs.len();
    setup.kafka.produce(inputs);
    wait_for_rows(&setup, letters);

    let (story, rows) = (Story::of(&setup.kafka), setup.database.dead_letters());
    assert_eq!((story.letters.len(), rows.len()), (letters, letters));
    let mut causes: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for letter in &story.letters {
        let row = row_about(&rows, letter);
        says_the_same(row, letter);
        causes.entry(letter.record().header("cause")).or_default().insert(&row.fingerprint);
    }
    assert!(causes.values().all(|found| found.len() == 1), "one cause, one group: {causes:?}");
    let groups: BTreeSet<_> = causes.values().flatten().collect();
    assert_eq!(groups.len(), causes.len(), "and another cause is another group: {causes:?}");
    assert_eq!(causes.len(), 6);
    assert_eq!(service.metrics().sum("dead_letters_total", &[]), letters as u64, "each letter counts once");
}

/// Records that fail for six reasons; the header `cause` names it.
fn poison() -> Vec<Input> {
    let order = |n: usize| order_created(&format!("order-event-{n}"), &format!("order-{n}"), CUSTOMER, "1");
    let because = |input: Input, cause: &str| input.with_header("cause", Some(cause.as_bytes()));
    let mut inputs = Vec::new();
    for n in 0..3 {
        let mut nameless = order(n);
        nameless.data = object(&[("customerId", quoted(&format!("customer-{n}"))), ("amount", n.to_string())]);
        inputs.push(because(nameless.input(), "no order id"));
        let mut priceless = order(n + 10);
        priceless.data = object(&[("orderId", quoted("o")), ("amount", quoted(&format!("about {n}")))]);
        inputs.push(because(priceless.input(), "no amount"));
        let mut later = order(n + 20);
        later.version = (90 + n).to_string();
        inputs.push(because(later.input(), "an unknown version"));
        let cut = order(n + 30).input().with_value(Some(format!("{{\"order\": 1{n}").into_bytes()));
        inputs.push(because(cut, "no JSON"));
        inputs.push(because(order(n + 40).input().on(USERS).with_value(None), "no value"));
        let unknown = request(&format!("request-{n}"), "pigeon", CUSTOMER).input().on(NOTIFICATIONS);
        inputs.push(because(unknown, "no such channel"));
    }
    inputs
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_crash_between_topic_and_table_leaves_no_letter_out_and_none_twice() {
    const LETTERS: usize = 20_000;
    let setup = Setup::new(ONLY_ROUTING, "");
    let service = setup.start();
    let held = service.post("/api/v1/breakers/database/open", &[]);
    assert_eq!(held.status, 200, "{}", held.text());
    setup.kafka.produce(nameless_orders(LETTERS));
    setup.kafka.wait_until_routed(secs(60));
    service.kill();
    assert_eq!(setup.database.dead_letter_count(), 0, "it died with all letters on the topic and none in the table");

    let service = setup.start();
    let in_the_middle = wait::until("the first letters are in the table", secs(30), || {
        Some(setup.database.dead_letter_count()).filter(|count| *count > 0)
    });
    service.kill();
    assert!(in_the_middle < LETTERS, "it died in the middle: {in_the_middle} were in the table");
    assert!(setup.kafka.letters_behind() > 0, "and its group had not committed all");

    let _service = setup.start();
    wait_for_rows(&setup, LETTERS);
    wait::until("the group has seen the end", secs(60), || (setup.kafka.letters_behind() == 0).then_some(()));
    every_letter_is_there_once(&setup, LETTERS);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn while_the_database_is_away_letters_wait_on_their_topic_and_routing_goes_on() {
    const LETTERS: usize = 300;
    let setup = Setup::new(ONLY_ROUTING, "");
    let service = setup.start();
    setup.kafka.produce(nameless_orders(1));
    wait_for_rows(&setup, 1);
    wait::until("the first letter is committed", secs(20), || (setup.kafka.letters_behind() == 0).then_some(()));

    let outage = Outage::of("postgres");
    let mut inputs: Vec<Input> = nameless_orders(LETTERS);
    inputs.extend((0..LETTERS).map(|n| order_created(&format!("good-{n}"), &format!("o-{n}"), CUSTOMER, "1").input()));
    setup.kafka.produce(inputs);
    setup.kafka.wait_until_routed(secs(60));
    assert_eq!(setup.kafka.count(DEAD_LETTERS), LETTERS as u64 + 1, "letters reach their topic");
    assert_eq!(setup.kafka.count(NOTIFICATIONS), LETTERS as u64, "and so do requests");
    let noticed = [("breaker", "database")];
    wait::until("the breaker has noticed", secs(30), || {
        (service.metrics().sum("circuit_breaker_state", &noticed) > 0).then_some(())
    });
    assert_eq!(setup.kafka.letters_behind(), LETTERS as i64, "the table's group has committed none of them");
    outage.end();

    wait_for_rows(&setup, LETTERS + 1);
    wait::until("the group has seen the end", secs(30), || (setup.kafka.letters_behind() == 0).then_some(()));
    every_letter_is_there_once(&setup, LETTERS + 1);
    assert_eq!(setup.kafka.count(DEAD_LETTERS), LETTERS as u64 + 1, "an outage makes no letters");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_parked_letter_has_its_payload_beside_it() {
    let setup = Setup::new(ONLY_ROUTING, "");
    let service = setup.start();
    let noise = Random::new(3).bytes(990_000);
    let sent = setup.kafka.produce(vec![
        order_created("small", "1", CUSTOMER, "1").input().with_value(Some(b"\xff\x00".to_vec())),
        order_created("large", "2", CUSTOMER, "1").input().with_value(Some(noise.clone())),
    ]);
    wait_for_rows(&setup, 2);
    // A parked payload is in the table before its reference is on the topic.
    wait::until("both are committed", secs(20), || {
        (setup.kafka.count(DEAD_LETTERS) == 2 && setup.kafka.letters_behind() == 0).then_some(())
    });
    let (story, rows) = (Story::of(&setup.kafka), setup.database.dead_letters());
    let about = |at: usize| {
        let letters = story.letters_about(&sent[at].topic, sent[at].partition, sent[at].offset);
        (row_about(&rows, letters[0]), letters[0])
    };
    let (small, letter) = about(0);
    says_the_same(small, letter);
    assert_eq!((&small.payload, &letter.parked_id), (&None, &None));
    let (large, letter) = about(1);
    says_the_same(large, letter);
    assert_eq!((letter.original_message_encoding.as_str(), letter.parked_id.as_ref()), ("parked", Some(&large.id)));
    assert!(large.payload.as_ref() == Some(&noise), "byte for byte");
    let payload = |row: &LetterRow| service.get(&format!("/api/v1/dead-letters/{}/payload", row.id));
    assert!(payload(large).status == 200 && payload(large).body == noise);
    assert_eq!(payload(small).status, 404, "nothing of it is parked");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn whatever_stands_on_the_topic_is_in_the_table_and_makes_no_letters() {
    let setup = Setup::new(ONLY_ROUTING, "");
    let service = setup.start();
    let foreign = object(&[
        ("originalTopic", quoted("order-events")),
        ("originalOffset", quoted("17")),
        ("failureReason", quoted("order \"4711\" is unknown")),
        ("serviceName", quoted("another-service")),
    ]);
    let on_topic = |value: Option<&[u8]>| {
        let input = order_created("any", "any", CUSTOMER, "1").input().on(DEAD_LETTERS);
        input.with_value(value.map(<[u8]>::to_vec))
    };
    let values: [Option<&[u8]>; 6] =
        [Some(foreign.as_bytes()), None, Some(b""), Some(b"\xff\x00\xfe"), Some(b"{}"), Some(b"\"\\u0000\"")];
    setup.kafka.produce(values.iter().map(|value| on_topic(*value)).collect());
    wait_for_rows(&setup, values.len());
    wait::until("all is committed", secs(20), || (setup.kafka.letters_behind() == 0).then_some(()));

    let rows = setup.database.dead_letters();
    let (foreign, undecodable): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.error_code != "undecodable");
    assert_eq!((foreign.len(), undecodable.len()), (1, values.len() - 1));
    assert_eq!((foreign[0].original_topic.as_str(), foreign[0].original_offset), ("order-events", Some(17)));
    assert_eq!((foreign[0].stage.as_str(), foreign[0].event_type.as_deref()), ("unknown", None));
    for row in undecodable {
        let letter: DeadLetter = serde_json::from_str(&row.letter).expect("a letter");
        let at = usize::try_from(row.original_offset.expect("its place")).expect("an offset");
        assert_eq!(letter.original().as_deref(), values[at], "with its bytes");
    }
    assert_eq!(setup.kafka.count(DEAD_LETTERS), values.len() as u64, "nothing came back to the topic");
    let metrics = service.metrics();
    assert_eq!(metrics.sum("dead_letters_total", &[]), 0);
    let consumed = metrics.sum("kafka_messages_consumed_total", &[("topic", DEAD_LETTERS)]);
    assert_eq!(consumed, values.len() as u64);
}

/// Orders that fail for one reason.
fn nameless_orders(count: usize) -> Vec<Input> {
    let order = |n: usize| {
        let mut order = order_created(&format!("nameless-{n}"), &format!("order-{n}"), CUSTOMER, "1");
        order.data = object(&[("customerId", quoted(CUSTOMER)), ("amount", n.to_string())]);
        order.input()
    };
    (0..count).map(order).collect()
}

#[track_caller]
fn wait_for_rows(setup: &Setup, count: usize) {
    let all = wait::until_or_end(secs(90), || (setup.database.dead_letter_count() >= count).then_some(()));
    assert!(all.is_some(), "{} of {count} letters are in the table", setup.database.dead_letter_count());
}

#[track_caller]
fn every_letter_is_there_once(setup: &Setup, count: usize) {
    let story = Story::of(&setup.kafka);
    let place =
        |letter: &DeadLetter| (letter.original_topic.clone(), letter.original_partition, letter.original_offset);
    let on_topic: BTreeSet<_> = story.letters.iter().map(place).collect();
    let rows = setup.database.dead_letters();
    assert_eq!((on_topic.len(), rows.len()), (count, count));
    let number = |n: i64| i32::try_from(n).expect("a partition");
    let in_table: BTreeSet<_> = rows
        .iter()
        .map(|row| (row.original_topic.clone(), row.original_partition.map(number), row.original_offset))
        .collect();
    assert!(in_table == on_topic, "the same letters");
    assert!(on_topic.iter().all(|(topic, ..)| topic == &setup.kafka.named(ORDERS)));
    let groups: BTreeSet<_> = rows.iter().map(|row| &row.fingerprint).collect();
    assert_eq!(groups.len(), 1, "of one cause");
}

#[track_caller]
fn row_about<'a>(rows: &'a [LetterRow], letter: &DeadLetter) -> &'a LetterRow {
    let about = |row: &&LetterRow| {
        row.original_topic == letter.original_topic
            && row.original_partition == letter.original_partition.map(i64::from)
            && row.original_offset == letter.original_offset
    };
    let found: Vec<_> = rows.iter().filter(about).collect();
    let [row] = found[..] else { panic!("{} rows about {letter:?}", found.len()) };
    row
}

#[track_caller]
fn says_the_same(row: &LetterRow, letter: &DeadLetter) {
    assert_eq!(row.stage, letter.stage);
    assert_eq!((&row.error_class, &row.error_code), (&letter.error_class, &letter.error_code));
    assert_eq!((&row.reason, &row.fingerprint), (&letter.failure_reason, &letter.fingerprint));
    assert_eq!(row.retry_count, i64::from(letter.retry_count));
    let millis = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_millisecond();
    assert_eq!(row.first_failure_at, Some(millis(&letter.first_failure_timestamp)));
    assert_eq!(row.last_failure_at, Some(millis(&letter.last_failure_timestamp)));
    assert_eq!(row.state, "open");
    assert!(row.recorded_at >= millis(&letter.first_failure_timestamp));
    assert_eq!(Some(row.letter.as_bytes()), letter.record().value.as_deref(), "the letter itself");
    let readable = letter.parked_id.is_none()
        && letter.original().is_some_and(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
    let expected = match letter.stage.as_str() {
        "routing" if readable => Some("OrderCreated"),
        "delivery" => Some("NotificationRequested"),
        _ => None,
    };
    assert_eq!(row.event_type.as_deref(), expected, "the type of the event where it could be read");
}
