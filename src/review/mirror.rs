//! The dead letter group's stage: letters from their topic, whoever wrote them, into their table.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use jiff::Timestamp;

use crate::consume::batch_write::{BatchWriter, Rows};
use crate::consume::stage::{Decision, Durable, Stage};
use crate::domain::dead_letter::{DeadLetter, Stage as StageName};
use crate::domain::record::Record;
use crate::domain::stored_letter::StoredLetter;
use crate::ports::dead_letters::{DeadLetterError, DeadLetterSink, DeadLetterTable};
use crate::ports::ledger::LedgerError;
use crate::resilience::breaker_cell::BreakerCell;

/// See the module.
pub struct MirrorStage {
    table: Arc<dyn DeadLetterTable>,
    breakers: [Arc<BreakerCell>; 1],
}

impl MirrorStage {
    /// A stage over the table, behind the database's breaker.
    pub fn new(table: Arc<dyn DeadLetterTable>, breaker: Arc<BreakerCell>) -> Self {
        Self { table, breakers: [breaker] }
    }
}

#[async_trait]
impl Stage for MirrorStage {
    type Effect = StoredLetter;

    fn name(&self) -> StageName {
        StageName::Review
    }

    fn decide(&self, record: &Record, now: Timestamp) -> Decision<StoredLetter> {
        Decision::Act(StoredLetter::of_record(record, now))
    }

    async fn begin(&self, effects: Vec<StoredLetter>) -> Durable {
        let [breaker] = &self.breakers;
        let writer = BatchWriter { rows: Letters(Arc::clone(&self.table)), breaker: Arc::clone(breaker) };
        async move { writer.write_all(&effects).await.refused }.boxed()
    }

    fn breakers(&self) -> &[Arc<BreakerCell>] {
        &self.breakers
    }
}

/// Letters as rows of their table.
struct Letters(Arc<dyn DeadLetterTable>);

#[async_trait]
impl Rows for Letters {
    type Row = StoredLetter;

    const WHAT: &str = "dead letters";

    fn size(letter: &StoredLetter) -> usize {
        letter.letter.len()
    }

    async fn write(&self, rows: &[StoredLetter]) -> Result<u64, LedgerError> {
        self.0.record(rows).await
    }
}

/// Where letters about letters end: on the topic they would come back for ever. The record itself stays there.
pub struct EndOfTheLine;

#[async_trait]
impl DeadLetterSink for EndOfTheLine {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        for DeadLetter { origin, failure, .. } in letters {
            let (topic, partition, offset) = (origin.topic, origin.partition, origin.offset);
            let (code, reason) = (failure.code, failure.reason);
            tracing::error!(
                topic,
                partition,
                offset,
                code,
                reason,
                "a dead letter is on its topic and not in the table"
            );
        }
        Ok(())
    }
}
