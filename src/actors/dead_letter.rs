//! The dead letter actor: it answers only when every letter is durable on the topic. A letter that is too large for
//! the topic is parked in the table, and the topic gets a reference.

use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use async_trait::async_trait;
use tokio::runtime::Handle;

use super::messages::Park;
use super::slot::Slot;
use super::supervisor::Lifeline;
use crate::consume::durable_publish::DurablePublisher;
use crate::consume::letters::{LetterPress, Size, tell};
use crate::domain::dead_letter::DeadLetter;
use crate::ports::dead_letters::{DeadLetterError, DeadLetterSink};
use crate::resilience::retry::Waits;

/// What the actor works with.
#[derive(Clone)]
pub struct DeadLetterDuty {
    /// Makes records of letters.
    pub press: LetterPress,
    /// Writes them to the topic.
    pub publisher: DurablePublisher,
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
        Box::pin(async move { write.await.map_err(|e| DeadLetterError(e.to_string())) })
    }
}

impl DeadLetterDuty {
    async fn write(&self, letters: Vec<DeadLetter>) {
        let mut size = Size::Whole;
        let mut waiting: Vec<usize> = (0..letters.len()).collect();
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        while !waiting.is_empty() {
            let mut records = Vec::with_capacity(waiting.len());
            for index in &waiting {
                records.push(self.press.record(&letters[*index], size).await);
            }
            let refused = self.publisher.publish(records).await;
            if size == Size::BareReference
                && let Some((_, reason)) = refused.first()
            {
                // Only the refused ones are tried again: those of their batch that are written are not written twice.
                tracing::error!(letters = refused.len(), %reason, "Kafka refuses even the reference; offsets wait");
                tokio::time::sleep(waits.next_wait()).await;
            }
            waiting = refused.into_iter().map(|(i, _)| waiting[i]).collect();
            size = size.smaller();
        }
        tell(&letters);
    }
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
