//! Feeding a backlog of orders.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use notification_service::adapters::kafka::ClientSettings;
use rdkafka::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use uuid::Uuid;

use crate::cluster::{Cluster, Stall};

/// Records between two looks for delivery reports.
const REPORTS_EVERY: u64 = 64;

#[derive(Default)]
pub struct Reports {
    pub acknowledged: AtomicU64,
    pub failure: Mutex<Option<String>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
        }
    }
}

pub struct Sender {
    pub producer: BaseProducer<Reports>,
    pub sent: u64,
}

impl Sender {
    pub fn new(settings: &ClientSettings) -> Result<Self> {
        Ok(Self { producer: settings.producer().create_with_context(Reports::default())?, sent: 0 })
    }

    /// One with the settings of the service's own transactions.
    pub fn transactional(settings: &ClientSettings, name: &str) -> Result<Self> {
        Ok(Self { producer: settings.transactional(name).create_with_context(Reports::default())?, sent: 0 })
    }

    pub fn reports(&self) -> &Reports {
        use rdkafka::producer::Producer as _;
        self.producer.context()
    }

    pub fn acknowledged(&self) -> u64 {
        self.reports().acknowledged.load(Ordering::Relaxed)
    }

    pub fn send(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
    ) -> Result<()> {
        let mut stall = None;
        let mut record =
            BaseRecord { topic, partition: None, payload, key, timestamp: None, headers, delivery_opaque: () };
        while let Err((error, back)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error).with_context(|| format!("producing to {topic}"));
            }
            self.producer.poll(Duration::from_millis(1));
            stall.get_or_insert_with(Stall::new).check(self.acknowledged())?;
            record = back;
        }
        self.sent += 1;
        if self.sent.is_multiple_of(REPORTS_EVERY) {
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Waits until so much time has passed since `began`. A poll that waits as shortly as a pace asks for spins, on a core
    /// that the service needs; so this sleeps between polls.
    pub fn wait_until(&self, began: Instant, due: Duration) {
        while let Some(wait) = due.checked_sub(began.elapsed()).filter(|wait| !wait.is_zero()) {
            self.producer.poll(Duration::ZERO);
            thread::sleep(wait.min(Duration::from_millis(1)));
        }
    }

    /// Waits until everything sent is acknowledged.
    pub fn finish(&self) -> Result<()> {
        let mut stall = Stall::new();
        while self.acknowledged() < self.sent {
            self.producer.poll(Duration::from_millis(1));
            if let Some(failure) = &*self.reports().failure.lock().unwrap_or_else(PoisonError::into_inner) {
                bail!("a record was not taken: {failure}");
            }
            stall.check(self.acknowledged())?;
        }
        Ok(())
    }
}

pub struct Event {
    pub key: String,
    pub value: String,
    pub headers: OwnedHeaders,
}

/// An order as a shop would announce it. Each order has one such event, so every key is another one.
pub fn event(order: u64) -> Event {
    let id = Uuid::new_v4();
    let timestamp = format!("{:.3}", jiff::Timestamp::now());
    let customer = order * 7_919 % 50_000;
    let product = order * 104_729 % 9_000 + 1_000;
    let (quantity, cents) = (order % 4 + 1, order * 31 % 90_000 + 995);
    let amount = quantity * cents;
    let value = format!(
        concat!(
            r#"{{"eventId":"{id}","eventType":"OrderCreated","aggregateId":"{order}","version":1,"#,
            r#""timestamp":"{timestamp}","data":{{"orderId":"{order}","customerId":"cust-{customer:05}","#,
            r#""amount":{}.{:02},"currency":"USD","items":[{{"productId":"prod-{product}","#,
            r#""name":"Stoneware Mug, 350 ml","quantity":{quantity},"unitPrice":{}.{:02}}}]}},"#,
            r#""metadata":{{"source":"order-service","correlationId":"req-{order:08x}"}}}}"#,
        ),
        amount / 100,
        amount % 100,
        cents / 100,
        cents % 100,
        id = id,
        order = order,
        timestamp = timestamp,
        customer = customer,
        product = product,
        quantity = quantity,
    );
    let key = order.to_string();
    let traceparent = format!("00-{:032x}-{:016x}-01", Uuid::new_v4().as_u128(), id.as_u64_pair().0);
    let headers = [
        ("eventType", "OrderCreated"),
        ("source", "order-service"),
        ("timestamp", &timestamp),
        ("aggregateId", &key),
        ("traceparent", &traceparent),
    ];
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
    Event { key, value, headers }
}

pub fn feed(cluster: &Cluster, topic: &str, events: u64) -> Result<Duration> {
    let began = Instant::now();
    let mut sender = Sender::new(&cluster.settings)?;
    for order in 0..events {
        let event = event(1_000_000 + order);
        sender.send(topic, Some(event.key.as_bytes()), Some(event.value.as_bytes()), Some(event.headers))?;
    }
    sender.finish()?;
    Ok(began.elapsed())
}
