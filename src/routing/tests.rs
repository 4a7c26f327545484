//! The stage in its loop, over in-memory parts: retries, order per key, panics, outages, dead letters before offsets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

mod stopping;

use super::RoutingStage;
use crate::adapters::memory::MemoryProcessedEvents;
use crate::consume::dedup::{Dedup, Reliance};
use crate::consume::durable_publish::DurablePublisher;
use crate::consume::engine::{Engine, Limits};
use crate::domain::dead_letter::{DeadLetter, Failure};
use crate::domain::error::ErrorClass;
use crate::domain::record::{Coordinates, Headers, OutboundRecord, Record};
use crate::handlers::{HandlerError, Output, Registry};
use crate::ports::clock::{Clock as _, SharedClock, SystemClock};
use crate::ports::dead_letters::{DeadLetterError, DeadLetterSink};
use crate::ports::publisher::{Acks, EventPublisher, PublishError};
use crate::ports::source::{EventSource, PauseReason, Settled, SourceEnded, SourceStatus};
use crate::resilience::breaker::{BreakerPolicy, Position};
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::retry::RetryPolicy;
use crate::telemetry::group_metrics::GroupMetrics;

/// Gives out what it is given, and remembers what was settled.
#[derive(Default)]
struct MemorySource {
    waiting: Mutex<VecDeque<Record>>,
    settled: Mutex<Vec<i64>>,
    changed: Notify,
}

#[async_trait]
impl EventSource for MemorySource {
    async fn next_batch(&self, max: usize) -> Result<Vec<Record>, SourceEnded> {
        let batch: Vec<Record> = {
            let mut waiting = self.waiting.lock().expect("lock");
            let take = max.min(waiting.len());
            waiting.drain(..take).collect()
        };
        if batch.is_empty() { std::future::pending().await } else { Ok(batch) }
    }

    fn settle(&self, records: &[Settled]) {
        self.settled.lock().expect("lock").extend(records.iter().map(|r| r.at.offset));
        self.changed.notify_one();
    }

    fn pause(&self, _: PauseReason) {}
    fn resume(&self, _: &PauseReason) {}
    fn status(&self) -> SourceStatus {
        SourceStatus::default()
    }
    async fn close(&self, _: Duration) {}
}

/// Acknowledges, or while it is away says that it is.
#[derive(Default)]
struct MemoryBroker {
    away: AtomicBool,
    written: Mutex<Vec<String>>,
    /// Acknowledgements wait for this.
    late: Option<Arc<Notify>>,
}

