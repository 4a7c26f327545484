//! The delivery group's stage: requests from the topic into the ledger.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use jiff::Timestamp;
use metrics::{Counter, counter};

use super::desk::Desk;
use super::rules::TemplateRules;
use crate::consume::batch_write::{BatchWriter, Rows};
use crate::consume::stage::{Decision, Durable, Stage};
use crate::domain::catalog::NOTIFICATION_REQUESTED;
use crate::domain::channel::Channel;
use crate::domain::dead_letter::{Failure, Origin, Stage as StageName};
use crate::domain::envelope::Envelope;
use crate::domain::error::{DecodeError, ErrorClass};
use crate::domain::notification::Request;
use crate::domain::record::Record;
use crate::ports::ledger::{LedgerError, NewNotification};
use crate::resilience::breaker_cell::BreakerCell;
use crate::telemetry::metric_definitions::DUPLICATES_SKIPPED;

/// See the module.
pub struct IntakeStage {
    breakers: [Arc<BreakerCell>; 1],
    /// Channels that have a provider.
    channels: HashSet<Channel>,
    rules: Arc<TemplateRules>,
    desk: Desk,
    duplicates: Counter,
}

impl IntakeStage {
    /// A stage over the ledger's desk, behind the database's breaker.
    pub fn new(desk: Desk, breaker: Arc<BreakerCell>, channels: HashSet<Channel>, rules: Arc<TemplateRules>) -> Self {
        let duplicates = counter!(DUPLICATES_SKIPPED, "stage" => "delivery");
        duplicates.increment(0);
        Self { breakers: [breaker], channels, rules, desk, duplicates }
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
        let handling = self.rules.handling(&request);
        Ok(Some(NewNotification { request, origin: Origin::from(record), received_at: now, handling }))
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
        let writer = BatchWriter { rows: Requests(self.desk.clone()), breaker: Arc::clone(breaker) };
        let duplicates = self.duplicates.clone();
        async move {
            let written = writer.write_all(&effects).await;
            let taken = (effects.len() - written.refused.len()) as u64;
            duplicates.increment(taken.saturating_sub(written.new));
            written.refused
        }
        .boxed()
    }

    fn breakers(&self) -> &[Arc<BreakerCell>] {
        &self.breakers
    }
}

/// Requests as rows of the ledger.
struct Requests(Desk);

#[async_trait]
impl Rows for Requests {
    type Row = NewNotification;

    const WHAT: &str = "requests";

    fn size(new: &NewNotification) -> usize {
        new.origin.value.as_ref().map_or(0, Vec::len)
    }

    async fn write(&self, rows: &[NewNotification]) -> Result<u64, LedgerError> {
        self.0.add(rows).await
    }
}
