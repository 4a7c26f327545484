//! The relay over in-memory parts: what is published, what is parked, and what stays in the outbox when something fails.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::outbox_relay::OutboxRelay;
use crate::consume::durable_publish::DurablePublisher;
use crate::domain::dead_letter::{DeadLetter, Failure, Origin, Stage};
use crate::domain::envelope::raw_json;
use crate::domain::error::ErrorClass;
use crate::domain::ids::dead_letter_id;
use crate::domain::record::{Headers, OutboundRecord};
use crate::ports::clock::Clock;
use crate::ports::dead_letters::{DeadLetterError, DeadLetterSink};
use crate::ports::ledger::{LedgerError, OutboxKind, OutboxMessage};
use crate::ports::manual_clock::ManualClock;
use crate::ports::outbox::{Added, Flaw, FreshEvents, Outbox, Waiting};
use crate::ports::publisher::{Acks, EventPublisher, PublishError};
use crate::resilience::breaker::{BreakerPolicy, Order};
use crate::resilience::breaker_cell::BreakerCell;

/// For how long who settles holds fresh events, and a relay what it took from the table, in milliseconds.
const FRESH: i64 = 15_000;
const TAKEN: i64 = 30_000;
/// The broker refuses an event of this name.
const TOO_LARGE: &str = "too large";
/// When what the events tell of happened.
const SETTLED: &str = "1969-12-31T23:00:00.000Z";

fn millis(count: i64) -> Duration {
    Duration::from_millis(count.unsigned_abs())
}

struct Row {
    id: i64,
    kind: OutboxKind,
    messages: Vec<OutboxMessage>,
    flaw: Option<Flaw>,
    reserved_until: i64,
}

/// What all instances share.
type Table = Arc<Mutex<Vec<Row>>>;

fn rows(table: &Table) -> usize {
    table.lock().expect("lock").len()
}

/// The outbox as one instance has it.
struct MemoryOutbox {
    table: Table,
    fresh: Mutex<VecDeque<FreshEvents>>,
    added: watch::Sender<Added>,
    /// Rows that it reserved so far.
    taken: AtomicUsize,
    /// So many removals fail.
    stuck: AtomicUsize,
}

#[async_trait]
impl Outbox for MemoryOutbox {
    fn fresh(&self) -> Option<FreshEvents> {
        self.fresh.lock().expect("lock").pop_front()
    }

    async fn reserve(&self, now_ms: i64, until_ms: i64, limit: usize) -> Result<Vec<Waiting>, LedgerError> {
        let mut table = self.table.lock().expect("lock");
        let free = table.iter_mut().filter(|row| row.reserved_until <= now_ms).take(limit);
        let waiting: Vec<Waiting> = free
            .map(|row| {
                row.reserved_until = until_ms;
                let Row { id, kind, messages, flaw, .. } = row;
                Waiting { id: *id, kind: *kind, messages: messages.clone(), flaw: flaw.clone() }
            })
            .collect();
        self.taken.fetch_add(waiting.len(), Ordering::SeqCst);
        Ok(waiting)
    }

    async fn remove(&self, ids: &[i64]) -> Result<(), LedgerError> {
        if one_less(&self.stuck) {
            return Err(LedgerError::Unavailable("away".into()));
        }
        self.table.lock().expect("lock").retain(|row| !ids.contains(&row.id));
        Ok(())
    }

    fn added(&self) -> watch::Receiver<Added> {
        self.added.subscribe()
    }
}

/// Counts down; false at zero. Nobody else counts at the same time.
fn one_less(left: &AtomicUsize) -> bool {
    let some = left.load(Ordering::SeqCst) > 0;
    left.fetch_sub(usize::from(some), Ordering::SeqCst);
    some
}

/// Acknowledges all but [`TOO_LARGE`] and its company, or says that it is away.
#[derive(Default)]
struct MemoryBroker {
    table: Table,
    /// So many calls find it away.
    away: AtomicUsize,
    /// Acknowledgements wait for this.
    late: Option<Arc<Notify>>,
    /// Told of each call.
    asked: Notify,
    /// The rows that were in the outbox at each call.
    calls: Mutex<Vec<usize>>,
    /// Names of events.
    written: Mutex<Vec<String>>,
}