#[async_trait]
impl EventPublisher for MemoryBroker {
    async fn publish(&self, records: &[OutboundRecord]) -> Acks {
        let failures = if self.away.load(Ordering::SeqCst) {
            (0..records.len()).map(|i| (i, PublishError::Unavailable("away".into()))).collect()
        } else {
            let keys =
                records.iter().map(|r| String::from_utf8_lossy(r.key.as_deref().unwrap_or_default()).into_owned());
            self.written.lock().expect("lock").extend(keys);
            Vec::new()
        };
        let late = self.late.clone();
        Box::pin(async move {
            if let Some(late) = late {
                late.notified().await;
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
    failures_left: AtomicUsize,
    refused: AtomicUsize,
    letters: Mutex<Vec<DeadLetter>>,
}

#[async_trait]
impl DeadLetterSink for MemoryDeadLetters {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        if self.failures_left.load(Ordering::SeqCst) > 0 {
            self.failures_left.fetch_sub(1, Ordering::SeqCst);
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(DeadLetterError("the topic is away".into()));
        }
        self.letters.lock().expect("lock").extend(letters);
        Ok(())
    }
}

struct Bench {
    source: Arc<MemorySource>,
    broker: Arc<MemoryBroker>,
    letters: Arc<MemoryDeadLetters>,
    breaker: Arc<BreakerCell>,
    stop: CancellationToken,
    engine: tokio::task::JoinHandle<Result<(), SourceEnded>>,
}

fn event(offset: i64, key: &str, event_type: &str) -> Record {
    let json = format!(
        r#"{{"eventId":"e-{offset}","eventType":"{event_type}","aggregateId":"{key}","version":1,
            "timestamp":"2026-01-15T10:30:00Z","data":{{"orderId":"{key}","customerId":"c","amount":1}}}}"#
    );
    Record {
        at: Coordinates { topic: "order-events".into(), partition: 0, offset },
        assignment: 1,
        key: Some(key.as_bytes().into()),
        value: Some(json.into_bytes().into()),
        headers: Headers::default(),
        flaw: None,
    }
}

/// Starts a routing loop over these records with one more handler, for events of type `Odd`.
fn start(records: Vec<Record>, odd: crate::handlers::Handler, dead_letter_failures: usize) -> Bench {
    build(records, odd, dead_letter_failures, MemoryBroker::default(), remembering())
}

/// A memory of processed events.
fn remembering() -> Dedup {
    let store = MemoryProcessedEvents::new(100, Arc::new(SystemClock::default()));
    Dedup::new(Arc::new(store), Reliance::Local, Duration::from_secs(60))
}

/// As [`start`], with a broker that is away.
fn start_away(records: Vec<Record>) -> Bench {
    build(records, panicking(), 0, away(), remembering())
}

fn away() -> MemoryBroker {
    MemoryBroker { away: AtomicBool::new(true), ..MemoryBroker::default() }
}

fn build(
    records: Vec<Record>,
    odd: crate::handlers::Handler,
    dead_letter_failures: usize,
    broker: MemoryBroker,
    dedup: Dedup,
) -> Bench {
    let clock: SharedClock = Arc::new(SystemClock::default());
    let policy = BreakerPolicy { recovery_timeout: Duration::from_millis(1), ..BreakerPolicy::strict(1) };
    let breaker = BreakerCell::new("kafka", policy, Arc::clone(&clock));
    let source = Arc::new(MemorySource { waiting: Mutex::new(records.into()), ..MemorySource::default() });
    let broker = Arc::new(broker);
    let letters = Arc::new(MemoryDeadLetters {
        failures_left: AtomicUsize::new(dead_letter_failures),
        ..MemoryDeadLetters::default()
    });
    let mut registry = Registry::built_in();
    registry.add("Odd", odd);
    let metrics = Arc::new(GroupMetrics::new("order-events", "test", "routing", &[]));
    let publisher = DurablePublisher::new(broker.clone(), Arc::clone(&breaker), Duration::from_secs(5));
    let stage = RoutingStage::new(
        Arc::new(registry),
        publisher,
        None,
        Some(dedup),
        "notification-events".into(),
        Arc::clone(&clock),
        Arc::clone(&metrics),
    );
    let engine = Engine {
        source: source.clone(),
        stage: Arc::new(stage),
        dead_letters: letters.clone(),
        retry: RetryPolicy { max_retries: 3, initial: Duration::from_millis(2), max: Duration::from_millis(5) },
        limits: Limits { batch: 100, in_flight: 1000, in_flight_bytes: 1 << 20 },
        clock,
        metrics,
    };
    let stop = CancellationToken::new();
    let engine = tokio::spawn(engine.run(stop.clone()));
    Bench { source, broker, letters, breaker, stop, engine }
}

impl Bench {
    async fn until_settled(&self, count: usize) -> Vec<i64> {
        let wait = async {
            loop {
                let mut settled = self.source.settled.lock().expect("lock").clone();
                if settled.len() >= count {
                    settled.sort_unstable();
                    return settled;
                }
                self.source.changed.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("settled in time")
    }

    fn written(&self) -> Vec<String> {
        self.broker.written.lock().expect("lock").clone()
    }

    fn codes(&self) -> Vec<(String, ErrorClass, u32)> {
        let letters = self.letters.letters.lock().expect("lock");
        letters.iter().map(|l| (l.failure.code.clone(), l.failure.class, l.failure.retries)).collect()
    }

    async fn end(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.engine).await.expect("ends in time");
        ended.expect("no panic").expect("no error");
    }
}

fn panicking() -> crate::handlers::Handler {
    Arc::new(|_| panic!("a defect"))
}

fn forbidden() -> crate::handlers::Handler {
    Arc::new(|_| Err(HandlerError::Rejected { code: "forbidden", reason: "never".into() }))
}

#[tokio::test]
async fn a_panic_costs_one_record_and_the_others_go_on() {
    let records = vec![event(0, "a", "OrderCreated"), event(1, "b", "Odd"), event(2, "c", "OrderCreated")];
    let bench = start(records, panicking(), 0);
    assert_eq!(bench.until_settled(3).await, [0, 1, 2]);
    assert_eq!(bench.codes(), [("panic".to_owned(), ErrorClass::Bug, 3)]);
    assert_eq!(bench.written(), ["notification-a", "notification-c"]);
    bench.end().await;
}

#[tokio::test]
async fn a_transient_failure_is_retried_while_its_key_waits_and_other_keys_go_on() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let flaky: crate::handlers::Handler = Arc::new(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err(HandlerError::Transient { code: "busy", reason: "try again".into() }),
        _ => Ok(Output::default()),
    });
    let records = vec![
        event(0, "a", "Odd"),
        event(1, "a", "OrderCreated"),
        event(2, "b", "OrderCreated"),
        event(3, "a", "OrderShipped"),
    ];
    let bench = start(records, flaky, 0);
    assert_eq!(bench.until_settled(4).await, [0, 1, 2, 3]);
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    assert_eq!(bench.written(), ["notification-b", "notification-a", "notification-a-shipping"]);
    assert!(bench.codes().is_empty());
    bench.end().await;
}

