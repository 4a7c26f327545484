//! Publishes what settled notifications left in the outbox: lifecycle events and dead letters. What cannot be published
//! becomes a dead letter itself, durable before it leaves the outbox.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::consume::durable_publish::{DurablePublisher, refusal};
use crate::domain::dead_letter::{DeadLetter, Failure, Origin, Stage};
use crate::domain::error::ErrorClass;
use crate::domain::record::{Headers, OutboundRecord};
use crate::domain::time::parse_rfc3339;
use crate::ports::clock::SharedClock;
use crate::ports::dead_letters::DeadLetterSink;
use crate::ports::ledger::{OutboxKind, OutboxMessage};
use crate::ports::outbox::{Added, Flaw, Outbox, Waiting};
use crate::resilience::breaker::Position;
use crate::resilience::retry::Waits;

/// Fresh messages are published together until they are so many.
const BATCH: usize = 500;
/// Reserved together at most, each of which is one message or several: so many are published within a reservation.
const BATCHES: usize = 50;
/// A reservation that is not fulfilled by then is free for another instance.
const RESERVATION: Duration = Duration::from_secs(30);
/// Fresh messages are published only while their reservation lasts at least so much longer.
const TIME_LEFT: Duration = Duration::from_secs(5);
/// After the first message, others are waited for this long: a database makes large batches durable as fast as small ones.
const GATHER: Duration = Duration::from_millis(20);
/// How often the database is looked into without being told: for what a dead instance left behind.
const LOOK: Duration = Duration::from_secs(2);
/// Where a dead letter says that it comes from when nobody can read what it is about.
const PLACE: &str = "outbox";

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

/// What the relay knows about the database.
struct Looked {
    /// When it is looked into again.
    next: Duration,
    /// Batches that this process had put there unreserved when it was looked into.
    unreserved: u64,
}

