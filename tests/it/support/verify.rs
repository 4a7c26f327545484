//! Compares what came about with what the oracle says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::json_object::Object;
use super::oracle::{Content, Oracle, Refused};
use super::producer::Sent;
use super::provider::FakeProvider;
use super::published::{DeadLetter, Published, Story};

/// How many records may say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// As many as there were causes.
    AsCaused,
    /// Any number: a crash repeats what it interrupted.
    Any,
}

/// The requests are those of the oracle, no more and no less. Returns their ids.
#[track_caller]
pub fn requests(oracle: &Oracle<'_>, story: &Story, copies: Copies) -> BTreeMap<String, Content> {
    let found = story.requests_by_content();
    same(&oracle.requests.keys().collect(), &found.keys().collect(), "requests");
    let mut ids = BTreeMap::new();
    for (content, records) in found {
        let id = &records[0].event_id;
        assert!(records.iter().all(|request| request.event_id == *id), "one id for one request: {content:?}");
        let expected = &oracle.requests[&content];
        if copies == Copies::AsCaused {
            assert!(
                records.len() <= expected.times,
                "{} requests for {} events: {content:?}",
                records.len(),
                expected.times
            );
        }
        for request in records {
            envelope_and_headers(request, expected.trace.as_deref());
        }
        assert_eq!(uuid::Uuid::parse_str(id).map(|id| id.get_version_num()), Ok(5), "{id}");
        let other = ids.insert(id.clone(), content);
        assert!(other.is_none(), "{id} names two requests");
    }
    ids
}

/// The requests of one key come in the order of their events.
#[track_caller]
pub fn order(sent: &[Sent], story: &Story) {
    let mut place: BTreeMap<String, (i32, i64)> = BTreeMap::new();
    for sent in sent {
        let envelope = sent.input.value.as_deref().and_then(Object::parse);
        if let Some(id) = envelope.and_then(|envelope| envelope.text("eventId")) {
            place.entry(id).or_insert((sent.partition, sent.offset));
        }
    }
    let mut last: BTreeMap<&str, (i32, i64)> = BTreeMap::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    // A request that comes again comes late; what counts is its first copy.
    for request in story.requests.iter().filter(|request| seen.insert(request.event_id.as_str())) {
        let here = place[request.causation_id()];
        if let Some(before) = last.insert(request.aggregate_id.as_str(), here) {
            assert!(before < here, "{} comes after the request of a later event", request.aggregate_id);
        }
    }
}

/// Each request was accepted, with its very content. Returns what was accepted more than once.
#[track_caller]
pub fn deliveries(oracle: &Oracle<'_>, ids: &BTreeMap<String, Content>, provider: &FakeProvider) -> Vec<String> {
    let accepted = provider.accepted();
    same(&ids.keys().collect(), &accepted.keys().collect(), "accepted notifications");
    for (id, arrivals) in &accepted {
        let content = &ids[id];
        for arrival in arrivals {
            let document = arrival.document();
            let data = Object::parse(document.data.get().as_bytes()).expect("data is an object").canonical();
            assert_eq!(document.id, *id, "the idempotency key is the id");
            assert_eq!(arrival.path, format!("/{}", content.channel));
            assert_eq!((&document.channel, &document.template), (&content.channel, &content.template));
            assert_eq!((&document.recipient, &data), (&content.recipient, &content.data));
            assert_eq!(document.to, oracle.requests[content].to, "the address of {content:?}");
            assert!(!document.body.trim().is_empty() && document.attempt >= 1, "{document:?}");
        }
    }
    accepted.into_iter().filter(|(_, arrivals)| arrivals.len() > 1).map(|(id, _)| id).collect()
}

/// Each request has exactly one lifecycle event (which a crash may repeat), `NotificationSent`.
#[track_caller]
pub fn each_was_told_as_sent(ids: &BTreeMap<String, Content>, story: &Story, copies: Copies) {
    let told = story.lifecycle_by_request();
    same(&ids.keys().map(String::as_str).collect(), &told.keys().copied().collect(), "lifecycle events");
    for (id, events) in told {
        let content = &ids[id];
        let event_ids: BTreeSet<&str> = events.iter().map(|event| event.event_id.as_str()).collect();
        assert!(event_ids.len() == 1 && (copies == Copies::Any || events.len() == 1), "{id} is settled once");
        for event in events {
            assert_eq!(event.event_type, "NotificationSent", "{id}");
            assert_eq!(event.aggregate_id, content.aggregate_id, "{id}");
            assert_eq!(event.metadata.correlation_id.as_deref(), Some(content.correlation_id.as_str()), "{id}");
            envelope_and_headers(event, None);
        }
    }
}

