//! Taking waiting notifications out of their turn: to cancel, expire, replace or erase them, or to let them travel
//! with another one.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::query;

use super::contacts;
use super::database::{Database, bounded, sql};
use super::insert::text;
use super::ledger::in_order;
use super::rows::{CLAIM_COLUMNS, millis};
use crate::domain::envelope::to_json;
use crate::ports::ledger::{Claimed, LedgerError, Selection};

/// What is looked for: a row for each value. Every condition uses the columns that it needs.
#[derive(Serialize, Default)]
struct Wanted<'a> {
    id: Option<&'a str>,
    channel: Option<&'a str>,
    template: Option<&'a str>,
    about: Option<&'a str>,
    recipient: Option<&'a str>,
    at: Option<i64>,
}

const COLUMNS: [(&str, &str); 6] = [
    ("id", "text"),
    ("channel", "text"),
    ("template", "text"),
    ("about", "text"),
    ("recipient", "text"),
    ("at", "bigint"),
];

const WAITING: &str = "n.state IN ('pending', 'retrying', 'awaiting_contact')";

fn of_ids(ids: &[String]) -> Vec<Wanted<'_>> {
    ids.iter().map(|id| Wanted { id: Some(id), ..Wanted::default() }).collect()
}

/// How waiting rows `n` are found by what is wanted, `r`. Each condition is one that an index answers.
fn condition(selection: &Selection) -> (&'static str, Vec<Wanted<'_>>) {
    let none = Wanted::default;
    match selection {
        Selection::Ids(ids) => ("n.id = r.id", of_ids(ids)),
        Selection::DigestOf(leaders) => ("n.digest_id = r.id AND n.settled_at IS NULL", of_ids(leaders)),
        Selection::Recipient(id) => ("n.recipient = r.recipient", vec![Wanted { recipient: Some(id), ..none() }]),
        Selection::SupersededBy { about, recipient, templates, except, caused_at } => {
            let wanted = |template| Wanted {
                id: Some(except),
                channel: None,
                template: Some(template),
                about: Some(about),
                recipient: recipient.as_deref(),
                at: Some(millis(*caused_at)),
            };
            let condition = "n.about = r.about AND n.template = r.template AND n.id <> r.id AND n.caused_at <= r.at
                 AND COALESCE(n.recipient, '') = COALESCE(r.recipient, '')";
            (condition, templates.iter().map(|template| wanted(template.as_str())).collect())
        }
        Selection::Expired { channel, by } => (
            "n.channel = r.channel AND n.expires_at <= r.at",
            vec![Wanted { channel: Some(channel.as_str()), at: Some(millis(*by)), ..none() }],
        ),
        Selection::Forgotten { channel, waiting_since } => (
            "n.channel = r.channel AND n.state = 'awaiting_contact' AND n.created_at <= r.at",
            vec![Wanted { channel: Some(channel.as_str()), at: Some(millis(*waiting_since)), ..none() }],
        ),
    }
}

pub(super) async fn seize(
    database: &Database,
    selection: &Selection,
    owner: &str,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<Claimed>, LedgerError> {
    let (condition, wanted) = condition(selection);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let statement = format!(
        "WITH chosen AS MATERIALIZED (
             SELECT n.seq AS chosen_seq FROM {} JOIN notifications n ON {condition}
             WHERE {WAITING} ORDER BY n.seq LIMIT $4 {})
         UPDATE notifications SET state = 'sending', lease_owner = $2, lease_until = $3
         WHERE seq IN (SELECT chosen_seq FROM chosen)
         RETURNING {CLAIM_COLUMNS}",
        database.dialect.rows(&COLUMNS),
        database.dialect.skip_locked_of("n"),
    );
    let mut seized = bounded(async {
        let rows = query(sql(statement))
            .bind(text(to_json(&wanted)))
            .bind(owner.to_owned())
            .bind(millis(lease_until))
            .bind(limit as i64)
            .fetch_all(&database.write)
            .await?;
        in_order(&rows)
    })
    .await?;
    contacts::attach(database, &mut seized).await?;
    Ok(seized)
}