#[async_trait]
impl EventPublisher for MemoryBroker {
    async fn publish(&self, records: &[OutboundRecord]) -> Acks {
        self.calls.lock().expect("lock").push(rows(&self.table));
        let away = one_less(&self.away);
        let name = |record: &OutboundRecord| -> String { serde_json::from_slice(&record.value).expect("a name") };
        let names: Vec<String> = records.iter().map(name).collect();
        let refused = names.iter().any(|name| name == TOO_LARGE);
        let mut failures = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            if away {
                failures.push((index, PublishError::Unavailable("away".into())));
            } else if refused {
                let reason = "so many bytes".into();
                failures.push((index, PublishError::Rejected { code: "message_too_large", reason }));
            } else {
                self.written.lock().expect("lock").push(name);
            }
        }
        self.asked.notify_one();
        let late = self.late.clone();
        Box::pin(async move {
            match late {
                Some(late) => late.notified().await,
                None => tokio::task::yield_now().await,
            }
            failures
        })
    }

    async fn flush(&self, _: Duration) -> bool {
        true
    }
}

#[derive(Default)]
struct MemoryDeadLetters {
    table: Table,
    /// So many calls fail.
    away: AtomicUsize,
    /// The rows that were in the outbox at each call that did not fail.
    calls: Mutex<Vec<usize>>,
    letters: Mutex<Vec<DeadLetter>>,
}

#[async_trait]
impl DeadLetterSink for MemoryDeadLetters {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        if one_less(&self.away) {
            return Err(DeadLetterError("the topic is away".into()));
        }
        self.calls.lock().expect("lock").push(rows(&self.table));
        self.letters.lock().expect("lock").extend(letters);
        Ok(())
    }
}

struct Bench {
    table: Table,
    broker: Arc<MemoryBroker>,
    letters: Arc<MemoryDeadLetters>,
    clock: Arc<ManualClock>,
    breaker: Arc<BreakerCell>,
}

/// One process.
struct Instance {
    outbox: Arc<MemoryOutbox>,
    relay: Arc<OutboxRelay>,
}

fn bench() -> Bench {
    with_broker(MemoryBroker::default())
}

fn with_broker(broker: MemoryBroker) -> Bench {
    let (table, clock) = (Arc::clone(&broker.table), Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)));
    let letters = MemoryDeadLetters { table: Arc::clone(&table), ..MemoryDeadLetters::default() };
    let breaker = BreakerCell::new("kafka", BreakerPolicy::strict(99), clock.clone());
    Bench { table, broker: Arc::new(broker), letters: Arc::new(letters), clock, breaker }
}

/// A broker whose acknowledgements wait for what is returned too.
fn late_broker() -> (MemoryBroker, Arc<Notify>) {
    let late = Arc::new(Notify::new());
    (MemoryBroker { late: Some(Arc::clone(&late)), ..MemoryBroker::default() }, late)
}

fn event(name: &str) -> OutboxMessage {
    let mut headers = Headers::default();
    headers.push("eventType", Some(b"NotificationSent"));
    headers.push("timestamp", Some(SETTLED.as_bytes()));
    OutboxMessage { kind: OutboxKind::Lifecycle, key: Some(name.into()), headers, body: raw_json(&name) }
}

fn events(names: &[&str]) -> Vec<OutboxMessage> {
    names.iter().map(|name| event(name)).collect()
}

/// The dead letter of a notification, as it waits.
fn letter(about: &str) -> OutboxMessage {
    let origin = Origin {
        topic: "notification-events".into(),
        partition: Some(1),
        offset: Some(7),
        key: None,
        value: Some(about.into()),
        headers: Headers::default(),
    };
    let failure = Failure::new(ErrorClass::Permanent, "no_provider", "nobody", Timestamp::UNIX_EPOCH);
    let body = raw_json(&DeadLetter { origin, stage: Stage::Delivery, failure, event_type: None });
    OutboxMessage { kind: OutboxKind::DeadLetter, key: None, headers: Headers::default(), body }
}

