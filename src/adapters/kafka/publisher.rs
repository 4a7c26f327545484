//! The producer: idempotent, pipelined, with acknowledgements by batch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt as _;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;

use super::client_config::{ClientSettings, InvalidProperty};
use super::rebalance::forward_log;
use crate::domain::record::OutboundRecord;
use crate::ports::publisher::{Acks, EventPublisher, PublishError};

/// How long to wait for room in the producer's queue before looking again.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(5);

/// Acknowledgements of one batch.
#[derive(Default)]
pub(super) struct BatchAcks {
    waiting: AtomicUsize,
    failures: Mutex<Vec<(usize, PublishError)>>,
    all: Notify,
}

impl BatchAcks {
    pub(super) fn of(records: usize) -> Arc<Self> {
        Arc::new(Self { waiting: AtomicUsize::new(records), ..Self::default() })
    }

    pub(super) fn fail(&self, index: usize, error: PublishError) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push((index, error));
    }

    pub(super) fn one_less(&self) {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all.notify_one();
        }
    }

    pub(super) async fn collected(self: Arc<Self>) -> Vec<(usize, PublishError)> {
        while self.waiting.load(Ordering::Acquire) > 0 {
            self.all.notified().await;
        }
        std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) struct Delivery {
    batch: Arc<BatchAcks>,
    index: usize,
}

pub(super) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer error");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        if let Err((error, _)) = result {
            delivery.batch.fail(delivery.index, classify(error));
        }
        delivery.batch.one_less();
    }
}

pub(super) type Native = ThreadedProducer<Context>;

/// See the module.
pub struct KafkaPublisher {
    settings: ClientSettings,
    producer: RwLock<Arc<Native>>,
}

impl KafkaPublisher {
    /// Creates the producer; it connects by itself.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(settings: ClientSettings) -> Result<Arc<Self>, InvalidProperty> {
        let producer = settings.producer().create_with_context(Context)?;
        Ok(Arc::new(Self { settings, producer: RwLock::new(Arc::new(producer)) }))
    }

    fn current(&self) -> Arc<Native> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A producer with a fatal error never recovers: it is replaced.
    fn healthy(&self) -> Result<Arc<Native>, PublishError> {
        let producer = self.current();
        let Some((code, reason)) = producer.client().fatal_error() else { return Ok(producer) };
        tracing::error!(%code, reason, "the producer failed fatally and is replaced");
        let unavailable = |e: KafkaError| PublishError::Unavailable(e.to_string());
        let fresh: Native = self.settings.producer().create_with_context(Context).map_err(unavailable)?;
        let fresh = Arc::new(fresh);
        let mut slot = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&slot, &producer) {
            let old = std::mem::replace(&mut *slot, Arc::clone(&fresh));
            // Dropping a client blocks: not on the caller's thread.
            thread::spawn(move || drop((old, producer)));
            return Ok(fresh);
        }
        Ok(Arc::clone(&slot))
    }
}

#[async_trait]
impl EventPublisher for KafkaPublisher {
    async fn publish(&self, records: &[OutboundRecord]) -> Acks {
        let batch = BatchAcks::of(records.len());
        let producer = match self.healthy() {
            Ok(producer) => producer,
            Err(error) => {
                let failures = (0..records.len()).map(|index| (index, error.clone())).collect();
                return futures::future::ready(failures).boxed();
            }
        };
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = enqueue(&producer, record, &batch, index).await {
                batch.fail(index, classify(&error));
                batch.one_less();
            }
        }
        batch.collected().boxed()
    }

    async fn flush(&self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        let producer = self.current();
        // Not librdkafka's flush: the binding's waits in steps of 100 ms. The producer's own thread polls.
        while producer.in_flight_count() > 0 {
            if Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

pub(super) async fn enqueue(
    producer: &Native,
    record: &OutboundRecord,
    batch: &Arc<BatchAcks>,
    index: usize,
) -> Result<(), KafkaError> {
    loop {
        let delivery = Box::new(Delivery { batch: Arc::clone(batch), index });
        let mut native =
            BaseRecord::with_opaque_to(&record.topic, delivery).payload(&record.value).headers(headers(record));
        if let Some(key) = &record.key {
            native = native.key(&**key);
        }
        match producer.send(native) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                tokio::time::sleep(FULL_QUEUE_WAIT).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

fn headers(record: &OutboundRecord) -> OwnedHeaders {
    record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value }))
}

pub(super) fn classify(error: &KafkaError) -> PublishError {
    let code = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => "message_too_large",
        Some(RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::InvalidMessage) => "invalid_record",
        Some(RDKafkaErrorCode::PolicyViolation) => "policy_violation",
        _ => return PublishError::Unavailable(error.to_string()),
    };
    PublishError::Rejected { code, reason: error.to_string() }
}
