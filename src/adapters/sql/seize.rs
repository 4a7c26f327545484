//! Taking waiting notifications out of their turn: to cancel, expire, replace or erase them, or to let them travel
//! with another one.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::{AnyConnection, query};

use super::contents::{contents, list, seqs_of};
use super::database::{Database, bounded, sql};
use super::dialect::{Dialect, waiting};
use super::insert::text;
use super::rows::millis;
use super::settle;
use crate::domain::envelope::to_json;
use crate::ports::ledger::{Claimed, LedgerError, OUT_OF_TURN, Selection, Settlement, Verdict};

/// What is looked for: a row for each value. Every condition uses the columns that it needs.
#[derive(Serialize, Default)]
struct Wanted<'a> {
    id: Option<&'a str>,
    channel: Option<&'a str>,
    template: Option<&'a str>,
    about: Option<&'a str>,
    recipient: Option<&'a str>,
    at: Option<i64>,
    due: Option<i64>,
    created: Option<i64>,
}

const COLUMNS: [(&str, &str); 8] = [
    ("id", "text"),
    ("channel", "text"),
    ("template", "text"),
    ("about", "text"),
    ("recipient", "text"),
    ("at", "bigint"),
    ("due", "bigint"),
    ("created", "bigint"),
];

/// What is due within this time is about to be sent, and not replaced…
const WAITS_FOR_MS: i64 = 1000;
/// …unless it has stood in the queue for so long that its provider must be away.
const WAITS_SINCE_MS: i64 = 5000;

fn of_ids(ids: &[String]) -> Vec<Wanted<'_>> {
    ids.iter().map(|id| Wanted { id: Some(id), ..Wanted::default() }).collect()
}

/// How waiting rows `n` with their requests `q` are found by what is wanted, `r`. Each condition is one that an index answers.
fn condition(selection: &Selection) -> (&'static str, Vec<Wanted<'_>>) {
    let none = Wanted::default;
    match selection {
        Selection::Ids(ids) => ("q.id = r.id", of_ids(ids)),
        Selection::DigestOf(leaders) => ("n.digest_id = r.id AND n.settled_at IS NULL", of_ids(leaders)),
        Selection::Recipient(id) => ("q.recipient = r.recipient", vec![Wanted { recipient: Some(id), ..none() }]),
        Selection::SupersededBy { about, recipient, templates, except, caused_at, now } => {
            let wanted = |template| Wanted {
                id: Some(except),
                channel: None,
                template: Some(template),
                about: Some(about),
                recipient: recipient.as_deref(),
                at: Some(millis(*caused_at)),
                due: Some(millis(*now) + WAITS_FOR_MS),
                created: Some(millis(*now) - WAITS_SINCE_MS),
            };
            let condition = "n.about = r.about AND q.template = r.template AND q.id <> r.id AND q.caused_at <= r.at
                 AND COALESCE(n.recipient, '') = COALESCE(r.recipient, '')
                 AND (n.state = 'awaiting_contact' OR n.next_attempt_at > r.due OR q.created_at < r.created)";
            (condition, templates.iter().map(|template| wanted(template.as_str())).collect())
        }
        Selection::Expired { channel, by } => (
            "n.channel = r.channel AND n.expires_at <= r.at",
            vec![Wanted { channel: Some(channel.as_str()), at: Some(millis(*by)), ..none() }],
        ),
        Selection::Forgotten { channel, waiting_since } => (
            "n.channel = r.channel AND n.state = 'awaiting_contact' AND n.awaiting_since <= r.at",
            vec![Wanted { channel: Some(channel.as_str()), at: Some(millis(*waiting_since)), ..none() }],
        ),
    }
}

/// Takes what is selected, in a transaction of the caller's or alone.
pub(super) async fn take(
    connection: &mut AnyConnection,
    dialect: Dialect,
    selection: &Selection,
    owner: &str,
    lease_until: i64,
    limit: usize,
) -> Result<Vec<Claimed>, sqlx::Error> {
    let (condition, wanted) = condition(selection);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    // In no order: one that an index has would be preferred to the index of what is wanted.
    let statement = format!(
        "WITH chosen AS MATERIALIZED (
             SELECT n.seq AS chosen_seq FROM {}, notifications n, requests q
             WHERE q.seq = n.seq AND {condition} AND {} LIMIT $4 {})
         UPDATE notifications SET state = 'sending', lease_owner = $2, lease_until = $3
         WHERE seq {}
         RETURNING seq",
        dialect.rows(&COLUMNS),
        waiting("n"),
        dialect.skip_locked_of("n"),
        dialect.among("SELECT chosen_seq FROM chosen"),
    );
    let rows = query(sql(statement))
        .bind(text(to_json(&wanted)))
        .bind(owner.to_owned())
        .bind(lease_until)
        .bind(limit as i64)
        .fetch_all(&mut *connection)
        .await?;
    contents(connection, dialect, list(&seqs_of(&rows)?)).await
}

pub(super) async fn seize(
    database: &Database,
    selection: &Selection,
    owner: &str,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<Claimed>, LedgerError> {
    bounded(async {
        let mut connection = database.write.acquire().await?;
        take(&mut connection, database.dialect, selection, owner, millis(lease_until), limit).await
    })
    .await
}

/// Takes and settles in one transaction: whatever happens in between, nothing is left in nobody's hands.
pub(super) async fn call_off(
    database: &Database,
    selection: &Selection,
    limit: usize,
    verdict: &Verdict<'_>,
) -> Result<Vec<Settlement>, LedgerError> {
    let (settled, fresh) = bounded(async {
        let mut tx = database.begin().await?;
        let taken = take(&mut tx, database.dialect, selection, OUT_OF_TURN, 0, limit).await?;
        let settlements: Vec<Settlement> = taken.iter().map(verdict).collect();
        if settlements.is_empty() {
            return Ok((settlements, None));
        }
        let fresh = settle::write(database, &mut tx, &settlements).await?.fresh;
        tx.commit().await?;
        Ok((settlements, fresh))
    })
    .await?;
    settle::announce(database, &settled, fresh);
    Ok(settled)
}