#[tokio::test]
async fn a_transient_failure_that_lasts_is_a_dead_letter_with_its_history() {
    let busy: crate::handlers::Handler =
        Arc::new(|_| Err(HandlerError::Transient { code: "busy", reason: "try again".into() }));
    let bench = start(vec![event(0, "a", "Odd")], busy, 0);
    bench.until_settled(1).await;
    assert_eq!(bench.codes(), [("busy".to_owned(), ErrorClass::Transient, 3)]);
    let letters = bench.letters.letters.lock().expect("lock").clone();
    assert!(letters[0].failure.first_at < letters[0].failure.last_at);
    bench.end().await;
}

#[tokio::test]
async fn the_offset_waits_for_the_dead_letter() {
    let bench = start(vec![event(0, "a", "Odd")], panicking(), 3);
    bench.until_settled(1).await;
    assert_eq!(bench.letters.refused.load(Ordering::SeqCst), 3, "the fault happened");
    assert_eq!(bench.codes().len(), 1, "settled only once the letter was durable");
    bench.end().await;
}

#[tokio::test]
async fn a_burst_of_dead_letters_waits_within_the_bounds() {
    let records = (0..10_000).map(|n| event(n, &format!("k{n}"), "Odd")).collect();
    let bench = start(records, forbidden(), usize::MAX);
    let waiting = || bench.source.waiting.lock().expect("lock").len();
    let refused = || bench.letters.refused.load(Ordering::SeqCst);
    let stuck = async {
        while refused() < 10 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), stuck).await.expect("ten batches wait for their letters");
    assert_eq!(waiting(), 9_000, "the loop has what it may have, and the rest waits at its source");
    bench.letters.failures_left.store(0, Ordering::SeqCst);
    bench.until_settled(10_000).await;
    assert_eq!(bench.codes().len(), 10_000);
    bench.end().await;
}

