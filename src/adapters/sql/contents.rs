//! What is held, as it is worked with: the notification, its request, and what is known about its recipient.

use serde::Deserialize;
use sqlx::any::AnyRow;
use sqlx::{Any, Executor, FromRow, Row as _, query, query_as};

use super::database::sql;
use super::dialect::Dialect;
use super::rows::{bad_column, base64, timestamp};
use super::{contacts, preferences};
use crate::domain::recipient::Recipient;
use crate::ports::ledger::{Claimed, OriginCoordinates};

/// In the order of [`Found`].
const COLUMNS: &str =
    "n.seq, n.channel, n.lane, n.round, n.attempts, n.unknowns, n.next_attempt_at, n.first_failure_at,
    n.expires_at, n.digest_id, n.about, n.awaiting_since, n.reopened, q.id, q.aggregate_id, q.recipient, q.template,
    q.category, q.critical, q.correlation_id, q.caused_at, q.created_at, q.request, q.origin_topic, q.origin_partition,
    q.origin_offset, q.origin_key, q.headers, c.version, c.email, c.phone, c.locale, c.time_zone, c.devices, p.preferences";

/// What is known about a notification.
#[derive(Deserialize, FromRow)]
struct Found {
    seq: i64,
    channel: String,
    lane: i64,
    round: i64,
    attempts: i64,
    unknowns: i64,
    next_attempt_at: Option<i64>,
    first_failure_at: Option<i64>,
    expires_at: Option<i64>,
    digest_id: Option<String>,
    about: Option<String>,
    awaiting_since: Option<i64>,
    reopened: i64,
    id: String,
    aggregate_id: String,
    recipient: Option<String>,
    template: String,
    category: String,
    critical: i64,
    correlation_id: String,
    caused_at: i64,
    created_at: i64,
    request: String,
    origin_topic: String,
    origin_partition: Option<i64>,
    origin_offset: Option<i64>,
    origin_key: Option<String>,
    headers: String,
    /// Of the contact; those behind it belong to it.
    version: Option<i64>,
    email: Option<String>,
    phone: Option<String>,
    locale: Option<String>,
    time_zone: Option<String>,
    devices: Option<String>,
    preferences: Option<String>,
}

/// The numbers in rows that have them.
pub(super) fn seqs_of(rows: &[AnyRow]) -> Result<Vec<i64>, sqlx::Error> {
    rows.iter().map(|row| row.try_get("seq")).collect()
}

/// Numbers as [`Dialect::seqs`] takes them.
pub(super) fn list(seqs: &[i64]) -> String {
    let seqs: Vec<String> = seqs.iter().map(i64::to_string).collect();
    seqs.join(",")
}

/// The notifications with these numbers, as [`Dialect::seqs`] takes them, in the order in which they are due.
pub(super) async fn contents(
    executor: impl Executor<'_, Database = Any>,
    dialect: Dialect,
    seqs: String,
) -> Result<Vec<Claimed>, sqlx::Error> {
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    let tables = format!(
        "{} JOIN notifications n ON n.seq = r.seq JOIN requests q ON q.seq = n.seq
             LEFT JOIN recipients c ON c.id = q.recipient LEFT JOIN preferences p ON p.recipient = q.recipient",
        dialect.seqs()
    );
    let found: Vec<Found> = match dialect {
        Dialect::Postgres => {
            query_as(sql(format!("SELECT {COLUMNS} FROM {tables}"))).bind(seqs).fetch_all(executor).await?
        }
        // SQLite runs in a thread of its own: to hand over so many columns of so many rows takes longer than to find them.
        Dialect::Sqlite => {
            let one_text = format!("SELECT json_group_array(json_array({COLUMNS})) AS found FROM {tables}");
            let row = query(sql(one_text)).bind(seqs).fetch_one(executor).await?;
            serde_json::from_str(row.try_get("found")?).map_err(|e| bad_column("found", e.to_string()))?
        }
    };
    let mut all = found.into_iter().map(claimed).collect::<Result<Vec<_>, _>>()?;
    all.sort_by_key(|claimed| (claimed.due, claimed.seq));
    Ok(all)
}

fn claimed(found: Found) -> Result<Claimed, sqlx::Error> {
    let Found { email, phone, locale, time_zone, .. } = found;
    let devices = contacts::devices(found.devices.as_deref().unwrap_or_default());
    // Only a hand can have spoilt it: it costs the dead letter its key, and not all that is claimed with it.
    let key = base64(found.origin_key.as_deref(), "origin_key").unwrap_or_else(|error| {
        tracing::error!(%error, notification = found.id, "the key of a request's record cannot be read");
        None
    });
    let contact = found.version.and(found.recipient.clone());
    let contact = contact.map(|id| Recipient { id, email, phone, locale, time_zone, devices });
    Ok(Claimed {
        seq: found.seq,
        id: found.id,
        aggregate_id: found.aggregate_id,
        channel: found.channel.parse().map_err(|e| bad_column("channel", format!("{e}")))?,
        template: found.template,
        category: found.category,
        recipient: found.recipient,
        contact,
        contact_version: found.version.unwrap_or_default(),
        preferences: found.preferences.as_deref().and_then(preferences::parse),
        critical: found.critical != 0,
        expires_at: found.expires_at.map(timestamp),
        digest_id: found.digest_id,
        about: found.about,
        awaiting_since: found.awaiting_since.map(timestamp),
        reopened: found.reopened as u32,
        correlation_id: found.correlation_id,
        caused_at: timestamp(found.caused_at),
        received_at: timestamp(found.created_at),
        due: found.next_attempt_at.map(timestamp),
        request_json: found.request,
        round: found.round as u16,
        lane: found.lane as u16,
        attempts: found.attempts as u32,
        unknowns: found.unknowns as u32,
        first_failure_at: found.first_failure_at.map(timestamp),
        origin: OriginCoordinates {
            topic: found.origin_topic,
            partition: found.origin_partition.map(|partition| partition as i32),
            offset: found.origin_offset,
            key,
            headers_json: found.headers,
        },
    })
}