/// Every refused record has its dead letter, and nothing else has one.
#[track_caller]
pub fn dead_letters(refused: &[Refused<'_>], story: &Story, copies: Copies) {
    for refused in refused {
        let (sent, input) = (refused.sent, &refused.sent.input);
        let letters = story.letters_about(&sent.topic, sent.partition, sent.offset);
        assert!(!letters.is_empty(), "no dead letter for {refused:?}");
        assert!(copies == Copies::Any || letters.len() == 1, "{} dead letters for {refused:?}", letters.len());
        for letter in letters {
            sound_letter(letter);
            assert_eq!(
                (letter.stage.as_str(), letter.error_class.as_str()),
                (refused.stage, "permanent"),
                "{letter:?}"
            );
            assert_eq!(letter.retry_count, 0, "what will never work is not tried again: {letter:?}");
            let names_field = refused.names.iter().any(|name| letter.failure_reason.contains(name));
            assert!(names_field || refused.names.is_empty(), "{:?} in: {}", refused.names, letter.failure_reason);
            let record = letter.record();
            assert_eq!(record.key, input.key, "the key is the original one");
            let kept = |(name, value): &(String, Option<Vec<u8>>)| record.has_header(name, value.as_deref());
            assert!(input.headers.iter().all(kept), "the headers stay: {:?} {:?}", input.headers, record.headers);
            if letter.original_message_encoding != "parked" {
                assert_eq!(letter.original(), input.value, "the value comes back byte for byte");
            }
        }
    }
    let places: BTreeSet<_> =
        refused.iter().map(|r| (r.sent.topic.as_str(), Some(r.sent.partition), Some(r.sent.offset))).collect();
    let stray = story
        .letters
        .iter()
        .find(|l| !places.contains(&(l.original_topic.as_str(), l.original_partition, l.original_offset)));
    assert!(stray.is_none(), "a dead letter that nobody expects: {stray:?}");
}

/// What holds for every dead letter.
#[track_caller]
pub fn sound_letter(letter: &DeadLetter) {
    let snake = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    assert!(snake(&letter.error_code), "{letter:?}");
    assert!(!letter.failure_reason.is_empty() && !letter.fingerprint.is_empty(), "{letter:?}");
    assert!(letter.service_name == "notification-service" && !letter.service_version.is_empty(), "{letter:?}");
    for timestamp in [&letter.first_failure_timestamp, &letter.last_failure_timestamp] {
        assert!(timestamp.parse::<jiff::Timestamp>().is_ok(), "{letter:?}");
    }
    let record = letter.record();
    assert_eq!(record.header("originalTopic"), letter.original_topic);
    assert!(!record.header("error").is_empty());
}

/// What holds for everything that the service publishes on `notification-events`.
#[track_caller]
fn envelope_and_headers(published: &Published, continued: Option<&str>) {
    let record = published.record();
    assert_eq!((published.version, published.metadata.source.as_str()), (1, "notification-service"));
    assert!(published.timestamp.ends_with('Z') && published.timestamp.parse::<jiff::Timestamp>().is_ok());
    assert_eq!(record.key.as_deref(), Some(published.aggregate_id.as_bytes()), "the key is the aggregate's id");
    for (name, value) in [
        ("eventType", published.event_type.as_str()),
        ("source", "notification-service"),
        ("timestamp", published.timestamp.as_str()),
        ("aggregateId", published.aggregate_id.as_str()),
    ] {
        assert_eq!(record.header(name), value, "header {name}");
    }
    let trace = record.header("traceparent");
    let parts: Vec<usize> = trace.split('-').map(str::len).collect();
    assert_eq!(parts, [2, 32, 16, 2], "a traceparent: {trace}");
    if let Some(incoming) = continued {
        assert_eq!(trace[..35], incoming[..35], "the trace goes on");
        assert_ne!(trace[36..52], incoming[36..52], "with a span of its own");
    }
}

/// Two sets are the same; else some of what is missing and of what is too much.
#[track_caller]
fn same<T: Ord + Debug>(expected: &BTreeSet<T>, found: &BTreeSet<T>, what: &str) {
    let missing: Vec<_> = expected.difference(found).collect();
    let stray: Vec<_> = found.difference(expected).collect();
    let some = |all: &[&T]| format!("{:#?}", &all[..all.len().min(3)]);
    assert!(
        missing.is_empty() && stray.is_empty(),
        "{what}: {} missing, such as {}\n{} too many, such as {}",
        missing.len(),
        some(&missing),
        stray.len(),
        some(&stray)
    );
}
