//! The outbox over SQL.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sqlx::query;
use tokio::sync::watch;

use super::contents::list;
use super::database::{Database, bounded, sql};
use super::messages;
use crate::ports::ledger::LedgerError;
use crate::ports::outbox::{Added, FreshEvents, Outbox, Waiting};

/// Fresh messages that are kept beside the database at most. What goes beyond is read from there later.
pub(super) const MOST_FRESH: usize = 5000;
/// For how long fresh messages are reserved for who settled them.
pub(super) const RESERVED_MS: i64 = 15_000;

/// What this process settled a moment ago, and how much that was so far.
#[derive(Clone)]
pub(super) struct OwnMessages {
    fresh: Arc<Mutex<VecDeque<FreshEvents>>>,
    added: watch::Sender<Added>,
}

impl OwnMessages {
    pub fn new() -> Self {
        Self { fresh: Arc::default(), added: watch::Sender::new(Added::default()) }
    }

    /// These are in the database now; `unreserved` says that others are too.
    pub fn add(&self, fresh: impl IntoIterator<Item = FreshEvents>, unreserved: bool) {
        let (mut batches, mut surplus) = (0, false);
        for fresh in fresh {
            batches += 1;
            // While nobody watches, nobody takes them.
            if self.added.receiver_count() > 0 {
                let mut kept = self.lock();
                match kept.iter().map(|f| f.messages.len()).sum::<usize>() {
                    ..MOST_FRESH => kept.push_back(fresh),
                    _ => surplus = true,
                }
            }
        }
        if batches > 0 || unreserved {
            self.added.send_modify(|added| {
                added.batches += batches;
                added.unreserved += u64::from(unreserved || surplus);
            });
        }
    }

    /// A queue stays whole whatever panics around it.
    fn lock(&self) -> MutexGuard<'_, VecDeque<FreshEvents>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Outbox for Database {
    fn fresh(&self) -> Option<FreshEvents> {
        self.own_messages.lock().pop_front()
    }

    async fn reserve(&self, now_ms: i64, until_ms: i64, limit: usize) -> Result<Vec<Waiting>, LedgerError> {
        let statement = format!(
            "WITH oldest AS MATERIALIZED (
                 SELECT id AS oldest_id FROM outbox WHERE reserved_until <= $2 ORDER BY id LIMIT $3 {})
             UPDATE outbox SET reserved_until = $1 WHERE id {}
             RETURNING id, kind, messages",
            self.dialect.skip_locked(),
            self.dialect.among("SELECT oldest_id FROM oldest")
        );
        bounded(async {
            let mut tx = self.begin_lazily().await?;
            let reserve = query(sql(statement)).bind(until_ms).bind(now_ms).bind(limit as i64);
            let rows = reserve.fetch_all(&mut *tx).await?;
            tx.commit().await?;
            let mut waiting = rows.iter().filter_map(messages::waiting).collect::<Vec<_>>();
            waiting.sort_by_key(|w| w.id);
            Ok(waiting)
        })
        .await
    }

    async fn remove(&self, ids: &[i64]) -> Result<(), LedgerError> {
        let statement = format!("DELETE FROM outbox WHERE id {}", self.dialect.among_seqs());
        bounded(async {
            // What comes back is published again, under the same id.
            let mut tx = self.begin_lazily().await?;
            query(sql(statement)).bind(list(ids)).execute(&mut *tx).await?;
            tx.commit().await
        })
        .await
    }

    fn added(&self) -> watch::Receiver<Added> {
        self.own_messages.added.subscribe()
    }
}
