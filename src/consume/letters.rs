//! Dead letters as records: whole, or as a reference to a payload that was parked because the topic cannot hold it.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::dead_letter::DeadLetter;
use crate::domain::recipient::mask_addresses;
use crate::domain::record::{Headers, OutboundRecord};
use crate::domain::stored_letter::StoredLetter;
use crate::ports::clock::SharedClock;
use crate::ports::dead_letters::{ParkedPayload, PayloadStore};
use crate::resilience::retry::Waits;
use crate::telemetry::events;

/// The reason in the `error` header is cut here: it stands in full in the envelope.
const MAX_HEADER_CHARS: usize = 500;
/// A key larger than this is left out of a reference that was refused once already.
const MAX_REFERENCE_KEY: usize = 4096;

/// How much of a letter goes into its record. A refused one is made smaller, step by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Everything.
    Whole,
    /// Without the payload, which is parked.
    Reference,
    /// Without the original headers as well.
    BareReference,
}

impl Size {
    /// What to try when the topic refuses this one.
    pub fn smaller(self) -> Self {
        match self {
            Self::Whole => Self::Reference,
            Self::Reference | Self::BareReference => Self::BareReference,
        }
    }
}

/// Makes records of dead letters.
#[derive(Clone)]
pub struct LetterPress {
    /// Holds payloads that the topic cannot.
    pub payloads: Arc<dyn PayloadStore>,
    /// `dead-letter-queue`.
    pub topic: Arc<str>,
    /// Time.
    pub clock: SharedClock,
}

impl LetterPress {
    /// The record of a letter. That of a reference is there only when its payload is durable.
    pub async fn record(&self, letter: &DeadLetter, size: Size) -> OutboundRecord {
        let value = match size {
            Size::Whole => letter.to_json(),
            Size::Reference | Size::BareReference => letter.to_reference_json(&self.park(letter).await),
        };
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

    /// Waits for the database, however long: trying a whole batch again would write its other letters again.
    async fn park(&self, letter: &DeadLetter) -> String {
        let stored = StoredLetter::of_parked(letter, self.clock.now());
        let id = stored.id.clone();
        let payload = letter.origin.value.clone().unwrap_or_default();
        let parked = ParkedPayload { letter: stored, payload };
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        while let Err(error) = self.payloads.park_payload(parked.clone()).await {
            tracing::warn!(%error, "a payload waits to be parked");
            tokio::time::sleep(waits.next_wait()).await;
        }
        id
    }
}

/// Tells of letters that are durable.
pub fn tell<'a>(letters: impl IntoIterator<Item = &'a DeadLetter>) {
    for letter in letters {
        let failure = &letter.failure;
        let (stage, class) = (letter.stage.as_str(), failure.class.as_str());
        let reason = mask_addresses(&failure.reason);
        events::dead_lettered(stage, class, &failure.code, &letter.origin.topic, &reason);
    }
}
