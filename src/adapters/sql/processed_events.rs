//! Processed events in a table: the truth for all instances, as long as they are remembered.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::{Row as _, query};

use super::database::{Database, bounded, sql};
use super::insert::text;
use super::rows::millis;
use crate::domain::bytes::hex;
use crate::domain::envelope::to_json;
use crate::ports::clock::SharedClock;
use crate::ports::ledger::LedgerError;
use crate::ports::processed_events::{Candidate, Claim, ProcessedEvents, StoreError};

/// Rows per statement, as elsewhere: fast, and the transactions stay short.
const CHUNK: usize = 500;
/// Old rows are removed this often, a few at a time.
const PURGE_EVERY: Duration = Duration::from_secs(1);
const PURGED_AT_ONCE: i64 = 5_000;

/// See the module.
pub struct SqlProcessedEvents {
    database: Database,
    group: String,
    remember: Duration,
    clock: SharedClock,
    purged: Mutex<Option<Duration>>,
}

#[derive(Serialize)]
struct Row {
    event: String,
    owner: String,
}

impl From<&Candidate<'_>> for Row {
    fn from(Candidate { id, at }: &Candidate<'_>) -> Self {
        Self { event: digest(id), owner: format!("{}/{}/{}", at.topic, at.partition, at.offset) }
    }
}

/// 128 bits of the id's SHA-256: ids may be long, and may hold what a database refuses.
fn digest(id: &str) -> String {
    hex(&Sha256::digest(id.as_bytes())[..16])
}

impl SqlProcessedEvents {
    /// The processed events of one group, remembered so long.
    pub fn new(database: Database, group: &str, remember: Duration, clock: SharedClock) -> Self {
        Self { database, group: group.to_owned(), remember, clock, purged: Mutex::default() }
    }

    async fn claim_chunk(&self, candidates: &[Candidate<'_>], lease: Duration) -> Result<Vec<Claim>, LedgerError> {
        let rows: Vec<Row> = candidates.iter().map(Row::from).collect();
        let (granted, processed) = bounded(async {
            let granted = self.take(&rows, lease).await?;
            let left: Vec<&Row> = rows.iter().filter(|row| !granted.contains(&row.event)).collect();
            let processed = if left.is_empty() { HashSet::new() } else { self.processed(&left).await? };
            Ok((granted, processed))
        })
        .await?;
        let claim = |row: &Row| match &row.event {
            event if granted.contains(event) => Claim::Granted,
            event if processed.contains(event) => Claim::Processed,
            _ => Claim::Held,
        };
        Ok(rows.iter().map(claim).collect())
    }

    /// Claims what is free, was this record's before, or belongs to a lease that is over.
    async fn take(&self, rows: &[Row], lease: Duration) -> Result<HashSet<String>, sqlx::Error> {
        let now = self.clock.now();
        // Sorted, for two instances that lock the same rows in different orders would block each other.
        let statement = format!(
            "INSERT INTO processed_events (consumer_group, event, owner, lease_until, touched_at)
             SELECT $2, r.event, r.owner, $3, $4 FROM {} WHERE true ORDER BY r.event
             ON CONFLICT (consumer_group, event) DO UPDATE SET
                 owner = excluded.owner, lease_until = excluded.lease_until, touched_at = excluded.touched_at
             WHERE processed_events.owner = excluded.owner
                OR (processed_events.owner IS NOT NULL AND processed_events.lease_until < $4)
             RETURNING event",
            self.database.dialect.rows(&[("event", "text"), ("owner", "text")])
        );
        let granted = query(sql(statement))
            .bind(text(to_json(&rows)))
            .bind(self.group.clone())
            .bind(millis(now) + lease.as_millis() as i64)
            .bind(millis(now))
            .fetch_all(&self.database.write)
            .await?;
        granted.iter().map(|row| row.try_get("event")).collect()
    }

    async fn processed(&self, rows: &[&Row]) -> Result<HashSet<String>, sqlx::Error> {
        let statement = format!(
            "SELECT p.event AS event FROM {} JOIN processed_events p ON p.event = r.event
             WHERE p.consumer_group = $2 AND p.owner IS NULL",
            self.database.dialect.rows(&[("event", "text")])
        );
        let rows = query(sql(statement))
            .bind(text(to_json(&rows)))
            .bind(self.group.clone())
            .fetch_all(&self.database.read)
            .await?;
        rows.iter().map(|row| row.try_get("event")).collect()
    }

    async fn mark_chunk(&self, ids: &[&str]) -> Result<(), LedgerError> {
        let statement = format!(
            "INSERT INTO processed_events (consumer_group, event, owner, lease_until, touched_at)
             SELECT $2, r.event, NULL, $3, $3 FROM {} WHERE true ORDER BY r.event
             ON CONFLICT (consumer_group, event) DO UPDATE SET owner = NULL, touched_at = excluded.touched_at",
            self.database.dialect.rows(&[("event", "text")])
        );
        let rows: Vec<Row> = ids.iter().map(|id| Row { event: digest(id), owner: String::new() }).collect();
        bounded(async {
            query(sql(statement))
                .bind(text(to_json(&rows)))
                .bind(self.group.clone())
                .bind(millis(self.clock.now()))
                .execute(&self.database.write)
                .await?;
            Ok(())
        })
        .await
    }

    /// Removes some of what is too old, abandoned claims included. What fails is tried again with a later mark.
    async fn purge(&self) {
        if !self.is_time_to_purge() {
            return;
        }
        if let Err(error) = self.remove_old().await {
            tracing::warn!(%error, "old processed events stay for now");
        }
    }

    fn is_time_to_purge(&self) -> bool {
        let now = self.clock.monotonic();
        let mut purged = self.purged.lock().unwrap_or_else(PoisonError::into_inner);
        let due = purged.is_none_or(|last| now.saturating_sub(last) >= PURGE_EVERY);
        if due {
            *purged = Some(now);
        }
        due
    }

    async fn remove_old(&self) -> Result<(), LedgerError> {
        let statement = "DELETE FROM processed_events WHERE consumer_group = $1 AND event IN (
                 SELECT event FROM processed_events WHERE consumer_group = $1 AND touched_at < $2 LIMIT $3)";
        let before = millis(self.clock.now()) - self.remember.as_millis() as i64;
        let delete = || async {
            let deleted = query(statement)
                .bind(self.group.clone())
                .bind(before)
                .bind(PURGED_AT_ONCE)
                .execute(&self.database.write);
            Ok(deleted.await?.rows_affected())
        };
        while bounded(delete()).await? == PURGED_AT_ONCE as u64 {}
        Ok(())
    }
}

#[async_trait]
impl ProcessedEvents for SqlProcessedEvents {
    async fn claim(&self, candidates: &[Candidate<'_>], lease: Duration) -> Result<Vec<Claim>, StoreError> {
        let mut claims = Vec::with_capacity(candidates.len());
        for chunk in candidates.chunks(CHUNK) {
            claims.extend(self.claim_chunk(chunk, lease).await.map_err(unknown)?);
        }
        Ok(claims)
    }

    async fn mark(&self, ids: &[&str]) -> Result<(), StoreError> {
        for chunk in ids.chunks(CHUNK) {
            self.mark_chunk(chunk).await.map_err(unknown)?;
        }
        self.purge().await;
        Ok(())
    }
}

fn unknown(error: LedgerError) -> StoreError {
    StoreError(error.to_string())
}
