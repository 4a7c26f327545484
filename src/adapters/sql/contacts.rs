//! The recipients directory over SQL.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Row as _, query};

use super::database::{Database, bounded, sql};
use super::insert::text;
use super::ledger::id_rows;
use super::rows::millis;
use crate::domain::envelope::to_json;
use crate::domain::recipient::Recipient;
use crate::ports::contacts::Contacts;
use crate::ports::ledger::{Claimed, LedgerError};

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    email: Option<&'a str>,
    phone: Option<&'a str>,
    locale: Option<&'a str>,
    time_zone: Option<&'a str>,
}

fn recipient(row: &AnyRow) -> Result<Recipient, sqlx::Error> {
    Ok(Recipient {
        id: row.try_get("id")?,
        email: row.try_get("email")?,
        phone: row.try_get("phone")?,
        locale: row.try_get("locale")?,
        time_zone: row.try_get("time_zone")?,
        // The directory wrote them, so they read back; a stranger's edit costs the devices, not the recipient.
        devices: serde_json::from_str(row.try_get("devices")?).unwrap_or_default(),
    })
}

/// Adds what the directory knows to claimed notifications.
pub(super) async fn attach(database: &Database, claimed: &mut [Claimed]) -> Result<(), LedgerError> {
    let mut wanted: Vec<&str> = claimed.iter().filter_map(|c| c.recipient.as_deref()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(());
    }
    let ids = id_rows(wanted.into_iter());
    let statement = format!(
        "SELECT c.id AS id, c.email AS email, c.phone AS phone, c.locale AS locale, c.time_zone AS time_zone,
                c.devices AS devices, c.version AS version
         FROM {} JOIN recipients c ON c.id = r.id",
        database.dialect.rows(&[("id", "text")])
    );
    let known: HashMap<String, (Recipient, i64)> = bounded(async {
        let rows = query(sql(statement)).bind(ids).fetch_all(&database.read).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, (recipient(row)?, row.try_get("version")?)))).collect()
    })
    .await?;
    for claimed in claimed {
        if let Some((contact, version)) = claimed.recipient.as_ref().and_then(|id| known.get(id)) {
            claimed.contact = Some(contact.clone());
            claimed.contact_version = *version;
        }
    }
    Ok(())
}

/// One entry per recipient, later ones over earlier ones: a statement may touch a row only once.
fn merged(recipients: Vec<Recipient>) -> Vec<Recipient> {
    let mut merged: Vec<Recipient> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for next in recipients {
        match index.get(&next.id) {
            Some(at) => {
                let known = &mut merged[*at];
                known.email = next.email.or(known.email.take());
                known.phone = next.phone.or(known.phone.take());
                known.locale = next.locale.or(known.locale.take());
                known.time_zone = next.time_zone.or(known.time_zone.take());
            }
            None => {
                index.insert(next.id.clone(), merged.len());
                merged.push(next);
            }
        }
    }
    merged
}

#[async_trait]
impl Contacts for Database {
    async fn learn(&self, recipients: Vec<Recipient>) -> Result<(), LedgerError> {
        let recipients = merged(recipients);
        if recipients.is_empty() {
            return Ok(());
        }
        let rows: Vec<Row<'_>> = recipients
            .iter()
            .map(|r| Row {
                id: &r.id,
                email: r.email.as_deref(),
                phone: r.phone.as_deref(),
                locale: r.locale.as_deref(),
                time_zone: r.time_zone.as_deref(),
            })
            .collect();
        let json = text(to_json(&rows));
        let columns = [("id", "text"), ("email", "text"), ("phone", "text"), ("locale", "text"), ("time_zone", "text")];
        let upsert = format!(
            "INSERT INTO recipients (id, email, phone, locale, time_zone, version, updated_at)
             SELECT r.id, r.email, r.phone, r.locale, r.time_zone, 1, $2 FROM {} WHERE true
             ON CONFLICT (id) DO UPDATE SET
                 email = COALESCE(excluded.email, recipients.email),
                 phone = COALESCE(excluded.phone, recipients.phone),
                 locale = COALESCE(excluded.locale, recipients.locale),
                 time_zone = COALESCE(excluded.time_zone, recipients.time_zone),
                 version = recipients.version + 1, updated_at = excluded.updated_at",
            self.dialect.rows(&columns)
        );
        let wake = format!(
            "UPDATE notifications SET state = 'pending', next_attempt_at = $2
             FROM {} WHERE notifications.recipient = r.id AND notifications.state = 'awaiting_contact'",
            self.dialect.rows(&[("id", "text")])
        );
        let now = millis(Timestamp::now());
        let woken = bounded(async {
            let mut tx = self.begin().await?;
            query(self.dialect.contacts_lock()).fetch_all(&mut *tx).await?;
            query(sql(upsert)).bind(json.clone()).bind(now).execute(&mut *tx).await?;
            let woken = query(sql(wake)).bind(json).bind(now).execute(&mut *tx).await?.rows_affected();
            tx.commit().await?;
            Ok(woken)
        })
        .await?;
        if woken > 0 {
            self.work.send_modify(|version| *version += 1);
        }
        Ok(())
    }

    async fn recipient(&self, id: &str) -> Result<Option<Recipient>, LedgerError> {
        bounded(async {
            let row =
                query("SELECT * FROM recipients WHERE id = $1").bind(id.to_owned()).fetch_optional(&self.read).await?;
            row.as_ref().map(recipient).transpose()
        })
        .await
    }
}
