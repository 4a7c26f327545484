//! From database rows to the ledger's types and back.

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{Error, Row as _};

use crate::domain::bytes;
use crate::domain::channel::Channel;
use crate::domain::time::format_utc;
use crate::ports::ledger::{AttemptView, Claimed, NotificationView, OriginCoordinates, State};

/// The columns that a claim returns.
pub const CLAIM_COLUMNS: &str = "seq, id, aggregate_id, channel, recipient, template, category, correlation_id, caused_at, request, \
     origin_topic, origin_partition, origin_offset, origin_key, headers, lane, round, attempts, unknowns, \
     next_attempt_at, first_failure_at, critical, expires_at, digest_id, reopened";

/// The columns of a notification as it is shown: not its request, which may be large.
pub const VIEW_COLUMNS: &str = "seq, id, state, channel, recipient, template, category, created_at, settled_at, receipt, \
     reason, next_attempt_at, expires_at, digest_id, correlation_id, causation_id";

/// Milliseconds since 1970.
pub fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// From milliseconds since 1970; anything out of range becomes 1970 itself.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn bad_column(column: &str, problem: String) -> Error {
    Error::ColumnDecode { index: column.to_owned(), source: problem.into() }
}

/// Reads a base64 column.
pub fn key(row: &AnyRow, column: &str) -> Result<Option<Vec<u8>>, Error> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|t| bytes::decode(&t)).transpose().map_err(|e| bad_column(column, e))
}

/// Reads a claimed notification, with what orders it.
pub fn claimed(row: &AnyRow) -> Result<((i64, i64), Claimed), Error> {
    let channel: String = row.try_get("channel")?;
    let channel: Channel = channel.parse().map_err(|e| bad_column("channel", format!("{e}")))?;
    let optional = |column: &str| row.try_get::<Option<i64>, _>(column);
    let due = optional("next_attempt_at")?;
    let claimed = Claimed {
        id: row.try_get("id")?,
        aggregate_id: row.try_get("aggregate_id")?,
        channel,
        template: row.try_get("template")?,
        category: row.try_get("category")?,
        recipient: row.try_get("recipient")?,
        contact: None,
        contact_version: 0,
        preferences: None,
        critical: row.try_get::<i64, _>("critical")? != 0,
        expires_at: optional("expires_at")?.map(timestamp),
        digest_id: row.try_get("digest_id")?,
        reopened: row.try_get::<i64, _>("reopened")? as u32,
        correlation_id: row.try_get("correlation_id")?,
        caused_at: timestamp(row.try_get("caused_at")?),
        due: due.map(timestamp),
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
    };
    Ok(((due.unwrap_or_default(), row.try_get("seq")?), claimed))
}

/// Reads a notification as it is shown, without its attempts.
pub fn view(row: &AnyRow) -> Result<NotificationView, Error> {
    let at = |millis: i64| format_utc(timestamp(millis));
    Ok(NotificationView {
        id: row.try_get("id")?,
        state: row.try_get("state")?,
        channel: row.try_get("channel")?,
        recipient: row.try_get("recipient")?,
        template: row.try_get("template")?,
        category: row.try_get("category")?,
        created_at: at(row.try_get("created_at")?),
        settled_at: row.try_get::<Option<i64>, _>("settled_at")?.map(at),
        receipt: row.try_get("receipt")?,
        reason: row.try_get("reason")?,
        next_attempt_at: row.try_get::<Option<i64>, _>("next_attempt_at")?.map(at),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(at),
        digest_id: row.try_get("digest_id")?,
        correlation_id: row.try_get("correlation_id")?,
        causation_id: row.try_get("causation_id")?,
        attempts: Vec::new(),
    })
}

/// Reads an attempt as it is shown.
pub fn attempt(row: &AnyRow) -> Result<AttemptView, Error> {
    Ok(AttemptView {
        number: row.try_get("number")?,
        provider: row.try_get("provider")?,
        outcome: row.try_get("outcome")?,
        started_at: format_utc(timestamp(row.try_get("started_at")?)),
        duration_ms: row.try_get("duration_ms")?,
        receipt: row.try_get("receipt")?,
        error: row.try_get("error")?,
        report: row.try_get("report")?,
        template_version: row.try_get("template_version")?,
    })
}

/// Reads a state column.
pub fn state(row: &AnyRow) -> Result<State, Error> {
    let text: String = row.try_get("state")?;
    State::parse(&text).ok_or_else(|| bad_column("state", format!("unknown state {text}")))
}