#[tokio::test]
async fn an_outage_of_the_broker_dead_letters_nothing_and_ends_by_itself() {
    let records = (0..200).map(|n| event(n, &format!("k{n}"), "OrderCreated")).collect();
    let bench = start_away(records);
    let mut position = bench.breaker.watch();
    let opened = position.wait_for(|p| *p == Position::Open);
    tokio::time::timeout(Duration::from_secs(10), opened).await.expect("opens").expect("lives");
    assert!(bench.source.settled.lock().expect("lock").is_empty());
    bench.broker.away.store(false, Ordering::SeqCst);
    // What the breaker's actor does: time passes, a probe succeeds.
    while bench.breaker.position() != Position::Closed {
        bench.breaker.tick();
        if bench.breaker.position() == Position::HalfOpen
            && let Some(permit) = bench.breaker.acquire()
        {
            permit.report(crate::resilience::breaker::CallOutcome::Success);
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.until_settled(200).await.len(), 200);
    assert!(bench.codes().is_empty(), "nothing is dead-lettered for an outage");
    assert_eq!(bench.written().len(), 200);
    bench.end().await;
}

#[tokio::test]
async fn an_event_that_comes_again_is_settled_without_an_effect() {
    let again = |offset| Record {
        at: Coordinates { topic: "order-events".into(), partition: 0, offset },
        ..event(0, "a", "OrderCreated")
    };
    let bench = start(vec![again(0), again(1), event(2, "b", "OrderCreated"), again(3)], panicking(), 0);
    bench.until_settled(4).await;
    assert_eq!(bench.written(), ["notification-a", "notification-b"]);
    bench.end().await;
}

#[tokio::test]
async fn what_died_is_no_duplicate_when_it_comes_again_mended() {
    let mended = |offset| Record {
        at: Coordinates { topic: "order-events".into(), partition: 0, offset },
        ..event(0, "a", "OrderCreated")
    };
    let memory = remembering();
    let first = build(vec![event(0, "a", "Odd")], forbidden(), 0, MemoryBroker::default(), memory.clone());
    first.until_settled(1).await;
    assert_eq!(first.codes().len(), 1);
    first.end().await;
    let second = build(vec![mended(1), mended(2)], forbidden(), 0, MemoryBroker::default(), memory);
    second.until_settled(2).await;
    assert_eq!(second.written(), ["notification-a"], "once");
    second.end().await;
}

#[tokio::test]
async fn an_event_whose_request_was_not_written_is_no_duplicate_when_it_comes_again() {
    let memory = remembering();
    let first = build(vec![event(0, "a", "OrderCreated")], panicking(), 0, away(), memory.clone());
    let mut position = first.breaker.watch();
    position.wait_for(|p| *p == Position::Open).await.expect("the broker is away");
    first.stop.cancel();
    first.engine.await.expect("no panic").expect("an orderly end");
    assert!(first.broker.written.lock().expect("lock").is_empty());
    let second = build(vec![event(0, "a", "OrderCreated")], panicking(), 0, MemoryBroker::default(), memory);
    second.until_settled(1).await;
    assert_eq!(second.written(), ["notification-a"]);
    second.end().await;
}

#[tokio::test]
async fn what_its_source_found_flawed_is_a_dead_letter_that_no_handler_has_seen() {
    let mut flawed = event(0, "a", "Odd");
    let now = SystemClock::default().now();
    let failure = Failure { retries: 6, ..Failure::new(ErrorClass::Bug, "poison_entry", "again and again", now) };
    flawed.flaw = Some(Box::new(failure));
    let never: crate::handlers::Handler = Arc::new(|_| std::process::abort());
    let bench = start(vec![flawed, event(1, "a", "OrderCreated")], never, 1);
    assert_eq!(bench.until_settled(2).await, [0, 1]);
    assert_eq!(bench.codes(), [("poison_entry".to_owned(), ErrorClass::Bug, 6)], "at once, whatever its class");
    assert_eq!(bench.letters.refused.load(Ordering::SeqCst), 1, "and it was waited for");
    assert_eq!(bench.written(), ["notification-a"]);
    bench.end().await;
}
