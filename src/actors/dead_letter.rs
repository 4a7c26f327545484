//! The dead letter actor: it answers only when every letter is durable on the topic. A letter that is too large for
//! the topic is parked in the table, and the topic gets a reference.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use async_trait::async_trait;
use tokio::runtime::Handle;

use super::messages::Park;
use super::slot::Slot;
use super::supervisor::Lifeline;
use crate::consume::durable_publish::DurablePublisher;
use crate::domain::dead_letter::DeadLetter;
use crate::domain::ids::dead_letter_id;
use crate::domain::record::{Headers, OutboundRecord};
use crate::ports::clock::SharedClock;
use crate::ports::dead_letters::{DeadLetterError, DeadLetterSink, ParkedPayload, PayloadStore};
use crate::resilience::retry::Waits;
use crate::telemetry::events;

/// The reason in the `error` header is cut here: it stands in full in the envelope.
const MAX_HEADER_CHARS: usize = 500;
/// A key larger than this is left out of a reference that was refused once already.
const MAX_REFERENCE_KEY: usize = 4096;

/// What the actor works with.
#[derive(Clone)]
pub struct DeadLetterDuty {
    /// Writes to the topic.
    pub publisher: DurablePublisher,
    /// Holds payloads that the topic cannot.
    pub payloads: Arc<dyn PayloadStore>,
    /// `dead-letter-queue`.
    pub topic: Arc<str>,
    /// Time.
    pub clock: SharedClock,
}

/// See the module.
pub struct DeadLetterActor {
    duty: DeadLetterDuty,
    io: Handle,
    _lifeline: Lifeline,
}

impl DeadLetterActor {
    /// The actor over its duty.
    pub fn new(duty: DeadLetterDuty, io: Handle, lifeline: Lifeline) -> Self {
        Self { duty, io, _lifeline: lifeline }
    }
}

impl Actor for DeadLetterActor {
    type Context = Context<Self>;
}

impl Handler<Park> for DeadLetterActor {
    type Result = ResponseFuture<Result<(), DeadLetterError>>;

    fn handle(&mut self, Park(letters): Park, _: &mut Self::Context) -> Self::Result {
        let duty = self.duty.clone();
        let write = self.io.spawn(async move { duty.write(letters).await });
        Box::pin(async move { write.await.map_err(|e| DeadLetterError(e.to_string()))? })
    }
}

impl DeadLetterDuty {
    async fn write(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        let whole = letters.iter().map(|letter| self.record(letter, letter.to_json(), Size::Whole)).collect();
        let mut too_large: Vec<usize> = self.publisher.publish(whole).await.into_iter().map(|(i, _)| i).collect();
        // Refused whole: as a reference with its headers, and if these are the large part, without.
        let mut size = Size::Reference;
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        while !too_large.is_empty() {
            let mut references = Vec::with_capacity(too_large.len());
            for index in &too_large {
                let letter = &letters[*index];
                let id = self.park(letter).await;
                references.push(self.record(letter, letter.to_reference_json(&id), size));
            }
            let refused = self.publisher.publish(references).await;
            if size == Size::BareReference
                && let Some((_, reason)) = refused.first()
            {
                // Only the refused ones are tried again: those of their batch that are written are not written twice.
                tracing::error!(letters = refused.len(), %reason, "Kafka refuses even the reference; offsets wait");
                tokio::time::sleep(waits.next_wait()).await;
            }
            too_large = refused.into_iter().map(|(i, _)| too_large[i]).collect();
            size = Size::BareReference;
        }
        for letter in &letters {
            let failure = &letter.failure;
            let (stage, class) = (letter.stage.as_str(), failure.class.as_str());
            events::dead_lettered(stage, class, &failure.code, &letter.origin.topic, &failure.reason);
        }
        Ok(())
    }

    /// Waits for the database, however long: trying the whole batch again would write its other letters again.
    async fn park(&self, letter: &DeadLetter) -> String {
        let id = dead_letter_id(letter);
        let parked = ParkedPayload {
            id: id.clone(),
            letter_json: String::from_utf8_lossy(&letter.to_reference_json(&id)).into_owned(),
            payload: letter.origin.value.clone().unwrap_or_default(),
            parked_at_ms: self.clock.now().as_millisecond(),
        };
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        while let Err(error) = self.payloads.park_payload(parked.clone()).await {
            tracing::warn!(%error, "a payload waits to be parked");
            tokio::time::sleep(waits.next_wait()).await;
        }
        id
    }

    fn record(&self, letter: &DeadLetter, value: Vec<u8>, size: Size) -> OutboundRecord {
        let mut headers = Headers::default();
        if size != Size::BareReference {
            for (name, value) in letter.origin.headers.iter() {
                headers.push(name, value);
            }
        }
        headers.push("originalTopic", Some(letter.origin.topic.as_bytes()));
        let reason: String = letter.failure.reason.chars().take(MAX_HEADER_CHARS).collect();
        headers.push("error", Some(reason.as_bytes()));
        let key = letter.origin.key.as_deref().filter(|k| size == Size::Whole || k.len() <= MAX_REFERENCE_KEY);
        OutboundRecord { topic: Arc::clone(&self.topic), key: key.map(Into::into), value, headers }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Whole,
    Reference,
    BareReference,
}

/// The actor as a sink: finds its current address, and waits where the mailbox is full.
#[derive(Clone, Default)]
pub struct DeadLetterHandle(pub Slot<DeadLetterActor>);

#[async_trait]
impl DeadLetterSink for DeadLetterHandle {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        let gone = || DeadLetterError("the dead letter actor is being rebuilt".to_owned());
        self.0.send(Park(letters)).await.ok_or_else(gone)?
    }
}
