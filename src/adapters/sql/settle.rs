//! Settling claimed notifications: their state, their attempt and their outbox messages in one transaction.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::{Any, Transaction, query};

use super::contents::seqs_of;
use super::database::{Database, bounded, sql};
use super::dialect::{Dialect, being_sent};
use super::insert::text;
use super::messages;
use super::outbox::RESERVED_MS;
use super::rows::millis;
use super::wake::Wake;
use crate::domain::envelope::to_json;
use crate::ports::ledger::{LedgerError, OutboxKind, OutboxMessage, Settlement, State};
use crate::ports::outbox::FreshEvents;

#[derive(Serialize)]
struct NotificationRow<'a> {
    seq: i64,
    owner: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<i64>,
    round: u16,
    lane: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    unknowns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    awaiting_since: Option<i64>,
}

#[derive(Serialize)]
struct AttemptRow<'a> {
    seq: i64,
    number: u32,
    outcome: &'a str,
    duration_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct AwaitingRow {
    seq: i64,
    contact_version: i64,
}

fn notification_row(s: &Settlement) -> NotificationRow<'_> {
    let at = millis(s.at);
    let failed = s.state != State::Sent && s.attempt.is_some();
    NotificationRow {
        seq: s.seq,
        owner: &s.owner,
        state: s.state.as_str(),
        next_attempt_at: s.next_attempt_at.map(millis),
        round: s.round,
        lane: s.lane,
        attempts: s.attempt.as_ref().map(|a| a.number),
        unknowns: s.unknowns,
        failed_at: failed.then_some(at),
        receipt: s.attempt.as_ref().and_then(|a| a.receipt.as_deref()),
        reason: s.reason.as_deref(),
        settled_at: s.state.is_settled().then_some(at),
        awaiting_since: (s.state == State::AwaitingContact).then_some(at),
    }
}

pub(super) async fn settle(database: &Database, settlements: &[Settlement]) -> Result<Vec<String>, LedgerError> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    let Written { settled, fresh } = bounded(async {
        let mut tx = database.begin().await?;
        let written = match write_all(database, &mut tx, settlements).await? {
            Some(written) => written,
            None => {
                tx.rollback().await?;
                tx = database.begin().await?;
                write(database, &mut tx, settlements).await?
            }
        };
        tx.commit().await?;
        Ok(written)
    })
    .await?;
    announce(database, settlements, fresh);
    Ok(settled)
}

/// What a transaction wrote.
pub(super) struct Written {
    /// The ids of those that were settled.
    pub settled: Vec<String>,
    /// What their owner may publish without asking the database.
    pub fresh: Option<FreshEvents>,
}

/// Wakes whoever has something to do after these are settled, and durable.
pub(super) fn announce(database: &Database, settlements: &[Settlement], fresh: impl IntoIterator<Item = FreshEvents>) {
    let letters = settlements.iter().flat_map(|s| &s.outbox).any(|m| m.kind != OutboxKind::Lifecycle);
    database.own_messages.add(fresh, letters);
    if settlements.iter().any(|s| s.next_attempt_at.is_some() || s.state == State::AwaitingContact) {
        database.wakes.wake(Wake::Work);
    }
}

/// Changes those that their owner still holds.
fn changes(dialect: Dialect) -> String {
    let columns = [
        ("seq", "bigint"),
        ("owner", "text"),
        ("state", "text"),
        ("next_attempt_at", "bigint"),
        ("round", "bigint"),
        ("lane", "bigint"),
        ("attempts", "bigint"),
        ("unknowns", "bigint"),
        ("failed_at", "bigint"),
        ("receipt", "text"),
        ("reason", "text"),
        ("settled_at", "bigint"),
        ("awaiting_since", "bigint"),
    ];
    format!(
        "UPDATE notifications
         SET state = r.state, next_attempt_at = r.next_attempt_at, round = r.round, lane = r.lane,
             attempts = COALESCE(r.attempts, notifications.attempts), unknowns = r.unknowns,
             first_failure_at = COALESCE(notifications.first_failure_at, r.failed_at),
             receipt = r.receipt, reason = r.reason, settled_at = r.settled_at,
             awaiting_since = COALESCE(notifications.awaiting_since, r.awaiting_since),
             lease_owner = NULL, lease_until = NULL, interrupted = NULL
         FROM {} WHERE notifications.seq = r.seq AND notifications.lease_owner = r.owner AND {}",
        dialect.rows(&columns),
        being_sent("notifications")
    )
}

fn attempt_ends(dialect: Dialect) -> String {
    let columns = [
        ("seq", "bigint"),
        ("number", "bigint"),
        ("outcome", "text"),
        ("duration_ms", "bigint"),
        ("receipt", "text"),
        ("error", "text"),
    ];
    format!(
        "UPDATE attempts
         SET outcome = r.outcome, duration_ms = r.duration_ms, receipt = r.receipt, error = r.error
         FROM {} WHERE attempts.seq = r.seq AND attempts.number = r.number",
        dialect.rows(&columns)
    )
}

