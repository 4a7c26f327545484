//! New notifications into the ledger.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Serialize;
use sqlx::{Any, Row as _, Transaction, query};

use super::database::{Database, bounded, sql};
use super::dialect::Dialect;
use super::ledger::id_rows;
use super::rows::millis;
use super::wake::Wake;
use super::{digests, seize, settle};
use crate::domain::bytes;
use crate::domain::envelope::to_json;
use crate::ports::ledger::{Inserted, LedgerError, NewNotification, OUT_OF_TURN, Replacement, Selection, Settlement};
use crate::ports::outbox::FreshEvents;

/// More notifications about one thing do not wait for one recipient.
const MOST_REPLACED: usize = 1000;

/// The columns of a request.
const REQUEST: [(&str, &str); 16] = [
    ("id", "text"),
    ("aggregate_id", "text"),
    ("recipient", "text"),
    ("template", "text"),
    ("category", "text"),
    ("critical", "bigint"),
    ("correlation_id", "text"),
    ("causation_id", "text"),
    ("caused_at", "bigint"),
    ("created_at", "bigint"),
    ("request", "text"),
    ("origin_topic", "text"),
    ("origin_partition", "bigint"),
    ("origin_offset", "bigint"),
    ("origin_key", "text"),
    ("headers", "text"),
];

/// The columns of its notification, which is found by the request's id.
const NOTIFICATION: [(&str, &str); 7] = [
    ("id", "text"),
    ("channel", "text"),
    ("recipient", "text"),
    ("next_attempt_at", "bigint"),
    ("about", "text"),
    ("expires_at", "bigint"),
    ("collects", "bigint"),
];

#[derive(Serialize)]
struct RequestRow<'a> {
    id: &'a str,
    aggregate_id: &'a str,
    recipient: Option<&'a str>,
    template: &'a str,
    category: &'a str,
    critical: u8,
    correlation_id: &'a str,
    causation_id: Option<&'a str>,
    caused_at: i64,
    created_at: i64,
    request: Cow<'a, str>,
    origin_topic: &'a str,
    origin_partition: Option<i32>,
    origin_offset: Option<i64>,
    origin_key: Option<String>,
    headers: String,
}

#[derive(Serialize)]
struct NotificationRow<'a> {
    id: &'a str,
    channel: &'a str,
    recipient: Option<&'a str>,
    next_attempt_at: i64,
    about: Option<&'a str>,
    expires_at: Option<i64>,
    collects: u8,
}

fn request_row(new: &NewNotification) -> RequestRow<'_> {
    let (request, origin) = (&new.request, &new.origin);
    RequestRow {
        id: &request.id,
        aggregate_id: &request.aggregate_id,
        recipient: request.recipient.as_deref(),
        template: &request.template,
        category: new.category(),
        critical: u8::from(new.handling.critical),
        correlation_id: &request.correlation_id,
        causation_id: request.causation_id.as_deref(),
        caused_at: millis(request.caused_at),
        created_at: millis(new.received_at),
        request: String::from_utf8_lossy(origin.value.as_deref().unwrap_or_default()),
        origin_topic: &origin.topic,
        origin_partition: origin.partition,
        origin_offset: origin.offset,
        origin_key: origin.key.as_deref().map(bytes::encode),
        headers: text(to_json(&origin.headers)),
    }
}

