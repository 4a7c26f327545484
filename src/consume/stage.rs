//! What a stage has to say about a record, and how its effects become durable.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::dedup::Admission;
use crate::domain::dead_letter::{Failure, Stage as StageName};
use crate::domain::record::{OutboundRecord, Record};
use crate::ports::processed_events::Candidate;
use crate::resilience::breaker_cell::BreakerCell;

/// What a record asks for.
pub enum Decision<E> {
    /// Nothing, and that is counted.
    Skip,
    /// An effect that must be durable before the record is settled.
    Act(E),
    /// It cannot be processed (now, or ever: see the failure's class).
    Fail(Failure),
}

/// The failures of a batch, by position, once everything else in it is durable.
pub type Durable = BoxFuture<'static, Vec<(usize, Failure)>>;

/// One stage of the service, seen from the loop that feeds it.
#[async_trait]
pub trait Stage: Send + Sync + 'static {
    /// What a record makes the stage do.
    type Effect: Send + Sync;

    /// Which stage it is, for dead letters.
    fn name(&self) -> StageName;

    /// Decides about one record. Synchronous and without I/O, so that a panic leaves nothing half-done behind.
    fn decide(&self, record: &Record, now: Timestamp) -> Decision<Self::Effect>;

    /// The event that an effect is of, where one event shall have its effect once.
    fn event<'a>(&self, _: &'a Self::Effect) -> Option<&'a str> {
        None
    }

    /// Asked about events, each once and in order, before [`Self::begin`], which gets only what is admitted now.
    async fn admit(&self, candidates: &[Candidate<'_>]) -> Vec<Admission> {
        vec![Admission::Now; candidates.len()]
    }

    /// Begins to make effects durable, in order; batches are begun one after the other. The future resolves when every
    /// effect is durable or has failed for good. While a dependency is down it waits, however long.
    async fn begin(&self, effects: Vec<Self::Effect>) -> Durable;

    /// The breakers of the dependencies that the stage needs; while one is not closed, nothing new is taken.
    fn breakers(&self) -> &[Arc<BreakerCell>];
}

/// A stage whose effects are records, so that a transaction can hold them.
#[async_trait]
pub trait TransactionalStage: Stage {
    /// Makes durable what no transaction of Kafka can hold. It may happen again for the same effect.
    async fn prepare(&self, effects: &mut [&mut Self::Effect]);

    /// The records of an effect.
    fn records(effect: &Self::Effect) -> &[OutboundRecord];

    /// Counts and remembers effects that were committed; each took so long.
    async fn committed(&self, effects: &[&Self::Effect], took: Duration);
}
