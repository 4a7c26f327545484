//! Settling claimed notifications: their state, their attempt and their outbox messages in one transaction.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::{Any, Row as _, Transaction, query};

use super::contents::seqs_of;
use super::database::{Database, bounded, sql};
use super::dialect::being_sent;
use super::insert::text;
use super::outbox::RESERVED_MS;
use super::rows::millis;
use super::wake::Wake;
use crate::domain::bytes;
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
struct OutboxRow<'a> {
    kind: &'a str,
    key: Option<String>,
    body: &'a str,
    headers: &'a str,
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

/// The name of an outbox kind in the database.
pub(super) fn kind_name(kind: OutboxKind) -> &'static str {
    match kind {
        OutboxKind::Lifecycle => "lifecycle",
        OutboxKind::DeadLetter => "dead_letter",
    }
}

pub(super) async fn settle(database: &Database, settlements: &[Settlement]) -> Result<Vec<String>, LedgerError> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    let Written { settled, fresh } = bounded(async {
        let mut tx = database.begin().await?;
        let written = write(database, &mut tx, settlements).await?;
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

struct Statements {
    attempts: String,
    notifications: String,
    outbox: String,
    recheck: String,
}

impl Statements {
    fn new(database: &Database) -> Self {
        let rows = |columns: &[(&str, &str)]| database.dialect.rows(columns);
        Self {
            attempts: format!(
                "UPDATE attempts
                 SET outcome = r.outcome, duration_ms = r.duration_ms, receipt = r.receipt, error = r.error
                 FROM {} WHERE attempts.seq = r.seq AND attempts.number = r.number",
                rows(&[
                    ("seq", "bigint"),
                    ("number", "bigint"),
                    ("outcome", "text"),
                    ("duration_ms", "bigint"),
                    ("receipt", "text"),
                    ("error", "text"),
                ])
            ),
            notifications: format!(
                "UPDATE notifications
                 SET state = r.state, next_attempt_at = r.next_attempt_at, round = r.round, lane = r.lane,
                     attempts = COALESCE(r.attempts, notifications.attempts), unknowns = r.unknowns,
                     first_failure_at = COALESCE(notifications.first_failure_at, r.failed_at),
                     receipt = r.receipt, reason = r.reason, settled_at = r.settled_at,
                     awaiting_since = COALESCE(notifications.awaiting_since, r.awaiting_since),
                     lease_owner = NULL, lease_until = NULL, interrupted = NULL
                 FROM {} WHERE notifications.seq = r.seq AND notifications.lease_owner = r.owner AND {}
                 RETURNING notifications.seq AS seq",
                rows(&[
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
                ]),
                being_sent("notifications")
            ),
            outbox: format!(
                "INSERT INTO outbox (kind, key, body, headers, reserved_until)
                 SELECT r.kind, r.key, r.body, r.headers, CASE WHEN r.kind = '{}' THEN $2 ELSE 0 END FROM {} WHERE true
                 RETURNING id, kind",
                kind_name(OutboxKind::Lifecycle),
                rows(&[("kind", "text"), ("key", "text"), ("body", "text"), ("headers", "text")])
            ),
            recheck: format!(
                "UPDATE notifications SET state = 'pending', next_attempt_at = $2
                 FROM {} WHERE notifications.seq = r.seq AND notifications.state = 'awaiting_contact'
                   AND EXISTS (SELECT 1 FROM recipients c
                               WHERE c.id = notifications.recipient AND c.version > r.contact_version)",
                rows(&[("seq", "bigint"), ("contact_version", "bigint")])
            ),
        }
    }
}

/// Settles within the caller's transaction.
pub(super) async fn write(
    database: &Database,
    tx: &mut Transaction<'static, Any>,
    settlements: &[Settlement],
) -> Result<Written, sqlx::Error> {
    let sqls = Statements::new(database);
    if settlements.iter().any(|s| s.state == State::AwaitingContact) {
        query(database.dialect.contacts_lock()).fetch_all(&mut **tx).await?;
    }
    let mut rows: Vec<NotificationRow<'_>> = settlements.iter().map(notification_row).collect();
    // Everybody locks them in this order.
    rows.sort_unstable_by_key(|row| row.seq);
    let changed = query(sql(sqls.notifications)).bind(text(to_json(&rows))).fetch_all(&mut **tx).await?;
    let changed: HashSet<i64> = seqs_of(&changed)?.into_iter().collect();
    // Only the owner settles and publishes: a notification that was taken over belongs to somebody else's story now.
    let settled: Vec<&Settlement> = settlements.iter().filter(|s| changed.contains(&s.seq)).collect();
    let attempts: Vec<AttemptRow<'_>> = settled.iter().filter_map(|s| attempt_row(s)).collect();
    if !attempts.is_empty() {
        query(sql(sqls.attempts)).bind(text(to_json(&attempts))).execute(&mut **tx).await?;
    }
    let at = settlements.iter().map(|s| millis(s.at)).max().unwrap_or_default();
    let messages: Vec<&OutboxMessage> = settled.iter().flat_map(|s| &s.outbox).collect();
    let fresh = add_messages(tx, sqls.outbox, &messages, at + RESERVED_MS).await?;
    let awaiting: Vec<AwaitingRow> = settled
        .iter()
        .filter(|s| s.state == State::AwaitingContact)
        .map(|s| AwaitingRow { seq: s.seq, contact_version: s.contact_version })
        .collect();
    if !awaiting.is_empty() {
        query(sql(sqls.recheck)).bind(text(to_json(&awaiting))).bind(at).execute(&mut **tx).await?;
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

fn outbox_row(message: &OutboxMessage) -> OutboxRow<'_> {
    OutboxRow {
        kind: kind_name(message.kind),
        key: message.key.as_deref().map(bytes::encode),
        body: &message.body,
        headers: &message.headers_json,
    }
}

/// Adds messages to the outbox; lifecycle events are reserved for whoever settles until the time given.
async fn add_messages(
    tx: &mut Transaction<'static, Any>,
    statement: String,
    messages: &[&OutboxMessage],
    reserved_until_ms: i64,
) -> Result<Option<FreshEvents>, sqlx::Error> {
    if messages.is_empty() {
        return Ok(None);
    }
    let rows: Vec<OutboxRow<'_>> = messages.iter().copied().map(outbox_row).collect();
    let added = query(sql(statement)).bind(text(to_json(&rows))).bind(reserved_until_ms).fetch_all(&mut **tx).await?;
    let mut ids = Vec::with_capacity(added.len());
    for row in &added {
        if row.try_get::<&str, _>("kind")? == kind_name(OutboxKind::Lifecycle) {
            ids.push(row.try_get("id")?);
        }
    }
    let events = messages.iter().filter(|m| m.kind == OutboxKind::Lifecycle).map(|m| (*m).clone()).collect();
    Ok((!ids.is_empty()).then_some(FreshEvents { ids, messages: events, reserved_until_ms }))
}
