//! Events on Redis streams: the same requests as from Kafka, and nothing lost whatever dies.

use std::sync::Arc;
use std::time::Duration;

use notification_service::adapters::redis::stream_entry::Reading;
use notification_service::adapters::redis::stream_source::{RedisStreamSource, StreamSettings};
use notification_service::domain::record::Record;
use notification_service::ports::source::{EventSource as _, Settled};
use redis::cmd;

use crate::support::events::{Input, order_created};
use crate::support::kafka::NOTIFICATIONS;
use crate::support::mix;
use crate::support::oracle::Oracle;
use crate::support::producer::Sent;
use crate::support::published::Story;
use crate::support::redis_stream::{Stream, id_of};
use crate::support::runtime;
use crate::support::servers::Outage;
use crate::support::service::Service;
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::{self, secs};

/// Others' entries are taken over after this time.
const QUICK: &str = "claim_idle_ms = 2000";

fn setup(stream: &Stream, more: &str) -> Setup {
    Setup::new(&format!("[delivery]\nenabled = false\n{}", stream.settings(more)), "")
}

/// What Redis can hold: a field has a value.
fn mixed(seed: u64, count: usize) -> Vec<Input> {
    mix::mixed(seed, count).into_iter().filter(|input| input.value.is_some()).collect()
}

fn orders(name: &str, count: usize) -> Vec<Input> {
    let order = |n| order_created(&format!("{name}-{n}"), &format!("order-{n}"), "customer", "1").input();
    (0..count).map(order).collect()
}

fn incidents(service: &Service, incident: &str) -> u64 {
    service.metrics().sum("redis_stream_incidents_total", &[("incident", incident)])
}

fn requests(setup: &Setup) -> usize {
    setup.kafka.read(NOTIFICATIONS).len()
}

