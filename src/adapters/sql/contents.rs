//! What is held, as it is worked with: the notification, its request, and what is known about its recipient.

use sqlx::any::AnyRow;
use sqlx::{Any, Executor, Row as _, query};

use super::database::sql;
use super::dialect::Dialect;
use super::rows::{bad_column, key, timestamp};
use super::{contacts, preferences};
use crate::domain::channel::Channel;
use crate::ports::ledger::{Claimed, OriginCoordinates};

const COLUMNS: &str = "n.seq AS seq, n.channel AS channel, n.lane AS lane, n.round AS round, n.attempts AS attempts,
    n.unknowns AS unknowns, n.next_attempt_at AS next_attempt_at, n.first_failure_at AS first_failure_at,
    n.expires_at AS expires_at, n.digest_id AS digest_id, n.reopened AS reopened,
    q.id AS id, q.aggregate_id AS aggregate_id, q.recipient AS recipient, q.template AS template,
    q.category AS category, q.critical AS critical, q.correlation_id AS correlation_id, q.caused_at AS caused_at,
    q.request AS request, q.origin_topic AS origin_topic, q.origin_partition AS origin_partition,
    q.origin_offset AS origin_offset, q.origin_key AS origin_key, q.headers AS headers,
    c.email AS email, c.phone AS phone, c.locale AS locale, c.time_zone AS time_zone, c.devices AS devices,
    c.version AS version, p.preferences AS preferences";

/// The numbers in rows that have them.
pub(super) fn seqs_of(rows: &[AnyRow]) -> Result<Vec<i64>, sqlx::Error> {
    rows.iter().map(|row| row.try_get("seq")).collect()
}

/// Numbers as [`Dialect::seqs`] takes them.
pub(super) fn list(seqs: &[i64]) -> String {
    let seqs: Vec<String> = seqs.iter().map(i64::to_string).collect();
    seqs.join(",")
}

/// These notifications, in the order in which they are due.
pub(super) async fn contents(
    executor: impl Executor<'_, Database = Any>,
    dialect: Dialect,
    seqs: &[i64],
) -> Result<Vec<Claimed>, sqlx::Error> {
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    let statement = format!(
        "SELECT {COLUMNS} FROM {} JOIN notifications n ON n.seq = r.seq JOIN requests q ON q.seq = n.seq
             LEFT JOIN recipients c ON c.id = q.recipient LEFT JOIN preferences p ON p.recipient = q.recipient",
        dialect.seqs()
    );
    let rows = query(sql(statement)).bind(list(seqs)).fetch_all(executor).await?;
    let mut all = rows.iter().map(claimed).collect::<Result<Vec<_>, _>>()?;
    all.sort_by_key(|claimed| (claimed.due, claimed.seq));
    Ok(all)
}

fn claimed(row: &AnyRow) -> Result<Claimed, sqlx::Error> {
    let channel: String = row.try_get("channel")?;
    let channel: Channel = channel.parse().map_err(|e| bad_column("channel", format!("{e}")))?;
    let optional = |column: &str| row.try_get::<Option<i64>, _>(column);
    let recipient: Option<String> = row.try_get("recipient")?;
    let version = optional("version")?;
    let contact = match (version, &recipient) {
        (Some(_), Some(id)) => Some(contacts::recipient(id.clone(), row)?),
        _ => None,
    };
    Ok(Claimed {
        seq: row.try_get("seq")?,
        id: row.try_get("id")?,
        aggregate_id: row.try_get("aggregate_id")?,
        channel,
        template: row.try_get("template")?,
        category: row.try_get("category")?,
        recipient,
        contact,
        contact_version: version.unwrap_or_default(),
        preferences: preferences::read(row)?,
        critical: row.try_get::<i64, _>("critical")? != 0,
        expires_at: optional("expires_at")?.map(timestamp),
        digest_id: row.try_get("digest_id")?,
        reopened: row.try_get::<i64, _>("reopened")? as u32,
        correlation_id: row.try_get("correlation_id")?,
        caused_at: timestamp(row.try_get("caused_at")?),
        due: optional("next_attempt_at")?.map(timestamp),
        request_json: row.try_get("request")?,
        round: row.try_get::<i64, _>("round")? as u16,
        lane: row.try_get::<i64, _>("lane")? as u16,
        attempts: row.try_get::<i64, _>("attempts")? as u32,
        unknowns: row.try_get::<i64, _>("unknowns")? as u32,
        first_failure_at: optional("first_failure_at")?.map(timestamp),
        origin: OriginCoordinates {
            topic: row.try_get("origin_topic")?,
            partition: optional("origin_partition")?.map(|p| p as i32),
            offset: optional("origin_offset")?,
            key: key(row, "origin_key")?,
            headers_json: row.try_get("headers")?,
        },
    })
}
