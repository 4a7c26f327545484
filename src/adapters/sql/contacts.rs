//! The recipients directory over SQL.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Row as _, query};

use super::database::{Database, bounded, sql};
use super::insert::text;
use super::rows::millis;
use super::wake::Wake;
use super::{erasure, preferences};
use crate::domain::channel::Channel;
use crate::domain::envelope::to_json;
use crate::domain::preferences::{OptOut, Preferences};
use crate::domain::recipient::{Device, Recipient};
use crate::ports::contacts::{Contacts, Erased, Suppression};
use crate::ports::ledger::LedgerError;

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    email: Option<&'a str>,
    phone: Option<&'a str>,
    locale: Option<&'a str>,
    time_zone: Option<&'a str>,
    devices: String,
}

const COLUMNS: [(&str, &str); 6] = [
    ("id", "text"),
    ("email", "text"),
    ("phone", "text"),
    ("locale", "text"),
    ("time_zone", "text"),
    ("devices", "text"),
];

fn row(r: &Recipient) -> Row<'_> {
    Row {
        id: &r.id,
        email: r.email.as_deref(),
        phone: r.phone.as_deref(),
        locale: r.locale.as_deref(),
        time_zone: r.time_zone.as_deref(),
        devices: text(to_json(&r.devices)),
    }
}

/// The entry of this id in a row that has its columns.
fn recipient(id: String, row: &AnyRow) -> Result<Recipient, sqlx::Error> {
    Ok(Recipient {
        id,
        email: row.try_get("email")?,
        phone: row.try_get("phone")?,
        locale: row.try_get("locale")?,
        time_zone: row.try_get("time_zone")?,
        devices: devices(row.try_get("devices")?),
    })
}

/// The directory wrote them, so they read back; a stranger's edit costs the devices, not the recipient.
pub(super) fn devices(json: &str) -> Vec<Device> {
    serde_json::from_str(json).unwrap_or_default()
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
    async fn learn(&self, recipients: Vec<Recipient>, now: Timestamp) -> Result<(), LedgerError> {
        store(self, &merged(recipients), Stored::Added, now).await
    }

    async fn put(&self, recipient: Recipient, now: Timestamp) -> Result<(), LedgerError> {
        store(self, &[recipient], Stored::Whole, now).await
    }

    async fn recipient(&self, id: &str) -> Result<Option<Recipient>, LedgerError> {
        bounded(async {
            let row =
                query("SELECT * FROM recipients WHERE id = $1").bind(id.to_owned()).fetch_optional(&self.read).await?;
            row.as_ref().map(|row| recipient(id.to_owned(), row)).transpose()
        })
        .await
    }

    async fn forget_devices(&self, id: &str, tokens: &[String]) -> Result<(), LedgerError> {
        let select = format!("SELECT devices FROM recipients WHERE id = $1 {}", self.dialect.for_update());
        let update = "UPDATE recipients SET devices = $2, version = version + 1, updated_at = $3 WHERE id = $1";
        bounded(async {
            let mut tx = self.begin().await?;
            let Some(row) = query(sql(select)).bind(id.to_owned()).fetch_optional(&mut *tx).await? else {
                return Ok(());
            };
            let mut devices: Vec<Device> = serde_json::from_str(row.try_get("devices")?).unwrap_or_default();
            devices.retain(|device| !tokens.contains(&device.token));
            query(update)
                .bind(id.to_owned())
                .bind(text(to_json(&devices)))
                .bind(millis(Timestamp::now()))
                .execute(&mut *tx)
                .await?;
            tx.commit().await
        })
        .await
    }

    async fn erase(&self, id: &str, now: Timestamp) -> Result<Erased, LedgerError> {
        erasure::erase(self, id, now).await
    }

    async fn preferences(&self, id: &str) -> Result<Option<Preferences>, LedgerError> {
        preferences::preferences(self, id).await
    }

    async fn set_preferences(&self, id: &str, wanted: &Preferences) -> Result<(), LedgerError> {
        preferences::set(self, id, wanted).await
    }

    async fn refuse(&self, id: &str, refusal: OptOut) -> Result<(), LedgerError> {
        preferences::refuse(self, id, refusal).await
    }

    async fn suppress(
        &self,
        channel: Channel,
        addresses: &[String],
        reason: &str,
    ) -> Result<Vec<Suppression>, LedgerError> {
        preferences::suppress(self, channel, addresses, reason).await
    }

    async fn unsuppress(&self, channel: Channel, address: &str) -> Result<bool, LedgerError> {
        preferences::unsuppress(self, channel, address).await
    }

    async fn suppressions(
        &self,
        after: Option<(String, String)>,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Suppression>, LedgerError> {
        preferences::suppressions(self, after, skip, limit).await
    }
}

/// What becomes of fields that are absent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    /// They keep their value.
    Added,
    /// They become empty.
    Whole,
}

impl Stored {
    fn value(self, column: &str) -> String {
        match self {
            Self::Added => format!("COALESCE(excluded.{column}, recipients.{column})"),
            Self::Whole => format!("excluded.{column}"),
        }
    }
}

async fn store(
    database: &Database,
    recipients: &[Recipient],
    stored: Stored,
    now: Timestamp,
) -> Result<(), LedgerError> {
    if recipients.is_empty() {
        return Ok(());
    }
    let json = text(to_json(&recipients.iter().map(row).collect::<Vec<_>>()));
    let columns = ["email", "phone", "locale", "time_zone"];
    let changes: Vec<String> = columns.iter().map(|column| format!("{column} = {}", stored.value(column))).collect();
    // Events do not tell of devices.
    let devices = if stored == Stored::Whole { "excluded.devices" } else { "recipients.devices" };
    let upsert = format!(
        "INSERT INTO recipients (id, email, phone, locale, time_zone, devices, version, updated_at)
         SELECT r.id, r.email, r.phone, r.locale, r.time_zone, r.devices, 1, $2 FROM {} WHERE true
         ON CONFLICT (id) DO UPDATE SET {}, devices = {devices},
             version = recipients.version + 1, updated_at = excluded.updated_at",
        database.dialect.rows(&COLUMNS),
        changes.join(", ")
    );
    let wake = format!(
        "UPDATE notifications SET state = 'pending', next_attempt_at = $2
         FROM {} WHERE notifications.recipient = r.id AND notifications.state = 'awaiting_contact'",
        database.dialect.rows(&[("id", "text")])
    );
    let now = millis(now);
    let woken = bounded(async {
        let mut tx = database.begin().await?;
        query(database.dialect.contacts_lock()).fetch_all(&mut *tx).await?;
        query(sql(upsert)).bind(json.clone()).bind(now).execute(&mut *tx).await?;
        let woken = query(sql(wake)).bind(json).bind(now).execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        Ok(woken)
    })
    .await?;
    if woken > 0 {
        database.wakes.announce(Wake::Work);
    }
    Ok(())
}
