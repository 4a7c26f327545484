//! The input: events without end from a seed, at a steady pace, each one accounted for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};

use super::ledger::{Due, Ledger};
use crate::support::events::Input;
use crate::support::kafka::Kafka;
use crate::support::mix;
use crate::support::producer::record_of;
use crate::support::wait::{self, secs};

/// The header with the record's number: a dead letter keeps it.
pub const NUMBER: &str = "number";
/// Orders and customers are so few that each comes again and again, also around a fault.
const KEYS: usize = 30_000;

/// Shared with the producer's callbacks.
#[derive(Default)]
struct Account {
    numbers: AtomicU64,
    ledger: Mutex<Ledger>,
    /// Requests that the acknowledged input makes due.
    due: AtomicU64,
    appended: AtomicU64,
    /// Records that Kafka has refused.
    refused: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Reports(Arc<Account>);

/// Produces straight to the brokers, past the proxies.
#[derive(Clone)]
pub struct Feed {
    producer: Arc<ThreadedProducer<Reports>>,
    kafka: Kafka,
    account: Arc<Account>,
}

/// A feed at work in the background.
pub struct Feeder {
    pub feed: Feed,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    /// The record's number, and what must come of it.
    type DeliveryOpaque = Box<(u64, Due)>;

    fn delivery(&self, result: &DeliveryResult<'_>, record: Box<(u64, Due)>) {
        let (number, due) = *record;
        match result {
            Ok(_) => {
                self.0.ledger.lock().expect("no panic").enter(number, due);
                self.0.appended.fetch_add(1, Ordering::Relaxed);
                self.0.due.fetch_add(u64::from(matches!(due, Due::Request { .. })), Ordering::Relaxed);
            }
            Err((error, _)) => self.0.refused.lock().expect("no panic").push(error.to_string()),
        }
    }
}

impl Feed {
    fn to(kafka: &Kafka) -> Self {
        let account = Arc::new(Account::default());
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka.brokers).set("reconnect.backoff.max.ms", "500").set("log_level", "0");
        // However long a broker is away, what is handed over arrives, once and in order.
        config.set("enable.idempotence", "true").set("acks", "all").set("message.timeout.ms", "0");
        config.set("queue.buffering.max.messages", "500000").set("linger.ms", "5");
        let producer = config.create_with_context(Reports(account.clone())).expect("a producer");
        Self { producer: Arc::new(producer), kafka: kafka.clone(), account }
    }

    /// Hands a record over, to the partition of its key or to this one.
    fn send(&self, input: Input, partition: Option<i32>) {
        let topic = self.kafka.named(input.topic);
        let number = self.account.numbers.fetch_add(1, Ordering::Relaxed);
        let input = input.with_header(NUMBER, Some(number.to_string().as_bytes()));
        let mut record = record_of(&topic, &input, Box::new((number, Due::of(&input))));
        record.partition = partition;
        while let Err((error, back)) = self.producer.send(record) {
            let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            assert!(full, "{topic}: {error}");
            record = back;
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Hands a record over to one partition.
    pub fn probe(&self, input: Input, partition: i32) {
        self.send(input, Some(partition));
    }

    /// Records that Kafka has acknowledged.
    pub fn appended(&self) -> u64 {
        self.account.appended.load(Ordering::Relaxed)
    }

    /// Requests that these make due.
    pub fn due(&self) -> u64 {
        self.account.due.load(Ordering::Relaxed)
    }
}

impl Feeder {
    /// Begins to feed so many events a second.
    pub fn start(kafka: &Kafka, seed: u64, per_second: u64) -> Self {
        let (feed, stop) = (Feed::to(kafka), Arc::new(AtomicBool::new(false)));
        let (feeding, stopped) = (feed.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let began = Instant::now();
            for (number, input) in mix::endless(seed, KEYS).enumerate() {
                let due = Duration::from_secs_f64(number as f64 / per_second as f64);
                thread::sleep(due.saturating_sub(began.elapsed()));
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                feeding.send(input, None);
            }
        });
        Self { feed, stop, thread: Some(thread) }
    }

    /// Feeds nothing more, and waits until Kafka has acknowledged everything.
    #[track_caller]
    pub fn finish(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("all of it is handed over");
        let producer = &self.feed.producer;
        wait::until("the input is acknowledged", secs(120), || (producer.in_flight_count() == 0).then_some(()));
        let account = &self.feed.account;
        let refused = account.refused.lock().expect("no panic");
        assert!(refused.is_empty(), "Kafka refuses some of the input: {refused:?}");
        std::mem::take(&mut *account.ledger.lock().expect("no panic"))
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
