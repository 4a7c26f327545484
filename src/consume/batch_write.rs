//! Rows into the database: in batches, behind its breaker, and however long it is away.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::domain::dead_letter::Failure;
use crate::domain::error::ErrorClass;
use crate::ports::ledger::LedgerError;
use crate::resilience::breaker::CallOutcome;
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::retry::Waits;

/// Rows per statement: enough to be fast, few enough to keep transactions short.
const CHUNK: usize = 500;
/// Bytes per statement: the text of it is copied several times on its way to the database.
const CHUNK_BYTES: usize = 2 << 20;

/// Rows of one kind, written idempotently.
#[async_trait]
pub trait Rows: Send + Sync {
    /// What becomes a row.
    type Row: Send + Sync;

    /// What they are called in the log.
    const WHAT: &str;

    /// About how many bytes a row has.
    fn size(row: &Self::Row) -> usize;

    /// Writes all of them or none; says how many are new.
    ///
    /// # Errors
    /// When none was written.
    async fn write(&self, rows: &[Self::Row]) -> Result<u64, LedgerError>;
}

/// What became of rows.
#[derive(Debug, Default)]
pub struct Written {
    /// Rows that were not there before.
    pub new: u64,
    /// Those that the database refuses for ever, by position.
    pub refused: Vec<(usize, Failure)>,
}

/// Writes rows behind a breaker.
pub struct BatchWriter<R> {
    /// How.
    pub rows: R,
    /// The database's.
    pub breaker: Arc<BreakerCell>,
}

impl<R: Rows> BatchWriter<R> {
    /// Writes all that the database takes, however long it is away.
    pub async fn write_all(&self, rows: &[R::Row]) -> Written {
        let (mut written, mut begin) = (Written::default(), 0);
        while begin < rows.len() {
            let chunk = &rows[begin..begin + chunk_len(&rows[begin..], R::size)];
            match self.write(chunk).await {
                Ok(new) => written.new += new,
                // One row of the chunk is at fault: the others must not suffer for it.
                Err(_) => self.write_each(chunk, begin, &mut written).await,
            }
            begin += chunk.len();
        }
        written
    }

    async fn write_each(&self, chunk: &[R::Row], begin: usize, written: &mut Written) {
        for (index, row) in chunk.iter().enumerate() {
            match self.write(std::slice::from_ref(row)).await {
                Ok(new) => written.new += new,
                Err(reason) => {
                    let now = Timestamp::now();
                    let failure = Failure::new(ErrorClass::Permanent, "rejected_by_database", reason, now);
                    written.refused.push((begin + index, failure));
                }
            }
        }
    }

    /// An error is the database's refusal of the content.
    async fn write(&self, rows: &[R::Row]) -> Result<u64, String> {
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let permit = self.breaker.granted().await;
            match self.rows.write(rows).await {
                Ok(new) => {
                    permit.report(CallOutcome::Success);
                    return Ok(new);
                }
                Err(LedgerError::Rejected(reason)) => {
                    permit.report(CallOutcome::Success);
                    return Err(reason);
                }
                Err(error @ LedgerError::Unavailable(_)) => {
                    permit.report(CallOutcome::Failure(1));
                    tracing::warn!(%error, rows = rows.len(), "{} wait for the database", R::WHAT);
                    tokio::time::sleep(waits.next_wait()).await;
                }
            }
        }
    }
}

/// How many rows go into the next statement: one at least.
fn chunk_len<T>(rows: &[T], size: impl Fn(&T) -> usize) -> usize {
    let mut bytes = 0;
    let fits = |row: &&T| {
        bytes += size(row);
        bytes <= CHUNK_BYTES
    };
    rows.iter().take(CHUNK).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_bounded_in_rows_and_bytes_and_never_empty() {
        let len = |sizes: &[usize]| chunk_len(sizes, |size| *size);
        assert_eq!(len(&[1; 2000]), CHUNK);
        assert_eq!(len(&[CHUNK_BYTES / 4; 10]), 4);
        assert_eq!(len(&[CHUNK_BYTES * 2, 1]), 1);
        assert_eq!(len(&[1, CHUNK_BYTES, 1]), 1);
    }
}