#[track_caller]
fn all_is_routed(setup: &Setup, stream: &Stream, sent: &[Sent], copies: Copies) -> Story {
    stream.wait_until_acknowledged(secs(120));
    let (oracle, story) = (Oracle::of(sent), Story::of(&setup.kafka));
    verify::requests(&oracle, &story, copies);
    verify::dead_letters(&oracle.refused, &story, copies);
    story
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn entries_become_the_requests_that_records_become() {
    let stream = Stream::fresh();
    let setup = setup(&stream, "");
    let service = setup.start();
    let inputs = mixed(61, 2_000);
    let mut sent = setup.kafka.produce(inputs.clone());
    sent.extend(stream.add(inputs));
    setup.kafka.wait_until_routed(secs(60));
    // One id for both copies of a request, whichever way its event came.
    all_is_routed(&setup, &stream, &sent, Copies::AsCaused);
    let consumed = service.metrics().sum("kafka_messages_consumed_total", &[("topic", &stream.key)]);
    assert_eq!(consumed * 2, sent.len() as u64);
    wait::until("nothing lags", secs(15), || {
        let lag = [("topic", stream.key.as_str()), ("partition", "0")];
        (service.metrics().sum("kafka_consumer_lag", &lag) == 0).then_some(())
    });
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn an_entry_without_an_event_is_a_dead_letter_with_all_its_fields() {
    let stream = Stream::fresh();
    let setup = setup(&stream, "");
    let _service = setup.start();
    let id: String = stream.run("XADD", &["*", "amount", "5", "amount", "6", "key", "order-1"]);
    let sent = stream.add(orders("next", 1));
    stream.wait_until_acknowledged(secs(30));
    let story = Story::of(&setup.kafka);
    let [letter] = &story.letters[..] else { panic!("one letter: {:?}", story.letters) };
    verify::sound_letter(letter);
    assert_eq!((letter.error_class.as_str(), letter.error_code.as_str()), ("permanent", "missing_field"));
    assert_eq!((letter.original_topic.as_str(), letter.original_partition), (stream.key.as_str(), Some(0)));
    assert_eq!(letter.record().header("redisEntryId"), id);
    let fields = br#"[["amount","5"],["amount","6"],["key","order-1"]]"#;
    assert_eq!(letter.original().as_deref(), Some(fields.as_slice()));
    verify::requests(&Oracle::of(&sent), &story, Copies::AsCaused);
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn kills_under_load_lose_nothing() {
    let stream = Stream::fresh();
    let setup = setup(&stream, "consumer = \"the-only-one\"");
    let mut service = setup.start();
    let load = stream.add_steadily(mixed(62, 10_000), 600);
    let mut in_the_middle = 0;
    for kills in 1..=4 {
        wait::until("routing gets on", secs(60), || (requests(&setup) >= kills * 1_000).then_some(()));
        service.kill();
        in_the_middle += u64::from(stream.pending() > 0);
        service = setup.start();
    }
    let sent = load.finish();
    let story = all_is_routed(&setup, &stream, &sent, Copies::Any);
    verify::order(&sent, &story);
    assert!(in_the_middle > 0, "it died with entries in hand");
    assert_eq!(incidents(&service, "entry_gone"), 0);
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn orderly_restarts_repeat_nothing() {
    let stream = Stream::fresh();
    // Each process has another name: what one leaves unfinished, the next one takes over.
    let setup = setup(&stream, QUICK);
    let mut service = setup.start();
    let load = stream.add_steadily(mixed(63, 6_000), 600);
    for restarts in 1..=3 {
        wait::until("routing gets on", secs(60), || (requests(&setup) >= restarts * 800).then_some(()));
        service.terminate();
        assert_eq!(service.wait_for_exit(secs(20)).code(), Some(0), "an orderly end");
        service = setup.start();
    }
    let sent = load.finish();
    all_is_routed(&setup, &stream, &sent, Copies::AsCaused);
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn a_dead_consumers_entries_are_taken_over() {
    let stream = Stream::fresh();
    stream.create_group();
    let sent = stream.add(orders("left", 120));
    stream.take_as("a-dead-one", 70);
    let setup = setup(&stream, QUICK);
    let service = setup.start();
    all_is_routed(&setup, &stream, &sent, Copies::AsCaused);
    assert_eq!(incidents(&service, "entry_claimed"), 70);
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn while_kafka_is_away_nothing_is_acknowledged_and_nobody_loses_what_is_in_hand() {
    let stream = Stream::fresh();
    let setup = setup(&stream, QUICK);
    let mut services = [setup.start(), setup.start()];
    let load = stream.add_steadily(mix::clean(64, 6_000), 200);
    wait::until("routing gets on", secs(60), || (requests(&setup) >= 300).then_some(()));
    let outage = Outage::of("kafka");
    // Several times as long as an entry may go without a sign of life.
    outage.hold(secs(12), || assert!(services.iter_mut().all(Service::is_running), "they wait for Kafka"));
    assert!(stream.pending() > 0, "what is in hand is not acknowledged");
    outage.end();
    let sent = load.finish();
    let story = all_is_routed(&setup, &stream, &sent, Copies::Any);
    assert!(story.letters.is_empty(), "an outage makes no dead letter");
    assert_eq!(services.iter().map(|service| incidents(service, "entry_claimed")).sum::<u64>(), 0);
    assert_eq!(services.iter().map(|s| s.metrics().sum("actor_restarts_total", &[])).sum::<u64>(), 0);
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn a_group_that_redis_lost_is_made_again() {
    let stream = Stream::apart();
    let setup = setup(&stream, "");
    let mut service = setup.start();
    let before = stream.add(orders("before", 300));
    all_is_routed(&setup, &stream, &before, Copies::AsCaused);
    for (times, what) in [(1, "FLUSHDB"), (2, "DEL"), (3, "XGROUP")] {
        match what {
            "FLUSHDB" => stream.query::<()>(&cmd("FLUSHDB")),
            "DEL" => stream.run::<()>("DEL", &[]),
            _ => stream.query::<()>(cmd("XGROUP").arg("DESTROY").arg(&stream.key).arg(&stream.group)),
        }
        wait::until(what, secs(20), || (incidents(&service, "group_recreated") >= times).then_some(()));
        let after = stream.add(orders(what, 300));
        stream.wait_until_acknowledged(secs(30));
        let mut story = Story::of(&setup.kafka);
        story.requests.retain(|request| request.causation_id().starts_with(what));
        verify::requests(&Oracle::of(&after), &story, Copies::AsCaused);
        verify::dead_letters(&[], &story, Copies::AsCaused);
    }
    assert!(service.is_running());
    assert_eq!(service.metrics().sum("actor_restarts_total", &[]), 0, "the same consumer all along");
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn redis_may_be_away_and_come_back_empty() {
    let stream = Stream::fresh();
    let setup = setup(&stream, "");
    let mut service = setup.start();
    let before = stream.add(orders("before", 300));
    all_is_routed(&setup, &stream, &before, Copies::AsCaused);
    let outage = Outage::of("redis");
    let health = |service: &Service| service.get("/health").json()["status"].as_str().map(str::to_owned);
    wait::until("health notices", secs(10), || (health(&service)? == "degraded").then_some(()));
    outage.hold(secs(5), || assert!(service.is_running(), "it waits for Redis"));
    outage.end();
    wait::until("health notices its return", secs(20), || (health(&service)? == "healthy").then_some(()));
    let after = stream.add(orders("after", 300));
    stream.wait_until_acknowledged(secs(30));
    let both: Vec<Sent> = before.into_iter().chain(after).collect();
    all_is_routed(&setup, &stream, &both, Copies::AsCaused);
    assert!(service.get("/health/ready").status == 200 && service.is_running());
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn what_was_delivered_too_often_is_a_dead_letter_and_the_stream_goes_on() {
    let stream = Stream::fresh();
    stream.create_group();
    let sent = stream.add(orders("entry", 40));
    stream.take_as("the-only-one", 30);
    // As if it had ended the process each time, with others in hand beside it.
    for (n, deliveries) in [(7, 5), (8, 4), (9, 2)] {
        stream.count_as_delivered("the-only-one", &sent[n], deliveries);
    }
    let setup = setup(&stream, "consumer = \"the-only-one\"");
    let service = setup.start();
    stream.wait_until_acknowledged(secs(60));
    let story = Story::of(&setup.kafka);
    let [letter] = &story.letters[..] else { panic!("one letter: {:?}", story.letters) };
    verify::sound_letter(letter);
    assert_eq!((letter.error_class.as_str(), letter.error_code.as_str()), ("bug", "poison_entry"));
    assert_eq!((letter.retry_count, letter.original_offset), (6, Some(sent[7].offset)));
    assert_eq!(letter.original(), sent[7].input.value, "its bytes stay");
    assert_eq!(letter.record().header("redisEntryId"), id_of(&sent[7]));
    let others: Vec<Sent> = sent.iter().enumerate().filter(|(n, _)| *n != 7).map(|(_, sent)| sent.clone()).collect();
    verify::requests(&Oracle::of(&others), &story, Copies::AsCaused);
    assert_eq!(incidents(&service, "entry_gone"), 0);
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn only_what_every_group_is_done_with_is_trimmed() {
    let stream = Stream::fresh();
    stream.create_group();
    let sent = stream.add(orders("kept", 1_500));
    // Another group has read a third, and one of these it has not acknowledged.
    stream.query::<()>(cmd("XGROUP").arg("CREATE").arg(&stream.key).arg("others").arg("0"));
    let mut reading = cmd("XREADGROUP");
    reading.arg("GROUP").arg("others").arg("one").arg("COUNT").arg(500).arg("STREAMS").arg(&stream.key).arg(">");
    stream.query::<redis::Value>(&reading);
    let id = |n: usize| id_of(&sent[n]);
    let done: Vec<String> = (0..500).filter(|n| *n != 400).map(id).collect();
    stream.query::<u64>(cmd("XACK").arg(&stream.key).arg("others").arg(&done));
    let setup = setup(&stream, "trim_max_length = 200");
    let _service = setup.start();
    all_is_routed(&setup, &stream, &sent, Copies::AsCaused);
    let length = || stream.run::<usize>("XLEN", &[]);
    wait::until("it is trimmed", secs(30), || (length() < 1_500).then_some(()));
    let unread: Vec<redis::Value> = stream.run("XRANGE", &[&id(400), "+"]);
    assert_eq!(unread.len(), 1_100, "what is pending or unread anywhere stays");
    stream.query::<u64>(cmd("XACK").arg(&stream.key).arg("others").arg(id(400)));
    let shorter = length();
    wait::until("a little more is trimmed", secs(30), || (length() < shorter).then_some(()));
    let unread: Vec<redis::Value> = stream.run("XRANGE", &[&id(500), "+"]);
    assert_eq!(unread.len(), 1_000);
}

#[test]
#[ignore = "needs Kafka, PostgreSQL and Redis: scripts/test.sh"]
fn streams_stay_at_least_once_beside_exactly_once() {
    let stream = Stream::fresh();
    let settings = format!(
        "[routing]\nguarantee = \"exactly_once\"\n[delivery]\nenabled = false\n{}",
        stream.settings("consumer = \"the-only-one\"")
    );
    let setup = Setup::new(&settings, "");
    let _service = setup.start();
    let inputs = mixed(65, 500);
    let mut sent = setup.kafka.produce(inputs.clone());
    sent.extend(stream.add(inputs));
    setup.kafka.wait_until_routed(secs(60));
    all_is_routed(&setup, &stream, &sent, Copies::AsCaused);
}

const CLAIM_IDLE: Duration = secs(60);

/// The service's source alone, with a name for this process only.
fn source(stream: &Stream, consumer: &str) -> Arc<RedisStreamSource> {
    let settings = StreamSettings {
        url: stream.url.clone(),
        group: stream.group.clone(),
        consumer: consumer.to_owned(),
        passing_name: true,
        reading: Reading { stream: stream.key.as_str().into(), field: "event".to_owned(), max_deliveries: 5 },
        most: 1_000,
        claim_idle: CLAIM_IDLE,
        trim_max_length: None,
    };
    RedisStreamSource::start(settings, runtime().handle()).expect("starts")
}

#[track_caller]
fn next(source: &RedisStreamSource) -> Vec<Record> {
    let taking = async { tokio::time::timeout(secs(10), source.next_batch(100)).await };
    runtime().block_on(taking).expect("in time").expect("records")
}

fn close(source: &RedisStreamSource) {
    runtime().block_on(source.close(secs(10)));
}

fn settle(source: &RedisStreamSource, records: &[Record]) {
    source.settle(&records.iter().map(Settled::from).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs Redis: scripts/test.sh"]
fn a_suspect_is_delivered_alone() {
    let stream = Stream::fresh();
    stream.create_group();
    let sent = stream.add(orders("entry", 6));
    stream.take_as("the-only-one", 5);
    for suspect in [1, 2] {
        stream.count_as_delivered("the-only-one", &sent[suspect], 2);
    }
    let source = source(&stream, "the-only-one");
    // Each time one is in hand, and the others have the counts that they had.
    for counts in [&[2, 2, 2, 1, 1][..], &[3, 2, 1, 1], &[3, 1, 1]] {
        wait::until("the one before is acknowledged", secs(10), || {
            (stream.pending() == counts.len() as u64).then_some(())
        });
        let one = next(&source);
        assert_eq!(one.len(), 1);
        assert_eq!(stream.deliveries(), counts);
        settle(&source, &one);
    }
    let mut rest = Vec::new();
    while rest.len() < 3 {
        rest.extend(next(&source));
    }
    let place = |record: &Record| record.at.offset;
    assert_eq!(rest.iter().map(place).collect::<Vec<_>>(), [sent[3].offset, sent[4].offset, sent[5].offset]);
    settle(&source, &rest);
    close(&source);
    assert_eq!(stream.pending(), 0);
}

#[test]
#[ignore = "needs Redis: scripts/test.sh"]
fn an_orderly_end_hands_back_what_is_unfinished_and_counts_nothing() {
    let stream = Stream::fresh();
    stream.create_group();
    stream.add(orders("entry", 10));
    let first = source(&stream, "one");
    let taken = next(&first);
    assert_eq!(taken.len(), 10);
    assert_eq!(stream.deliveries(), [1; 10]);
    settle(&first, &taken[..3]);
    close(&first);
    assert_eq!(stream.deliveries(), [0; 7], "as if they had never been in hand");
    assert!(stream.idle_times().iter().all(|idle| *idle >= CLAIM_IDLE), "whoever asks may have them");
    assert_eq!(stream.consumers(), ["one"], "it has something pending");
    let second = source(&stream, "one");
    let again = next(&second);
    assert_eq!(again.len(), 7);
    settle(&second, &again);
    close(&second);
    assert_eq!((stream.pending(), stream.consumers().len()), (0, 0), "acknowledged at the end, and left");
}
