//! Inboxes over SQL.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::any::AnyRow;
use sqlx::{Error, Row as _, query};
use tokio::sync::broadcast;

use super::database::{Database, bounded, sql};
use super::insert::text;
use super::rows::{bad_column, millis, timestamp};
use super::wake::Wake;
use crate::domain::envelope::to_json;
use crate::domain::time::format_utc;
use crate::ports::inbox::{Entry, Inbox, NewEntry};
use crate::ports::ledger::LedgerError;

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    recipient: &'a str,
    subject: Option<&'a str>,
    body: &'a str,
    template: &'a str,
    category: &'a str,
    data: &'a str,
}

const COLUMNS: [(&str, &str); 7] = [
    ("id", "text"),
    ("recipient", "text"),
    ("subject", "text"),
    ("body", "text"),
    ("template", "text"),
    ("category", "text"),
    ("data", "text"),
];

fn entry(row: &AnyRow) -> Result<Entry, Error> {
    let at = |millis: i64| format_utc(timestamp(millis));
    let data: String = row.try_get("data")?;
    Ok(Entry {
        id: row.try_get("id")?,
        subject: row.try_get("subject")?,
        body: row.try_get("body")?,
        template: row.try_get("template")?,
        category: row.try_get("category")?,
        data: RawValue::from_string(data).map_err(|e| bad_column("data", e.to_string()))?,
        created_at: at(row.try_get("created_at")?),
        read_at: row.try_get::<Option<i64>, _>("read_at")?.map(at),
        seq: row.try_get("seq")?,
    })
}

impl Database {
    /// Tells those who listen, here and at other instances.
    fn inbox_changed(&self, recipient: &str) {
        self.wakes.announce(Wake::Inbox(recipient.to_owned()));
    }
}

#[async_trait]
impl Inbox for Database {
    async fn put(&self, entry: NewEntry) -> Result<(), LedgerError> {
        let row = Row {
            id: &entry.id,
            recipient: &entry.recipient,
            subject: entry.subject.as_deref(),
            body: &entry.body,
            template: &entry.template,
            category: &entry.category,
            data: &entry.data_json,
        };
        let json = text(to_json(&[row]));
        let statement = format!(
            "INSERT INTO inbox (id, recipient, subject, body, template, category, data, created_at)
             SELECT r.id, r.recipient, r.subject, r.body, r.template, r.category, r.data, $2 FROM {} WHERE true
             ON CONFLICT (id) DO NOTHING",
            self.dialect.rows(&COLUMNS)
        );
        let now = millis(Timestamp::now());
        let added = bounded(async {
            Ok(query(sql(statement)).bind(json).bind(now).execute(&self.write).await?.rows_affected())
        })
        .await?;
        if added > 0 {
            self.inbox_changed(&entry.recipient);
        }
        Ok(())
    }

    async fn entries(&self, recipient: &str, before: Option<i64>, limit: usize) -> Result<Vec<Entry>, LedgerError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        bounded(async {
            let rows = query("SELECT * FROM inbox WHERE recipient = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3")
                .bind(recipient.to_owned())
                .bind(before.unwrap_or(i64::MAX))
                .bind(limit)
                .fetch_all(&self.read)
                .await?;
            rows.iter().map(entry).collect()
        })
        .await
    }

    async fn unread(&self, recipient: &str) -> Result<u64, LedgerError> {
        bounded(async {
            let row = query("SELECT count(*) AS unread FROM inbox WHERE recipient = $1 AND read_at IS NULL")
                .bind(recipient.to_owned())
                .fetch_one(&self.read)
                .await?;
            Ok(u64::try_from(row.try_get::<i64, _>("unread")?).unwrap_or_default())
        })
        .await
    }

    async fn mark_read(&self, recipient: &str, id: Option<&str>) -> Result<u64, LedgerError> {
        let unread = "UPDATE inbox SET read_at = $1 WHERE recipient = $2 AND read_at IS NULL";
        let statement = match id {
            Some(_) => format!("{unread} AND id = $3"),
            None => unread.to_owned(),
        };
        let now = millis(Timestamp::now());
        let marked = bounded(async {
            let update = query(sql(statement)).bind(now).bind(recipient.to_owned());
            let update = match id {
                Some(id) => update.bind(id.to_owned()),
                None => update,
            };
            Ok(update.execute(&self.write).await?.rows_affected())
        })
        .await?;
        if marked > 0 {
            self.inbox_changed(recipient);
        }
        Ok(marked)
    }

    fn changes(&self) -> broadcast::Receiver<String> {
        self.wakes.inboxes.subscribe()
    }
}