impl Bench {
    fn instance(&self) -> Instance {
        let outbox = Arc::new(MemoryOutbox {
            table: Arc::clone(&self.table),
            fresh: Mutex::default(),
            added: watch::Sender::new(Added::default()),
            taken: AtomicUsize::new(0),
            stuck: AtomicUsize::new(0),
        });
        let relay = OutboxRelay {
            outbox: outbox.clone(),
            publisher: DurablePublisher::new(self.broker.clone(), Arc::clone(&self.breaker), Duration::from_secs(5)),
            dead_letters: self.letters.clone(),
            topic: "notification-events".into(),
            clock: self.clock.clone(),
        };
        Instance { outbox, relay: Arc::new(relay) }
    }

    /// Adds a row; returns its id.
    fn add(&self, kind: OutboxKind, messages: Vec<OutboxMessage>, flaw: Option<Flaw>, reserved_until: i64) -> i64 {
        let mut table = self.table.lock().expect("lock");
        let id = table.last().map_or(1, |row| row.id + 1);
        table.push(Row { id, kind, messages, flaw, reserved_until });
        id
    }

    fn add_events(&self, names: &[&str]) {
        self.add(OutboxKind::Lifecycle, events(names), None, 0);
    }

    /// What this instance settled a moment ago.
    fn settle(&self, instance: &Instance, names: &[&str]) {
        let reserved_until_ms = self.clock.now().as_millisecond() + FRESH;
        let id = self.add(OutboxKind::Lifecycle, events(names), None, reserved_until_ms);
        let fresh = FreshEvents { ids: vec![id], messages: events(names), reserved_until_ms };
        instance.outbox.fresh.lock().expect("lock").push_back(fresh);
    }

    fn rows(&self) -> usize {
        rows(&self.table)
    }

    fn written(&self) -> Vec<String> {
        self.broker.written.lock().expect("lock").clone()
    }

    fn letters(&self) -> Vec<DeadLetter> {
        self.letters.letters.lock().expect("lock").clone()
    }
}

impl Instance {
    /// Relays what there is, until nothing is left or something fails.
    async fn drain(&self) {
        let stop = CancellationToken::new();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.relay.run(stop)).await.expect("it ends");
    }

    /// Relays in the background.
    fn start(&self) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let (relay, stop) = (Arc::clone(&self.relay), CancellationToken::new());
        let stopping = stop.clone();
        (stop, tokio::spawn(async move { relay.run(stopping).await }))
    }
}

/// The letter's message, as text.
fn value(letter: &DeadLetter) -> &str {
    std::str::from_utf8(letter.origin.value.as_deref().expect("a value")).expect("a text")
}

#[tokio::test]
async fn events_are_published_in_their_order_and_removed() {
    let bench = bench();
    bench.add_events(&["a", "b"]);
    bench.add(OutboxKind::DeadLetter, vec![letter("request")], None, 0);
    bench.add_events(&["c"]);
    bench.instance().drain().await;
    assert_eq!(bench.written(), ["a", "b", "c"]);
    assert_eq!(bench.letters().iter().map(value).collect::<Vec<_>>(), ["request"]);
    assert_eq!(bench.rows(), 0);
}

#[tokio::test]
async fn fresh_events_are_published_without_being_reserved() {
    let (bench, late) = (bench(), events(&["c"]));
    let instance = bench.instance();
    bench.settle(&instance, &["a", "b"]);
    bench.add(OutboxKind::Lifecycle, late, None, FRESH);
    instance.drain().await;
    assert_eq!(bench.written(), ["a", "b"]);
    assert_eq!(
        (instance.outbox.taken.load(Ordering::SeqCst), bench.rows()),
        (0, 1),
        "the other one is somebody else's"
    );
}

#[tokio::test]
async fn fresh_events_of_a_dead_instance_are_published_when_their_reservation_ends() {
    let bench = bench();
    let (dead, heir) = (bench.instance(), bench.instance());
    bench.settle(&dead, &["a"]);
    drop(dead);
    bench.clock.pass(millis(FRESH - 1));
    heir.drain().await;
    assert_eq!((bench.written().len(), bench.rows()), (0, 1), "it may live");
    bench.clock.pass(millis(1));
    heir.drain().await;
    assert_eq!((bench.written(), bench.rows()), (vec!["a".to_owned()], 0));
}

