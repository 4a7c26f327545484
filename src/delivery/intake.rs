//! The delivery group's stage: requests from the topic into the ledger.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use jiff::Timestamp;
use metrics::{Counter, counter};

use crate::consume::stage::{Decision, Durable, Stage};
use crate::domain::catalog::NOTIFICATION_REQUESTED;
use crate::domain::channel::Channel;
use crate::domain::dead_letter::{Failure, Origin, Stage as StageName};
use crate::domain::envelope::Envelope;
use crate::domain::error::{DecodeError, ErrorClass};
use crate::domain::notification::Request;
use crate::domain::record::Record;
use crate::ports::ledger::{Inserted, LedgerError, NewNotification, NotificationLedger};
use crate::resilience::breaker::CallOutcome;
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::retry::Waits;
use crate::telemetry::metric_definitions::DUPLICATES_SKIPPED;

/// Rows per statement: enough to be fast, few enough to keep transactions short.
const CHUNK: usize = 500;

/// See the module.
pub struct IntakeStage {
    ledger: Arc<dyn NotificationLedger>,
    breakers: [Arc<BreakerCell>; 1],
    /// Channels that have a provider.
    channels: HashSet<Channel>,
    duplicates: Counter,
}

impl IntakeStage {
    /// A stage over the ledger, behind the database's breaker.
    pub fn new(ledger: Arc<dyn NotificationLedger>, breaker: Arc<BreakerCell>, channels: HashSet<Channel>) -> Self {
        let duplicates = counter!(DUPLICATES_SKIPPED, "stage" => "delivery");
        duplicates.increment(0);
        Self { ledger, breakers: [breaker], channels, duplicates }
    }

    fn read(&self, record: &Record, now: Timestamp) -> Result<Option<NewNotification>, Failure> {
        let failure = |e: &DecodeError| Failure::new(e.class(), e.code(), e.to_string(), now);
        let envelope = Envelope::decode(record.value.as_deref()).map_err(|e| failure(&e))?;
        if envelope.event_type != NOTIFICATION_REQUESTED {
            return Ok(None);
        }
        let request = Request::decode(&envelope).map_err(|e| failure(&e))?;
        if !self.channels.contains(&request.channel) {
            let reason = format!("no provider is configured for channel {}", request.channel);
            return Err(Failure::new(ErrorClass::Permanent, "no_provider", reason, now));
        }
        Ok(Some(NewNotification { request, origin: Origin::from(record), received_at: now }))
    }
}

#[async_trait]
impl Stage for IntakeStage {
    type Effect = NewNotification;

    fn name(&self) -> StageName {
        StageName::Delivery
    }

    fn decide(&self, record: &Record, now: Timestamp) -> Decision<NewNotification> {
        match self.read(record, now) {
            Ok(Some(new)) => Decision::Act(new),
            Ok(None) => Decision::Skip,
            Err(failure) => Decision::Fail(failure),
        }
    }

    async fn begin(&self, effects: Vec<NewNotification>) -> Durable {
        let [breaker] = &self.breakers;
        let writer = Writer { ledger: Arc::clone(&self.ledger), breaker: Arc::clone(breaker) };
        let duplicates = self.duplicates.clone();
        async move {
            let mut failures = Vec::new();
            for (number, chunk) in effects.chunks(CHUNK).enumerate() {
                match writer.insert(chunk).await {
                    Ok(inserted) => duplicates.increment(inserted.duplicates),
                    // One row of the chunk is at fault: the others must not suffer for it.
                    Err(_) => {
                        for (index, new) in chunk.iter().enumerate() {
                            match writer.insert(std::slice::from_ref(new)).await {
                                Ok(inserted) => duplicates.increment(inserted.duplicates),
                                Err(reason) => {
                                    let at = Timestamp::now();
                                    let failure =
                                        Failure::new(ErrorClass::Permanent, "rejected_by_database", reason, at);
                                    failures.push((number * CHUNK + index, failure));
                                }
                            }
                        }
                    }
                }
            }
            failures
        }
        .boxed()
    }

    fn breakers(&self) -> &[Arc<BreakerCell>] {
        &self.breakers
    }
}

struct Writer {
    ledger: Arc<dyn NotificationLedger>,
    breaker: Arc<BreakerCell>,
}

impl Writer {
    /// Inserts, however long the database is away; an error is the database's refusal of the content.
    async fn insert(&self, batch: &[NewNotification]) -> Result<Inserted, String> {
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let permit = self.breaker.granted().await;
            match self.ledger.insert(batch).await {
                Ok(inserted) => {
                    permit.report(CallOutcome::Success);
                    return Ok(inserted);
                }
                Err(LedgerError::Rejected(reason)) => {
                    permit.report(CallOutcome::Success);
                    return Err(reason);
                }
                Err(error @ LedgerError::Unavailable(_)) => {
                    permit.report(CallOutcome::Failure(1));
                    tracing::warn!(%error, requests = batch.len(), "requests wait for the ledger");
                    tokio::time::sleep(waits.next_wait()).await;
                }
            }
        }
    }
}
