//! Puts a test's input on its topics and learns where each record came to stand.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::util::IntoOpaque;

use super::events::{Input, order_created};
use super::kafka::Kafka;
use super::wait::{self, secs};

/// A record that Kafka has acknowledged.
#[derive(Debug, Clone)]
pub struct Sent {
    pub input: Input,
    /// The topic's real name.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// Input on its way, at a steady pace.
pub struct Load(JoinHandle<Vec<Sent>>);

impl Load {
    /// Waits until all of it is acknowledged.
    #[track_caller]
    pub fn finish(self) -> Vec<Sent> {
        self.0.join().expect("the load is on its topics")
    }
}

impl Kafka {
    /// Produces all of it as fast as Kafka takes it.
    #[track_caller]
    pub fn produce(&self, inputs: Vec<Input>) -> Vec<Sent> {
        produce(self, inputs, None)
    }

    /// Produces one record.
    #[track_caller]
    pub fn produce_one(&self, input: Input) -> Sent {
        self.produce(vec![input]).remove(0)
    }

    /// Produces so many orders, in parts that fit into memory.
    #[track_caller]
    pub fn produce_orders(&self, count: u64) {
        let order =
            |n: u64| order_created(&format!("e-{n}"), &format!("order-{}", n % 5_000), "customer", "9.90").input();
        for part in (0..count).step_by(50_000) {
            self.produce((part..(part + 50_000).min(count)).map(order).collect());
        }
    }

    /// Produces so many records a second, in the background and through outages.
    pub fn produce_steadily(&self, inputs: Vec<Input>, per_second: u32) -> Load {
        let kafka = self.clone();
        Load(thread::spawn(move || produce(&kafka, inputs, Some(per_second))))
    }
}

type Place = Result<(i32, i64), KafkaError>;

/// Where the records came to stand, by their number.
#[derive(Clone)]
struct Places(Arc<Mutex<Vec<Option<Place>>>>);

impl ClientContext for Places {}

impl ProducerContext for Places {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let place = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().expect("no panic")[number] = Some(place);
    }
}

#[track_caller]
fn produce(kafka: &Kafka, inputs: Vec<Input>, per_second: Option<u32>) -> Vec<Sent> {
    let places = Places(Arc::new(Mutex::new(vec![None; inputs.len()])));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5");
    config.set("message.timeout.ms", "120000").set("reconnect.backoff.max.ms", "1000");
    let producer: ThreadedProducer<Places> = config.create_with_context(places.clone()).expect("a producer");
    let began = Instant::now();
    for (number, input) in inputs.iter().enumerate() {
        if let Some(per_second) = per_second {
            let due = Duration::from_secs_f64(number as f64 / f64::from(per_second));
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
        send(&producer, &kafka.named(input.topic), input, number);
    }
    let all = || places.0.lock().expect("no panic").iter().cloned().collect::<Option<Vec<_>>>();
    let acknowledged = wait::until("Kafka acknowledges the input", secs(130), all);
    let sent = inputs.into_iter().zip(acknowledged).map(|(input, place)| {
        let (partition, offset) = place.unwrap_or_else(|error| panic!("{}: {error}", input.topic));
        Sent { topic: kafka.named(input.topic), input, partition, offset }
    });
    sent.collect()
}

fn send(producer: &ThreadedProducer<Places>, topic: &str, input: &Input, number: usize) {
    wait::until("room in the producer's queue", secs(130), || match producer.send(record_of(topic, input, number)) {
        Ok(()) => Some(()),
        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => None,
        Err((error, _)) => panic!("{topic}: {error}"),
    });
}

/// The record of an input, for a producer whose delivery reports carry the opaque.
pub fn record_of<'a, O: IntoOpaque>(topic: &'a str, input: &'a Input, opaque: O) -> BaseRecord<'a, [u8], [u8], O> {
    let insert = |headers: OwnedHeaders, (name, value): &(String, Option<Vec<u8>>)| {
        headers.insert(Header { key: name, value: value.as_deref() })
    };
    let mut record = BaseRecord::with_opaque_to(topic, opaque);
    record = record.headers(input.headers.iter().fold(OwnedHeaders::new(), insert));
    if let Some(key) = &input.key {
        record = record.key(key.as_slice());
    }
    if let Some(value) = &input.value {
        record = record.payload(value.as_slice());
    }
    record
}
