//! Outbox messages as rows: those of one settlement share a few, for a row costs more than what is in it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::any::AnyRow;
use sqlx::{Any, Row as _, Transaction, query};

use super::database::sql;
use super::insert::text;
use crate::domain::bytes;
use crate::domain::envelope::to_json;
use crate::domain::record::Headers;
use crate::ports::ledger::{OutboxKind, OutboxMessage};
use crate::ports::outbox::{Flaw, FreshEvents, MOST_TOGETHER, Waiting};

/// Rows of one statement at most.
const MOST_ROWS: usize = 20;

#[derive(Serialize)]
struct Written<'a> {
    #[serde(with = "bytes")]
    key: &'a Option<Vec<u8>>,
    headers: &'a Headers,
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct Read {
    #[serde(with = "bytes")]
    key: Option<Vec<u8>>,
    headers: Headers,
    body: Box<RawValue>,
}

/// The name of a kind in the database.
fn kind_name(kind: OutboxKind) -> &'static str {
    match kind {
        OutboxKind::Lifecycle => "lifecycle",
        OutboxKind::DeadLetter => "dead_letter",
    }
}

/// Adds messages to the outbox. Lifecycle events are reserved, until the time given, for whoever settles.
pub(super) async fn insert(
    tx: &mut Transaction<'static, Any>,
    messages: &[&OutboxMessage],
    reserved_until_ms: i64,
) -> Result<Option<FreshEvents>, sqlx::Error> {
    let (events, letters): (Vec<&OutboxMessage>, Vec<&OutboxMessage>) =
        messages.iter().partition(|message| message.kind == OutboxKind::Lifecycle);
    // A letter may be large, and waits alone.
    insert_rows(tx, OutboxKind::DeadLetter, letters.chunks(1), 0).await?;
    let ids = insert_rows(tx, OutboxKind::Lifecycle, events.chunks(MOST_TOGETHER), reserved_until_ms).await?;
    let messages = events.into_iter().cloned().collect();
    Ok((!ids.is_empty()).then_some(FreshEvents { ids, messages, reserved_until_ms }))
}

async fn insert_rows<'a>(
    tx: &mut Transaction<'static, Any>,
    kind: OutboxKind,
    rows: impl Iterator<Item = &'a [&'a OutboxMessage]>,
    reserved_until_ms: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    let mut rows = rows.map(written).peekable();
    let mut ids = Vec::new();
    while rows.peek().is_some() {
        let rows: Vec<String> = rows.by_ref().take(MOST_ROWS).collect();
        let values: Vec<String> = (3..).take(rows.len()).map(|n| format!("($1, ${n}, $2)")).collect();
        let statement =
            format!("INSERT INTO outbox (kind, messages, reserved_until) VALUES {} RETURNING id", values.join(", "));
        let insert = query(sql(statement)).bind(kind_name(kind)).bind(reserved_until_ms);
        let insert = rows.into_iter().fold(insert, |insert, row| insert.bind(row));
        for added in insert.fetch_all(&mut **tx).await? {
            ids.push(added.try_get("id")?);
        }
    }
    Ok(ids)
}

fn written(messages: &[&OutboxMessage]) -> String {
    let messages: Vec<Written<'_>> =
        messages.iter().map(|OutboxMessage { key, headers, body, .. }| Written { key, headers, body }).collect();
    text(to_json(&messages))
}

/// Reads a row. One whose messages a stranger's edit made unreadable comes as it stands; one that is no text at all is
/// complained about each time, and stays.
pub(super) fn waiting(row: &AnyRow) -> Option<Waiting> {
    let read = || -> Result<Waiting, sqlx::Error> {
        let kind: &str = row.try_get("kind")?;
        let letter = kind == kind_name(OutboxKind::DeadLetter);
        let kind = if letter { OutboxKind::DeadLetter } else { OutboxKind::Lifecycle };
        let text: &str = row.try_get("messages")?;
        let message = |Read { key, headers, body }| OutboxMessage { kind, key, headers, body };
        let (messages, flaw) = match serde_json::from_str::<Vec<Read>>(text) {
            Ok(messages) => (messages.into_iter().map(message).collect(), None),
            Err(error) => (Vec::new(), Some(Flaw { reason: error.to_string(), text: text.to_owned() })),
        };
        Ok(Waiting { id: row.try_get("id")?, kind, messages, flaw })
    };
    let id = row.try_get::<i64, _>("id").unwrap_or_default();
    read().inspect_err(|error| tracing::error!(%error, id, "a row of the outbox cannot be read")).ok()
}
