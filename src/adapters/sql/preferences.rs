//! What recipients want to get, and the addresses that get nothing.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, Row as _, query};

use super::database::{Database, bounded, sql};
use super::insert::text;
use super::ledger::id_rows;
use super::rows::{bad_column, millis, timestamp};
use crate::domain::channel::Channel;
use crate::domain::envelope::to_json;
use crate::domain::preferences::{MAX_OPT_OUTS, OptOut, Preferences};
use crate::domain::recipient::comparable;
use crate::domain::time::format_utc;
use crate::ports::contacts::Suppression;
use crate::ports::ledger::LedgerError;

/// The preferences column of a row, where there is one.
fn read(row: &AnyRow) -> Result<Option<Preferences>, sqlx::Error> {
    Ok(row.try_get::<Option<&str>, _>("preferences")?.and_then(parse))
}

/// The service wrote them, so they read back; a stranger's edit costs the preferences, not the batch.
pub(super) fn parse(json: &str) -> Option<Preferences> {
    let read = serde_json::from_str(json);
    read.inspect_err(|error| tracing::error!(%error, "preferences that cannot be read count as none")).ok()
}

pub(super) async fn preferences(database: &Database, id: &str) -> Result<Option<Preferences>, LedgerError> {
    let statement = "SELECT preferences FROM preferences WHERE recipient = $1";
    bounded(async {
        let row = query(statement).bind(id.to_owned()).fetch_optional(&database.read).await?;
        row.as_ref().map_or(Ok(None), read)
    })
    .await
}

pub(super) async fn set(database: &Database, id: &str, preferences: &Preferences) -> Result<(), LedgerError> {
    bounded(async { upsert(id, preferences).execute(&database.write).await.map(drop) }).await
}

fn upsert(id: &str, preferences: &Preferences) -> Query<'static, Any, AnyArguments> {
    let statement = "INSERT INTO preferences (recipient, preferences, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (recipient) DO UPDATE SET preferences = excluded.preferences, updated_at = excluded.updated_at";
    query(statement).bind(id.to_owned()).bind(text(to_json(preferences))).bind(millis(Timestamp::now()))
}

pub(super) async fn refuse(database: &Database, id: &str, refusal: OptOut) -> Result<(), LedgerError> {
    let select = "SELECT preferences FROM preferences WHERE recipient = $1";
    bounded(async {
        let mut tx = database.begin().await?;
        // Two refusals at once must not undo each other.
        query(database.dialect.contacts_lock()).fetch_all(&mut *tx).await?;
        let row = query(select).bind(id.to_owned()).fetch_optional(&mut *tx).await?;
        let mut preferences = row.as_ref().map_or(Ok(None), read)?.unwrap_or_default();
        if !preferences.opt_out.contains(&refusal) {
            preferences.opt_out.push(refusal);
        }
        // Beyond the bound the oldest gives way.
        let surplus = preferences.opt_out.len().saturating_sub(MAX_OPT_OUTS);
        preferences.opt_out.drain(..surplus);
        upsert(id, &preferences).execute(&mut *tx).await?;
        tx.commit().await
    })
    .await
}

/// Which of these addresses are suppressed, in the spelling that was asked for, with the reason.
pub(super) async fn suppressed(
    database: &Database,
    channel: Channel,
    addresses: &[&str],
) -> Result<HashMap<String, String>, LedgerError> {
    if addresses.is_empty() {
        return Ok(HashMap::new());
    }
    let mut asked: HashMap<String, Vec<&str>> = HashMap::new();
    for address in addresses {
        asked.entry(comparable(channel, address)).or_default().push(address);
    }
    let statement = format!(
        "SELECT s.address AS address, s.reason AS reason FROM {} JOIN suppressions s ON s.address = r.id
         WHERE s.channel = $2",
        database.dialect.rows(&[("id", "text")])
    );
    let ids = id_rows(asked.keys().map(String::as_str));
    bounded(async {
        let rows = query(sql(statement)).bind(ids).bind(channel.as_str()).fetch_all(&database.read).await?;
        let mut found = HashMap::new();
        for row in rows {
            let (address, reason): (String, String) = (row.try_get("address")?, row.try_get("reason")?);
            let spellings = asked.get(&address).into_iter().flatten();
            found.extend(spellings.map(|spelling| ((*spelling).to_owned(), reason.clone())));
        }
        Ok(found)
    })
    .await
}

#[derive(Serialize)]
struct Row<'a> {
    address: String,
    reason: &'a str,
}

pub(super) async fn suppress(
    database: &Database,
    channel: Channel,
    addresses: &[String],
    reason: &str,
) -> Result<Vec<Suppression>, LedgerError> {
    let mut rows: Vec<Row<'_>> =
        addresses.iter().map(|address| Row { address: comparable(channel, address), reason }).collect();
    rows.sort_by(|a, b| a.address.cmp(&b.address));
    rows.dedup_by(|a, b| a.address == b.address);
    // Only what is written is returned: one that is there is written as it is.
    let statement = format!(
        "INSERT INTO suppressions (channel, address, reason, created_at)
         SELECT $2, r.address, r.reason, $3 FROM {} WHERE true
         ON CONFLICT (channel, address) DO UPDATE SET reason = suppressions.reason
         RETURNING channel, address, reason, created_at",
        database.dialect.rows(&[("address", "text"), ("reason", "text")])
    );
    bounded(async {
        let stored = query(sql(statement))
            .bind(text(to_json(&rows)))
            .bind(channel.as_str())
            .bind(millis(Timestamp::now()))
            .fetch_all(&database.write)
            .await?;
        stored.iter().map(suppression).collect()
    })
    .await
}

pub(super) async fn unsuppress(database: &Database, channel: Channel, address: &str) -> Result<bool, LedgerError> {
    let statement = "DELETE FROM suppressions WHERE channel = $1 AND address = $2";
    bounded(async {
        let address = comparable(channel, address);
        let result = query(statement).bind(channel.as_str()).bind(address).execute(&database.write).await?;
        Ok(result.rows_affected() > 0)
    })
    .await
}

pub(super) async fn suppressions(
    database: &Database,
    after: Option<(String, String)>,
    skip: usize,
    limit: usize,
) -> Result<Vec<Suppression>, LedgerError> {
    let statement = "SELECT channel, address, reason, created_at FROM suppressions
         WHERE (channel, address) > ($1, $2) ORDER BY channel, address LIMIT $3 OFFSET $4";
    let (channel, address) = after.unwrap_or_default();
    bounded(async {
        let page = query(statement).bind(channel).bind(address).bind(limit as i64).bind(skip as i64);
        let rows = page.fetch_all(&database.read).await?;
        rows.iter().map(suppression).collect()
    })
    .await
}

fn suppression(row: &AnyRow) -> Result<Suppression, sqlx::Error> {
    let channel: String = row.try_get("channel")?;
    Ok(Suppression {
        channel: channel.parse().map_err(|e| bad_column("channel", format!("{e}")))?,
        address: row.try_get("address")?,
        reason: row.try_get("reason")?,
        created_at: format_utc(timestamp(row.try_get("created_at")?)),
    })
}