#[tokio::test]
async fn fresh_events_that_waited_too_long_are_left_to_the_end_of_their_reservation() {
    let bench = bench();
    let instance = bench.instance();
    bench.settle(&instance, &["a"]);
    bench.clock.pass(millis(FRESH - 5000));
    instance.drain().await;
    assert_eq!((bench.written().len(), bench.rows()), (0, 1), "another instance might take it meanwhile");
    bench.clock.pass(millis(5000));
    instance.drain().await;
    assert_eq!((bench.written(), bench.rows()), (vec!["a".to_owned()], 0));
}

#[tokio::test]
async fn while_the_broker_does_not_take_them_events_stay_and_are_tried_again() {
    let bench = with_broker(MemoryBroker { away: AtomicUsize::new(2), ..MemoryBroker::default() });
    bench.add_events(&["a", "b"]);
    bench.instance().drain().await;
    assert_eq!(*bench.broker.calls.lock().expect("lock"), [1, 1, 1], "it was away twice, and the row stayed");
    assert_eq!((bench.written(), bench.rows()), (vec!["a".to_owned(), "b".to_owned()], 0));
    assert!(bench.letters().is_empty(), "nothing is dead-lettered for an outage");
}

#[tokio::test]
async fn while_the_breaker_is_open_nothing_is_reserved() {
    let bench = bench();
    let instance = bench.instance();
    bench.add_events(&["a"]);
    bench.breaker.obey(Order::Open);
    instance.drain().await;
    assert_eq!((instance.outbox.taken.load(Ordering::SeqCst), bench.rows()), (0, 1));
    bench.breaker.obey(Order::Close);
    instance.drain().await;
    assert_eq!((bench.written(), bench.rows()), (vec!["a".to_owned()], 0));
}