fn notification_row(new: &NewNotification) -> NotificationRow<'_> {
    let (request, handling) = (&new.request, &new.handling);
    let received_at = millis(new.received_at);
    let collected_until = new.collected_until();
    let not_before = request.send_at.or(collected_until).map_or(0, millis);
    NotificationRow {
        id: &request.id,
        channel: request.channel.as_str(),
        recipient: request.recipient.as_deref(),
        next_attempt_at: received_at.max(not_before),
        about: handling.about.as_deref(),
        expires_at: handling.expires_at.map(millis),
        collects: u8::from(collected_until.is_some()),
    }
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
    let plain = |new: &NewNotification| new.handling.digest_window.is_none() && new.handling.supersedes.is_empty();
    let (new, settled, fresh) = bounded(async {
        let mut tx = database.begin().await?;
        if batch.iter().all(plain) {
            let new = write(database.dialect, &mut tx, batch).await?;
            tx.commit().await?;
            return Ok((new, Vec::new(), Vec::new()));
        }
        query(database.dialect.contacts_lock()).fetch_all(&mut *tx).await?;
        // A copy of what is there already joins nothing, and replaces nothing: it did when it was new.
        let known = known(database.dialect, &mut tx, batch).await?;
        let fresh: Vec<&NewNotification> = batch.iter().filter(|new| !known.contains(&new.request.id)).collect();
        let new = write(database.dialect, &mut tx, batch).await?;
        digests::join(database, &mut tx, &fresh).await?;
        let (settled, fresh) = supersede(database, &mut tx, &fresh, replaced).await?;
        tx.commit().await?;
        Ok((new, settled, fresh))
    })
    .await?;
    settle::announce(database, &settled, fresh);
    if new > 0 {
        database.wakes.announce(Wake::Work);
    }
    Ok(Inserted { new, duplicates: (batch.len() as u64).saturating_sub(new), replaced: settled })
}

/// Writes both rows of each that is new, and says how many are.
async fn write(
    dialect: Dialect,
    tx: &mut Transaction<'static, Any>,
    batch: &[NewNotification],
) -> Result<u64, sqlx::Error> {
    // One that was there before has its notification already.
    let notifications = format!(
        "INSERT INTO notifications (seq, channel, recipient, state, next_attempt_at, about, expires_at, collects)
         SELECT q.seq, r.channel, r.recipient, 'pending', r.next_attempt_at, r.about, r.expires_at, r.collects
         FROM {} JOIN requests q ON q.id = r.id WHERE true ORDER BY q.seq {}
         ON CONFLICT (seq) DO NOTHING",
        dialect.rows(&NOTIFICATION),
        dialect.for_key_share_of("q"),
    );
    let rows: Vec<RequestRow<'_>> = batch.iter().map(request_row).collect();
    let new = query(sql(dialect.insert_new("requests", &REQUEST)))
        .bind(text(to_json(&rows)))
        .execute(&mut **tx)
        .await?
        .rows_affected();
    if new > 0 {
        // Of copies within the batch the first one counts, as it does for the requests.
        let mut seen = HashSet::new();
        let first = batch.iter().filter(|new| seen.insert(new.request.id.as_str()));
        let rows: Vec<NotificationRow<'_>> = first.map(notification_row).collect();
        query(sql(notifications)).bind(text(to_json(&rows))).execute(&mut **tx).await?;
    }
    Ok(new)
}

/// The ids among them that the ledger has.
async fn known(
    dialect: Dialect,
    tx: &mut Transaction<'static, Any>,
    batch: &[NewNotification],
) -> Result<HashSet<String>, sqlx::Error> {
    let statement = format!("SELECT q.id FROM {} JOIN requests q ON q.id = r.id", dialect.rows(&[("id", "text")]));
    let ids = id_rows(batch.iter().map(|new| new.request.id.as_str()));
    query(sql(statement)).bind(ids).fetch_all(&mut **tx).await?.iter().map(|row| row.try_get("id")).collect()
}

/// Settles what the new ones replace, before anybody can claim it.
async fn supersede(
    database: &Database,
    tx: &mut Transaction<'static, Any>,
    batch: &[&NewNotification],
    replaced: &Replacement<'_>,
) -> Result<(Vec<Settlement>, Vec<FreshEvents>), sqlx::Error> {
    let (mut settled, mut fresh) = (Vec::new(), Vec::new());
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
            fresh.extend(settle::write(database, tx, &settlements).await?.fresh);
            settled.extend(settlements);
        }
    }
    Ok((settled, fresh))
}
