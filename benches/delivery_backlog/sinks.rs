//! What stands at the ends of the path: a provider and a broker that take everything at once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use futures::FutureExt as _;
use notification_service::domain::dead_letter::DeadLetter;
use notification_service::domain::record::OutboundRecord;
use notification_service::ports::dead_letters::{DeadLetterError, DeadLetterSink};
use notification_service::ports::provider::{Accepted, Message, Provider, SendError};
use notification_service::ports::publisher::{Acks, EventPublisher};
use uuid::Uuid;

/// An acceptance: which notification, of which order, when.
#[derive(Debug, Clone, Copy)]
pub struct Acceptance {
    pub id: Uuid,
    pub order: u64,
    pub at: Instant,
}

/// Who accepted what.
pub struct Acceptances(Mutex<Vec<Acceptance>>);

impl Acceptances {
    pub fn with_room(events: u64) -> Self {
        // Filled once, so that what is written later is resident before anything is measured.
        let mut room = vec![Acceptance { id: Uuid::nil(), order: 0, at: Instant::now() }; events as usize];
        room.clear();
        Self(Mutex::new(room))
    }

    pub fn add(&self, id: &str, order: u64) -> Result<(), uuid::Error> {
        let accepted = Acceptance { id: Uuid::parse_str(id)?, order, at: Instant::now() };
        self.lock().push(accepted);
        Ok(())
    }

    pub fn count(&self) -> u64 {
        self.lock().len() as u64
    }

    pub fn all(&self) -> Vec<Acceptance> {
        self.lock().clone()
    }

    pub fn total_and_distinct(&self) -> (u64, u64) {
        let all = self.lock();
        (all.len() as u64, all.iter().map(|a| a.id).collect::<HashSet<_>>().len() as u64)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Acceptance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The no-op provider.
pub struct AcceptingProvider {
    pub accepted: Arc<Acceptances>,
}

#[async_trait]
impl Provider for AcceptingProvider {
    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        self.accepted.add(&message.id, 0).map_err(|e| SendError::Permanent(e.to_string()))?;
        Ok(Accepted::default())
    }
}

/// Acknowledges at once.
#[derive(Default)]
pub struct AcknowledgingPublisher {
    pub published: AtomicU64,
}

#[async_trait]
impl EventPublisher for AcknowledgingPublisher {
    async fn publish(&self, records: &[OutboundRecord]) -> Acks {
        self.published.fetch_add(records.len() as u64, Ordering::Relaxed);
        async { Vec::new() }.boxed()
    }

    async fn flush(&self, _: std::time::Duration) -> bool {
        true
    }
}

/// Counts letters, of which there should be none.
#[derive(Default)]
pub struct CountedLetters {
    pub parked: AtomicU64,
}

#[async_trait]
impl DeadLetterSink for CountedLetters {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        self.parked.fetch_add(letters.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