#[tokio::test]
async fn a_refused_event_is_a_dead_letter_and_the_others_go_on() {
    let bench = bench();
    let instance = bench.instance();
    bench.settle(&instance, &["a", TOO_LARGE, "b"]);
    bench.add_events(&[TOO_LARGE, "c"]);
    instance.drain().await;
    assert_eq!((bench.written(), bench.rows()), (["a", "b", "c"].map(str::to_owned).to_vec(), 0));
    let letters = bench.letters();
    assert_eq!(letters.len(), 2);
    assert_eq!(*bench.letters.calls.lock().expect("lock"), [2, 1], "each was parked before its row went");
    let DeadLetter { origin, failure, .. } = &letters[0];
    assert_eq!((origin.topic.as_str(), origin.partition, origin.offset), ("notification-events", None, None));
    assert_eq!((value(&letters[0]), origin.key.as_deref()), (r#""too large""#, Some(TOO_LARGE.as_bytes())));
    assert_eq!(origin.headers, event(TOO_LARGE).headers);
    assert_eq!((letters[0].stage, letters[0].event_type.as_deref()), (Stage::Delivery, Some("NotificationSent")));
    assert_eq!((failure.class, failure.code.as_str()), (ErrorClass::Permanent, "message_too_large"));
    assert_eq!(failure.reason, "Kafka refuses the lifecycle event: so many bytes");
    assert_eq!((failure.last_at.to_string().as_str(), failure.first_at), ("1969-12-31T23:00:00Z", failure.last_at));
}

#[tokio::test]
async fn a_refused_event_stays_until_it_is_parked() {
    let bench = bench();
    let instance = bench.instance();
    bench.add_events(&["a", TOO_LARGE]);
    bench.letters.away.store(1, Ordering::SeqCst);
    instance.drain().await;
    assert_eq!(bench.letters.away.load(Ordering::SeqCst), 0, "the fault happened");
    assert_eq!((bench.letters().len(), bench.rows()), (0, 1));
    bench.add_events(&["b"]);
    instance.drain().await;
    assert_eq!((bench.written(), bench.rows()), (vec!["a".to_owned(), "b".to_owned()], 1), "it holds up nobody");
    bench.clock.pass(millis(TAKEN));
    instance.drain().await;
    assert_eq!((bench.letters().len(), bench.rows()), (1, 0));
}

#[tokio::test]
async fn what_is_parked_again_after_a_crash_is_the_same_letter() {
    for (kind, message) in [(OutboxKind::Lifecycle, event(TOO_LARGE)), (OutboxKind::DeadLetter, event("no letter"))] {
        let bench = bench();
        let instance = bench.instance();
        bench.add(kind, vec![message], None, 0);
        instance.outbox.stuck.store(1, Ordering::SeqCst);
        instance.drain().await;
        assert_eq!((bench.letters().len(), bench.rows()), (1, 1), "it ended before the row was removed");
        bench.clock.pass(millis(TAKEN));
        instance.drain().await;
        let ids: Vec<String> = bench.letters().iter().map(dead_letter_id).collect();
        assert_eq!((ids.len(), bench.rows()), (2, 0));
        assert_eq!(ids[0], ids[1]);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_dead_letter_about_itself() {
    let bench = bench();
    let flaw = Flaw { reason: "no list".into(), text: "[{]".into() };
    bench.add(OutboxKind::Lifecycle, Vec::new(), Some(flaw), 0);
    bench.add(OutboxKind::DeadLetter, vec![event("no letter")], None, 0);
    bench.add(OutboxKind::DeadLetter, vec![letter("request")], None, 0);
    bench.add_events(&["a"]);
    bench.instance().drain().await;
    assert_eq!((bench.written(), bench.rows()), (vec!["a".to_owned()], 0));
    let letters = bench.letters();
    assert_eq!(letters.iter().map(value).collect::<Vec<_>>(), ["[{]", r#""no letter""#, "request"]);
    for letter in &letters[..2] {
        assert_eq!((letter.origin.topic.as_str(), letter.failure.code.as_str()), ("outbox", "unreadable_outbox"));
        assert_eq!((letter.stage, letter.failure.class), (Stage::Delivery, ErrorClass::Permanent));
    }
    assert_eq!(letters[0].failure.reason, "what waits in the outbox cannot be read: no list");
    assert_eq!(*bench.letters.calls.lock().expect("lock"), [3], "parked before the rows went");
}

#[tokio::test]
async fn a_stop_waits_for_what_is_being_published() {
    let (broker, late) = late_broker();
    let bench = with_broker(broker);
    bench.add_events(&["a"]);
    let (stop, relay) = bench.instance().start();
    bench.broker.asked.notified().await;
    stop.cancel();
    // It has seen the stop by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((relay.is_finished(), bench.rows()), (false, 1), "nobody has acknowledged it");
    late.notify_one();
    tokio::time::timeout(Duration::from_secs(10), relay).await.expect("it ends").expect("no panic");
    assert_eq!((bench.written(), bench.rows()), (vec!["a".to_owned()], 0));
}

#[tokio::test]
async fn what_a_dead_relay_had_in_hand_is_published_when_its_reservation_ends() {
    let (broker, late) = late_broker();
    let bench = with_broker(broker);
    let heir = bench.instance();
    bench.add_events(&["a"]);
    let (_, relay) = bench.instance().start();
    bench.broker.asked.notified().await;
    relay.abort();
    assert!(relay.await.is_err_and(|e| e.is_cancelled()), "it died in the middle");
    bench.clock.pass(millis(TAKEN - 1));
    heir.drain().await;
    assert_eq!((bench.written().len(), bench.rows()), (1, 1), "it is another one's still");
    bench.clock.pass(millis(1));
    late.notify_one();
    heir.drain().await;
    assert_eq!((bench.written(), bench.rows()), (vec!["a".to_owned(), "a".to_owned()], 0), "and nothing is lost");
}

#[tokio::test]
async fn two_relays_publish_no_event_twice_while_their_reservations_hold() {
    let bench = bench();
    let names: Vec<String> = (100..220).map(|n| n.to_string()).collect();
    names.iter().for_each(|name| bench.add_events(&[name.as_str()]));
    let (one, two) = (bench.instance(), bench.instance());
    bench.settle(&one, &["fresh"]);
    tokio::join!(one.drain(), two.drain());
    let mut written = bench.written();
    written.sort_unstable();
    assert_eq!((written.pop().as_deref(), bench.rows()), (Some("fresh"), 0));
    assert_eq!(written, names);
    let taken = [&one, &two].map(|instance| instance.outbox.taken.load(Ordering::SeqCst));
    assert!(taken.iter().all(|rows| *rows > 0), "there was no contest: {taken:?}");
}
