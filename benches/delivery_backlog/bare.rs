//! What this database could do: plain statements of many rows each, one after the other on one connection, with no
//! templates, no leases to look after and no lifecycle events.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use notification_service::domain::envelope::to_json;
use notification_service::ports::ledger::NewNotification;
use serde::Serialize;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};

use crate::backlog::{Backlog, ROWS};
use crate::database::{Contents, Fresh, Kind};
use crate::round::Work;

pub struct Bare {
    pub insert: Duration,
    pub claim: Duration,
    pub settle: Duration,
}

#[derive(Serialize)]
struct New<'a> {
    id: &'a str,
    aggregate: &'a str,
    recipient: Option<&'a str>,
    template: &'a str,
    correlation: &'a str,
    causation: Option<&'a str>,
    at: i64,
    request: String,
    key: Option<&'a str>,
}

fn row(new: &NewNotification) -> New<'_> {
    let (request, origin) = (&new.request, &new.origin);
    New {
        id: &request.id,
        aggregate: &request.aggregate_id,
        recipient: request.recipient.as_deref(),
        template: &request.template,
        correlation: &request.correlation_id,
        causation: request.causation_id.as_deref(),
        at: new.received_at.as_millisecond(),
        request: String::from_utf8_lossy(origin.value.as_deref().unwrap_or_default()).into_owned(),
        key: origin.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()),
    }
}

/// The statements; rows travel as one JSON parameter.
struct Statements {
    requests: String,
    insert: String,
    claim: String,
    begin: String,
    settle: String,
    end: String,
}

impl Statements {
    fn new(kind: Kind) -> Self {
        let new = [
            ("id", "text"),
            ("aggregate", "text"),
            ("recipient", "text"),
            ("template", "text"),
            ("correlation", "text"),
            ("causation", "text"),
            ("at", "bigint"),
            ("request", "text"),
            ("key", "text"),
        ];
        let due = rows(kind, &[("id", "text"), ("recipient", "text"), ("at", "bigint")]);
        let (new, seqs) = (rows(kind, &new), rows(kind, &[("seq", "bigint")]));
        Self {
            requests: format!(
                "INSERT INTO requests (id, aggregate_id, recipient, template, category, correlation_id, causation_id,
                     caused_at, created_at, request, origin_topic, origin_partition, origin_offset, origin_key, headers)
                 SELECT id, aggregate, recipient, template, 'transactional', correlation, causation, at, at, request,
                     'notification-events', 0, 0, key, '[]' FROM {new}"
            ),
            insert: format!(
                "INSERT INTO notifications (seq, channel, recipient, state, next_attempt_at)
                 SELECT q.seq, 'email', r.recipient, 'pending', r.at FROM {due} JOIN requests q ON q.id = r.id"
            ),
            claim: "UPDATE notifications SET state = 'sending', lease_owner = 'bare', lease_until = $1
                 WHERE seq IN (SELECT seq FROM notifications
                               WHERE channel = 'email' AND lane = 0 AND state IN ('pending', 'retrying')
                                 AND next_attempt_at <= $1
                               ORDER BY next_attempt_at, seq LIMIT $2)
                 RETURNING seq"
                .to_owned(),
            begin: format!(
                "INSERT INTO attempts (seq, number, provider, started_at) SELECT seq, 1, 'bare', $2 FROM {seqs}"
            ),
            settle: format!(
                "UPDATE notifications SET state = 'sent', attempts = 1, settled_at = $2, next_attempt_at = NULL,
                     lease_owner = NULL, lease_until = NULL
                 WHERE seq IN (SELECT seq FROM {seqs})"
            ),
            end: format!(
                "UPDATE attempts SET outcome = 'accepted', duration_ms = 0
                 WHERE seq IN (SELECT seq FROM {seqs}) AND number = 1"
            ),
        }
    }
}

fn rows(kind: Kind, columns: &[(&str, &str)]) -> String {
    match kind {
        Kind::Postgres => {
            let columns: Vec<String> = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
            format!("json_to_recordset($1::json) AS r({})", columns.join(", "))
        }
        Kind::Sqlite => {
            let columns: Vec<String> = columns.iter().map(|(name, _)| format!("value->>'{name}' AS {name}")).collect();
            format!("(SELECT {} FROM json_each($1)) AS r", columns.join(", "))
        }
    }
}

#[derive(Serialize)]
struct Seq {
    seq: i64,
}

fn json<T: Serialize>(rows: &[T]) -> Result<String> {
    Ok(String::from_utf8(to_json(&rows))?)
}

pub async fn measure(fresh: &Fresh, backlog: &Backlog, Work { events, settled, .. }: Work) -> Result<Bare> {
    fresh.open().await?.close().await;
    fresh.settle(settled).await?;
    let mut connection = fresh.connect().await?;
    let statements = Statements::new(fresh.kind);
    let mut bare = Bare { insert: Duration::ZERO, claim: Duration::ZERO, settle: Duration::ZERO };
    for from in (0..events).step_by(ROWS as usize) {
        let batch = backlog.batch(from, events.min(from + ROWS))?;
        let began = Instant::now();
        let rows = json(&batch.iter().map(row).collect::<Vec<_>>())?;
        let mut tx = connection.begin().await?;
        query(&statements.requests).bind(rows.clone()).execute(&mut *tx).await?;
        query(&statements.insert).bind(rows).execute(&mut *tx).await?;
        tx.commit().await?;
        bare.insert += began.elapsed();
    }
    let mut done = 0;
    while done < events {
        let began = Instant::now();
        let seqs = claim(&mut connection, &statements).await?;
        let claimed = Instant::now();
        settle(&mut connection, &statements, seqs).await?;
        bare.claim += claimed - began;
        bare.settle += claimed.elapsed();
        done += ROWS.min(events - done);
    }
    let found = Contents::read(&mut connection).await?;
    let (all, past) = (events as i64, settled as i64);
    let expected =
        Contents { notifications: past + all, sent: past + all, accepted_attempts: all, attempts: all, outbox: 0 };
    ensure!(found == expected, "the bare loop left {found}");
    connection.close().await?;
    Ok(bare)
}

fn query(statement: &str) -> sqlx::query::Query<'_, sqlx::Any, sqlx::any::AnyArguments> {
    sqlx::query(AssertSqlSafe(statement.to_owned()))
}

async fn claim(connection: &mut AnyConnection, statements: &Statements) -> Result<String> {
    let now = jiff::Timestamp::now().as_millisecond();
    let mut tx = connection.begin().await?;
    let claimed = query(&statements.claim).bind(now).bind(ROWS as i64).fetch_all(&mut *tx).await?;
    let seqs =
        claimed.iter().map(|row| Ok(Seq { seq: row.try_get("seq")? })).collect::<Result<Vec<_>, sqlx::Error>>()?;
    let seqs = json(&seqs)?;
    query(&statements.begin).bind(seqs.clone()).bind(now).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(seqs)
}

async fn settle(connection: &mut AnyConnection, statements: &Statements, seqs: String) -> Result<()> {
    let now = jiff::Timestamp::now().as_millisecond();
    let mut tx = connection.begin().await?;
    query(&statements.settle).bind(seqs.clone()).bind(now).execute(&mut *tx).await?;
    query(&statements.end).bind(seqs).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