impl OutboxRelay {
    /// Relays until `stop`, then once more what is there.
    pub async fn run(&self, stop: CancellationToken) {
        let mut added = self.outbox.added();
        let mut looked = Looked { next: Duration::ZERO, unreserved: 0 };
        let mut trouble = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let known = *added.borrow_and_update();
            let stopping = stop.is_cancelled();
            if !stopping {
                tokio::select! {
                    () = self.publisher.breaker().closed() => {}
                    () = stop.cancelled() => continue,
                }
            }
            match self.relay(&mut looked, known, stopping).await {
                Ok(true) => {}
                Ok(false) if stopping => return,
                Ok(false) => {
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

    /// Publishes one batch, and says whether there may be more.
    async fn relay(&self, looked: &mut Looked, known: Added, stopping: bool) -> Result<bool, String> {
        // Nothing is reserved while Kafka is away: a reservation that expires would be published twice.
        if self.publisher.breaker().position() != Position::Closed {
            return Err("the breaker of Kafka is open".to_owned());
        }
        let fresh = self.relay_fresh().await?;
        // However much this process has to tell, what others left has its turn too.
        let now = self.clock.monotonic();
        let due = now >= looked.next || known.unreserved != looked.unreserved || (stopping && !fresh);
        if !due {
            return Ok(fresh);
        }
        let more = self.relay_reserved().await?;
        if !more {
            *looked = Looked { next: now + LOOK, unreserved: known.unreserved };
        }
        Ok(fresh || more)
    }

    /// Publishes what this process settled a moment ago. False when there was nothing.
    async fn relay_fresh(&self) -> Result<bool, String> {
        let now = self.clock.now().as_millisecond();
        let (mut ids, mut records) = (Vec::new(), Vec::new());
        while records.len() < BATCH {
            let Some(fresh) = self.outbox.fresh() else { break };
            // One whose reservation is about to end is left to whoever reserves it next.
            if fresh.reserved_until_ms > now + TIME_LEFT.as_millis() as i64 {
                ids.extend(fresh.ids);
                records.extend(fresh.messages.into_iter().map(|message| self.record(message)));
            }
        }
        if ids.is_empty() {
            return Ok(false);
        }
        self.publish(&ids, records).await?;
        Ok(true)
    }

    /// Publishes what waits in the database. False when there was nothing.
    async fn relay_reserved(&self) -> Result<bool, String> {
        let now = self.clock.now().as_millisecond();
        let until = now + RESERVATION.as_millis() as i64;
        let waiting = self.outbox.reserve(now, until, BATCHES).await.map_err(|e| e.to_string())?;
        let some = !waiting.is_empty();
        let (events, letters): (Vec<Waiting>, Vec<Waiting>) =
            waiting.into_iter().partition(|w| w.kind == OutboxKind::Lifecycle && w.flaw.is_none());
        if !events.is_empty() {
            let ids: Vec<i64> = events.iter().map(|w| w.id).collect();
            let records = events.into_iter().flat_map(|w| w.messages).map(|message| self.record(message)).collect();
            self.publish(&ids, records).await?;
        }
        if !letters.is_empty() {
            let ids: Vec<i64> = letters.iter().map(|w| w.id).collect();
            let now = self.clock.now();
            let letters = letters.into_iter().flat_map(|waiting| letters_of(waiting, now)).collect();
            self.dead_letters.park(letters).await.map_err(|e| e.to_string())?;
            self.outbox.remove(&ids).await.map_err(|e| e.to_string())?;
        }
        Ok(some)
    }

    /// Publishes lifecycle events, and removes them from the outbox. Those that Kafka refuses for good are parked: when
    /// they are not, all of them come again with their rows, and those that were published have the same ids.
    async fn publish(&self, ids: &[i64], records: Vec<OutboundRecord>) -> Result<(), String> {
        let refused = self.publisher.publish_each(records).await;
        if !refused.is_empty() {
            let letters = refused.into_iter().map(|(record, error)| {
                // The event's own time: the letter is then the same one when it is parked again, and for an erasure it
                // is as old as what it tells of.
                let time = record.headers.get("timestamp").and_then(|time| std::str::from_utf8(time).ok());
                let at = time.and_then(parse_rfc3339).unwrap_or_else(|| self.clock.now());
                let failure = refusal(error, "lifecycle event", at);
                let OutboundRecord { topic, key, value, headers } = record;
                letter_about(&topic, key.map(Vec::from), headers, value, failure)
            });
            self.dead_letters.park(letters.collect()).await.map_err(|e| e.to_string())?;
        }
        self.outbox.remove(ids).await.map_err(|e| e.to_string())
    }

    fn record(&self, message: OutboxMessage) -> OutboundRecord {
        let OutboxMessage { key, headers, body, .. } = message;
        let value = String::from(Box::<str>::from(body)).into_bytes();
        OutboundRecord { topic: Arc::clone(&self.topic), key: key.map(Vec::into_boxed_slice), value, headers }
    }
}

/// The dead letters that wait, and one about whatever cannot be read.
fn letters_of(waiting: Waiting, now: Timestamp) -> Vec<DeadLetter> {
    match waiting.flaw {
        Some(Flaw { reason, text }) => vec![unreadable(None, Headers::default(), text, &reason, now)],
        None => waiting.messages.into_iter().map(|message| read_letter(message, now)).collect(),
    }
}

fn read_letter(message: OutboxMessage, now: Timestamp) -> DeadLetter {
    let OutboxMessage { key, headers, body, .. } = message;
    serde_json::from_str(body.get()).unwrap_or_else(|error: serde_json::Error| {
        let text = String::from(Box::<str>::from(body));
        unreadable(key, headers, text, &error.to_string(), now)
    })
}

fn unreadable(key: Option<Vec<u8>>, headers: Headers, text: String, reason: &str, now: Timestamp) -> DeadLetter {
    let reason = format!("what waits in the outbox cannot be read: {reason}");
    let failure = Failure::new(ErrorClass::Permanent, "unreadable_outbox", reason, now);
    letter_about(PLACE, key, headers, text.into_bytes(), failure)
}

/// It has no place on a topic, so its id follows from its content: parked twice, it is there once.
fn letter_about(topic: &str, key: Option<Vec<u8>>, headers: Headers, value: Vec<u8>, failure: Failure) -> DeadLetter {
    let event_type = headers.get("eventType").map(|name| String::from_utf8_lossy(name).into_owned());
    let origin = Origin { topic: topic.to_owned(), partition: None, offset: None, key, value: Some(value), headers };
    DeadLetter { origin, stage: Stage::Delivery, failure, event_type }
}
