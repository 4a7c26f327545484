//! What newer notifications have replaced while it waited.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{Row as _, query};

use super::database::{Database, bounded, sql};
use super::dialect::waiting;
use super::insert::text;
use super::rows::millis;
use crate::domain::envelope::to_json;
use crate::ports::ledger::{LedgerError, Replaceable};

/// One of the templates that replace a notification: a row for each.
#[derive(Serialize)]
struct Old<'a> {
    seq: i64,
    id: &'a str,
    about: &'a str,
    recipient: Option<&'a str>,
    template: &'a str,
    mutual: i64,
    at: i64,
}

const COLUMNS: [(&str, &str); 7] = [
    ("seq", "bigint"),
    ("id", "text"),
    ("about", "text"),
    ("recipient", "text"),
    ("template", "text"),
    ("mutual", "bigint"),
    ("at", "bigint"),
];

pub(super) async fn superseded(
    database: &Database,
    old: &[Replaceable<'_>],
) -> Result<HashMap<String, String>, LedgerError> {
    let rows: Vec<Old<'_>> = old.iter().flat_map(rows_of).collect();
    let statement = format!(
        "SELECT r.id AS id, q.id AS newer FROM {} JOIN notifications n ON n.about = r.about JOIN requests q ON q.seq = n.seq
         WHERE {} AND q.template = r.template AND COALESCE(n.recipient, '') = COALESCE(r.recipient, '')
             AND (q.caused_at > r.at OR (q.caused_at = r.at AND (r.mutual = 0 OR n.seq > r.seq)))",
        database.dialect.rows(&COLUMNS),
        waiting("n"),
    );
    bounded(async {
        let found = query(sql(statement)).bind(text(to_json(&rows))).fetch_all(&database.read).await?;
        found.iter().map(|row| Ok((row.try_get("id")?, row.try_get("newer")?))).collect()
    })
    .await
}

fn rows_of<'a>(old: &'a Replaceable<'a>) -> impl Iterator<Item = Old<'a>> {
    let claimed = old.claimed;
    let about = claimed.about.as_deref();
    old.by.iter().filter_map(move |by| {
        Some(Old {
            seq: claimed.seq,
            id: &claimed.id,
            about: about?,
            recipient: claimed.recipient.as_deref(),
            template: &by.template,
            mutual: i64::from(by.mutual),
            at: millis(claimed.caused_at),
        })
    })
}
