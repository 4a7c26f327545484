//! Publishes what settled notifications left in the outbox: lifecycle events and dead letters.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::consume::durable_publish::DurablePublisher;
use crate::domain::record::OutboundRecord;
use crate::ports::clock::SharedClock;
use crate::ports::dead_letters::DeadLetterSink;
use crate::ports::ledger::OutboxKind;
use crate::ports::outbox::{Outbox, Waiting};
use crate::resilience::breaker::Position;
use crate::resilience::retry::Waits;

/// Published together at most.
const BATCH: usize = 500;
/// A reservation that is not fulfilled by then is free for another instance.
const RESERVATION: Duration = Duration::from_secs(30);
/// After the first message, others are waited for this long: a database makes large batches durable as fast as small ones.
const GATHER: Duration = Duration::from_millis(20);
/// How often the outbox is looked at without being told: for what a dead instance left behind.
const LOOK: Duration = Duration::from_secs(2);

/// See the module.
pub struct OutboxRelay {
    /// What waits.
    pub outbox: Arc<dyn Outbox>,
    /// Where events go.
    pub publisher: DurablePublisher,
    /// Where dead letters go.
    pub dead_letters: Arc<dyn DeadLetterSink>,
    /// `notification-events`.
    pub topic: Arc<str>,
    /// Time.
    pub clock: SharedClock,
}

impl OutboxRelay {
    /// Relays until `stop`, then once more what is there.
    pub async fn run(&self, stop: CancellationToken) {
        let mut added = self.outbox.added();
        let mut trouble = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            added.mark_unchanged();
            let stopping = stop.is_cancelled();
            if !stopping {
                tokio::select! {
                    () = self.publisher.breaker().closed() => {}
                    () = stop.cancelled() => continue,
                }
            }
            match self.relay().await {
                Ok(BATCH) => {}
                Ok(_) if stopping => return,
                Ok(_) => {
                    trouble.reset();
                    tokio::select! {
                        () = stop.cancelled() => continue,
                        changed = added.changed() => if changed.is_err() { return },
                        () = tokio::time::sleep(LOOK) => {}
                    }
                    tokio::time::sleep(GATHER).await;
                }
                Err(error) => {
                    tracing::warn!(error, "the outbox waits");
                    if stopping {
                        return;
                    }
                    tokio::time::sleep(trouble.next_wait()).await;
                }
            }
        }
    }

    async fn relay(&self) -> Result<usize, String> {
        // Nothing is reserved while Kafka is away: a reservation that expires would be published twice.
        if self.publisher.breaker().position() != Position::Closed {
            return Err("the breaker of Kafka is open".to_owned());
        }
        let now = self.clock.now().as_millisecond();
        let until = now + RESERVATION.as_millis() as i64;
        let waiting = self.outbox.reserve(now, until, BATCH).await.map_err(|e| e.to_string())?;
        let count = waiting.len();
        if count == 0 {
            return Ok(0);
        }
        let (events, letters): (Vec<Waiting>, Vec<Waiting>) =
            waiting.into_iter().partition(|w| w.kind == OutboxKind::Lifecycle);
        if !events.is_empty() {
            let ids: Vec<i64> = events.iter().map(|w| w.id).collect();
            let records = events.into_iter().map(|w| self.record(w)).collect();
            for (_, error) in self.publisher.publish(records).await {
                tracing::error!(%error, "Kafka refuses a lifecycle event for good; it is dropped");
            }
            self.outbox.remove(&ids).await.map_err(|e| e.to_string())?;
        }
        if !letters.is_empty() {
            let ids: Vec<i64> = letters.iter().map(|w| w.id).collect();
            let letters = letters.iter().filter_map(read_letter).collect();
            self.dead_letters.park(letters).await.map_err(|e| e.to_string())?;
            self.outbox.remove(&ids).await.map_err(|e| e.to_string())?;
        }
        Ok(count)
    }

    fn record(&self, waiting: Waiting) -> OutboundRecord {
        OutboundRecord {
            topic: Arc::clone(&self.topic),
            key: waiting.key.map(Vec::into_boxed_slice),
            value: waiting.body.into_bytes(),
            headers: serde_json::from_str(&waiting.headers_json).unwrap_or_default(),
        }
    }
}

fn read_letter(waiting: &Waiting) -> Option<crate::domain::dead_letter::DeadLetter> {
    serde_json::from_str(&waiting.body)
        .inspect_err(|error| tracing::error!(%error, id = waiting.id, "an outbox entry is no dead letter"))
        .ok()
}