/// A contact that came meanwhile ends the wait for it.
fn rechecks(dialect: Dialect) -> String {
    format!(
        "UPDATE notifications SET state = 'pending', next_attempt_at = $2
         FROM {} WHERE notifications.seq = r.seq AND notifications.state = 'awaiting_contact'
           AND EXISTS (SELECT 1 FROM recipients c
                       WHERE c.id = notifications.recipient AND c.version > r.contact_version)",
        dialect.rows(&[("seq", "bigint"), ("contact_version", "bigint")])
    )
}

/// Settles within the caller's transaction those that their owner still holds.
pub(super) async fn write(
    database: &Database,
    tx: &mut Transaction<'static, Any>,
    settlements: &[Settlement],
) -> Result<Written, sqlx::Error> {
    prepare(database.dialect, tx, settlements).await?;
    let changes = format!("{} RETURNING notifications.seq AS seq", changes(database.dialect));
    let changed = query(sql(changes)).bind(rows(settlements)).fetch_all(&mut **tx).await?;
    let changed: HashSet<i64> = seqs_of(&changed)?.into_iter().collect();
    // Only the owner settles and publishes: a notification that was taken over belongs to somebody else's story now.
    let settled: Vec<&Settlement> = settlements.iter().filter(|s| changed.contains(&s.seq)).collect();
    write_rest(database.dialect, tx, &settled).await
}

/// As [`write`] where all are still their owner's, which is nearly always so: how many there were is known sooner than
/// which. None when it is not so; then the transaction is of no use.
async fn write_all(
    database: &Database,
    tx: &mut Transaction<'static, Any>,
    settlements: &[Settlement],
) -> Result<Option<Written>, sqlx::Error> {
    prepare(database.dialect, tx, settlements).await?;
    let change = query(sql(changes(database.dialect))).bind(rows(settlements));
    if change.execute(&mut **tx).await?.rows_affected() != settlements.len() as u64 {
        return Ok(None);
    }
    let settled: Vec<&Settlement> = settlements.iter().collect();
    write_rest(database.dialect, tx, &settled).await.map(Some)
}

async fn prepare(
    dialect: Dialect,
    tx: &mut Transaction<'static, Any>,
    settlements: &[Settlement],
) -> Result<(), sqlx::Error> {
    if settlements.iter().any(|s| s.state == State::AwaitingContact) {
        query(dialect.contacts_lock()).fetch_all(&mut **tx).await?;
    }
    Ok(())
}

/// The parameter of [`changes`].
fn rows(settlements: &[Settlement]) -> String {
    let mut rows: Vec<NotificationRow<'_>> = settlements.iter().map(notification_row).collect();
    // Everybody locks them in this order.
    rows.sort_unstable_by_key(|row| row.seq);
    text(to_json(&rows))
}

/// What belongs to notifications that were settled.
async fn write_rest(
    dialect: Dialect,
    tx: &mut Transaction<'static, Any>,
    settled: &[&Settlement],
) -> Result<Written, sqlx::Error> {
    let attempts: Vec<AttemptRow<'_>> = settled.iter().filter_map(|s| attempt_row(s)).collect();
    if !attempts.is_empty() {
        query(sql(attempt_ends(dialect))).bind(text(to_json(&attempts))).execute(&mut **tx).await?;
    }
    let at = settled.iter().map(|s| millis(s.at)).max().unwrap_or_default();
    let told: Vec<&OutboxMessage> = settled.iter().flat_map(|s| &s.outbox).collect();
    let fresh = messages::insert(tx, &told, at + RESERVED_MS).await?;
    let awaiting: Vec<AwaitingRow> = settled
        .iter()
        .filter(|s| s.state == State::AwaitingContact)
        .map(|s| AwaitingRow { seq: s.seq, contact_version: s.contact_version })
        .collect();
    if !awaiting.is_empty() {
        query(sql(rechecks(dialect))).bind(text(to_json(&awaiting))).bind(at).execute(&mut **tx).await?;
    }
    Ok(Written { settled: settled.iter().map(|s| s.id.clone()).collect(), fresh })
}

fn attempt_row(settlement: &Settlement) -> Option<AttemptRow<'_>> {
    let attempt = settlement.attempt.as_ref()?;
    Some(AttemptRow {
        seq: settlement.seq,
        number: attempt.number,
        outcome: attempt.outcome.as_str(),
        duration_ms: attempt.duration_ms,
        receipt: attempt.receipt.as_deref(),
        error: attempt.error.as_deref(),
    })
}
