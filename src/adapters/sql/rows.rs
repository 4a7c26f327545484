//! From database rows to the ledger's types and back.

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{Error, Row as _};

use crate::domain::bytes;
use crate::domain::time::format_utc;
use crate::ports::ledger::{AttemptView, NotificationView, State};

/// The columns of a notification as it is shown: not its request's text, which may be large.
pub const VIEW_COLUMNS: &str =
    "n.seq AS seq, q.id AS id, n.state AS state, n.channel AS channel, q.recipient AS recipient,
    q.template AS template, q.category AS category, q.created_at AS created_at, n.settled_at AS settled_at,
    n.receipt AS receipt, n.reason AS reason, n.next_attempt_at AS next_attempt_at, n.expires_at AS expires_at,
    n.digest_id AS digest_id, q.correlation_id AS correlation_id, q.causation_id AS causation_id";

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

/// Reads what is kept in base64 in this column.
pub fn base64(text: Option<&str>, column: &str) -> Result<Option<Vec<u8>>, Error> {
    text.map(bytes::decode).transpose().map_err(|e| bad_column(column, e))
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
