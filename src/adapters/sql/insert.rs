//! New notifications into the ledger.

use std::time::Duration;

use serde::Serialize;
use sqlx::{Any, Transaction, query};

use super::database::{Database, bounded, sql};
use super::rows::millis;
use super::wake::Wake;
use super::{digests, seize, settle};
use crate::domain::bytes;
use crate::domain::envelope::to_json;
use crate::ports::ledger::{Inserted, LedgerError, NewNotification, OUT_OF_TURN, Replacement, Selection, Settlement};

/// More notifications about one thing do not wait for one recipient.
const MOST_REPLACED: usize = 1000;

const COLUMNS: [(&str, &str); 20] = [
    ("id", "text"),
    ("aggregate_id", "text"),
    ("channel", "text"),
    ("recipient", "text"),
    ("template", "text"),
    ("category", "text"),
    ("correlation_id", "text"),
    ("causation_id", "text"),
    ("caused_at", "bigint"),
    ("request", "text"),
    ("origin_topic", "text"),
    ("origin_partition", "bigint"),
    ("origin_offset", "bigint"),
    ("origin_key", "text"),
    ("headers", "text"),
    ("next_attempt_at", "bigint"),
    ("created_at", "bigint"),
    ("critical", "bigint"),
    ("about", "text"),
    ("expires_at", "bigint"),
];

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    aggregate_id: &'a str,
    channel: &'a str,
    recipient: Option<&'a str>,
    template: &'a str,
    category: &'a str,
    correlation_id: &'a str,
    causation_id: Option<&'a str>,
    caused_at: i64,
    request: String,
    origin_topic: &'a str,
    origin_partition: Option<i32>,
    origin_offset: Option<i64>,
    origin_key: Option<String>,
    headers: String,
    next_attempt_at: i64,
    created_at: i64,
    critical: u8,
    about: Option<&'a str>,
    expires_at: Option<i64>,
}

fn row(new: &NewNotification) -> Row<'_> {
    let (request, origin, handling) = (&new.request, &new.origin, &new.handling);
    let received_at = millis(new.received_at);
    let collected_until = handling.digest_window.map_or(0, |window| received_at.saturating_add(duration_ms(window)));
    let not_before = request.send_at.map_or(0, millis).max(collected_until);
    Row {
        id: &request.id,
        aggregate_id: &request.aggregate_id,
        channel: request.channel.as_str(),
        recipient: request.recipient.as_deref(),
        template: &request.template,
        category: &request.category,
        correlation_id: &request.correlation_id,
        causation_id: request.causation_id.as_deref(),
        caused_at: millis(request.caused_at),
        request: String::from_utf8_lossy(origin.value.as_deref().unwrap_or_default()).into_owned(),
        origin_topic: &origin.topic,
        origin_partition: origin.partition,
        origin_offset: origin.offset,
        origin_key: origin.key.as_deref().map(bytes::encode),
        headers: text(to_json(&origin.headers)),
        next_attempt_at: received_at.max(not_before),
        created_at: received_at,
        critical: u8::from(handling.critical),
        about: handling.about.as_deref(),
        expires_at: handling.expires_at.map(millis),
    }
}

fn duration_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// JSON is UTF-8.
pub(super) fn text(json: Vec<u8>) -> String {
    String::from_utf8(json).unwrap_or_default()
}

pub(super) async fn insert(
    database: &Database,
    batch: &[NewNotification],
    replaced: &Replacement<'_>,
) -> Result<Inserted, LedgerError> {
    let rows: Vec<Row<'_>> = batch.iter().map(row).collect();
    let json = text(to_json(&rows));
    let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let picked: Vec<String> = names.iter().map(|name| format!("r.{name}")).collect();
    let statement = format!(
        "INSERT INTO notifications ({}, state, lane, round, attempts, unknowns)
         SELECT {}, 'pending', 0, 0, 0, 0 FROM {} WHERE true
         ON CONFLICT (id) DO NOTHING",
        names.join(", "),
        picked.join(", "),
        database.dialect.rows(&COLUMNS),
    );
    let plain = |new: &NewNotification| new.handling.digest_window.is_none() && new.handling.supersedes.is_empty();
    let (new, settled) = bounded(async {
        if batch.iter().all(plain) {
            let result = query(sql(statement)).bind(json).execute(&database.write).await?;
            return Ok((result.rows_affected(), Vec::new()));
        }
        let mut tx = database.begin().await?;
        query(database.dialect.contacts_lock()).fetch_all(&mut *tx).await?;
        let new = query(sql(statement)).bind(json).execute(&mut *tx).await?.rows_affected();
        digests::join(database, &mut tx, batch).await?;
        let settled = supersede(database, &mut tx, batch, replaced).await?;
        tx.commit().await?;
        Ok((new, settled))
    })
    .await?;
    settle::announce(database, &settled);
    if new > 0 {
        database.wakes.announce(Wake::Work);
    }
    Ok(Inserted { new, duplicates: (batch.len() as u64).saturating_sub(new), replaced: settled })
}

/// Settles what the new ones replace, before anybody can claim it.
async fn supersede(
    database: &Database,
    tx: &mut Transaction<'static, Any>,
    batch: &[NewNotification],
    replaced: &Replacement<'_>,
) -> Result<Vec<Settlement>, sqlx::Error> {
    let mut settled = Vec::new();
    for new in batch.iter().filter(|new| !new.handling.supersedes.is_empty()) {
        let Some(about) = new.handling.about.clone() else { continue };
        let selection = Selection::SupersededBy {
            about,
            recipient: new.request.recipient.clone(),
            templates: new.handling.supersedes.clone(),
            except: new.request.id.clone(),
            caused_at: new.request.caused_at,
            now: new.received_at,
        };
        let taken = seize::take(tx, database.dialect, &selection, OUT_OF_TURN, 0, MOST_REPLACED).await?;
        let settlements: Vec<Settlement> = taken.iter().map(|old| replaced(new, old)).collect();
        if !settlements.is_empty() {
            settle::write(database, tx, &settlements).await?;
            settled.extend(settlements);
        }
    }
    Ok(settled)
}
