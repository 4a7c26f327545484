//! The table of dead letters, with the payloads that their topic cannot hold.

use std::borrow::Cow;
use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Serialize;
use sqlx::{Any, Executor, Row as _, Transaction, query};

use super::database::{Database, bounded, sql};
use super::dialect::Dialect;
use super::erasure::{self, Named};
use super::insert::text;
use super::rows::millis;
use crate::domain::envelope::to_json;
use crate::domain::ids::letter_id;
use crate::domain::stored_letter::StoredLetter;
use crate::ports::dead_letters::{DeadLetterError, DeadLetterTable, ParkedPayload, PayloadStore};
use crate::ports::ledger::LedgerError;

const COLUMNS: [(&str, &str); 15] = [
    ("id", "text"),
    ("stage", "text"),
    ("error_class", "text"),
    ("error_code", "text"),
    ("fingerprint", "text"),
    ("event_type", "text"),
    ("reason", "text"),
    ("retry_count", "bigint"),
    ("original_topic", "text"),
    ("original_partition", "bigint"),
    ("original_offset", "bigint"),
    ("first_failure_at", "bigint"),
    ("last_failure_at", "bigint"),
    ("letter", "text"),
    ("recorded_at", "bigint"),
];

/// What a later failure of the same record changes. When it failed first stays, and so does what it is.
const RENEWED: [&str; 9] = [
    "stage",
    "error_class",
    "error_code",
    "fingerprint",
    "reason",
    "retry_count",
    "last_failure_at",
    "letter",
    "recorded_at",
];

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    stage: &'a str,
    error_class: &'a str,
    error_code: &'a str,
    fingerprint: &'a str,
    event_type: Option<&'a str>,
    reason: &'a str,
    retry_count: i64,
    original_topic: &'a str,
    original_partition: Option<i64>,
    original_offset: Option<i64>,
    first_failure_at: Option<i64>,
    last_failure_at: Option<i64>,
    letter: &'a str,
    recorded_at: i64,
}

fn row(letter: &StoredLetter) -> Row<'_> {
    Row {
        id: &letter.id,
        stage: &letter.stage,
        error_class: &letter.error_class,
        error_code: &letter.error_code,
        fingerprint: &letter.fingerprint,
        event_type: letter.event_type.as_deref(),
        reason: &letter.reason,
        retry_count: letter.retry_count,
        original_topic: &letter.original_topic,
        original_partition: letter.original_partition,
        original_offset: letter.original_offset,
        first_failure_at: letter.first_failure_at.map(millis),
        last_failure_at: letter.last_failure_at.map(millis),
        letter: &letter.letter,
        recorded_at: millis(letter.recorded_at),
    }
}

/// Inserts those that are new, and says how many.
async fn insert<'c>(
    on: impl Executor<'c, Database = Any>,
    dialect: Dialect,
    letters: impl Iterator<Item = &StoredLetter>,
) -> Result<u64, sqlx::Error> {
    let rows: Vec<Row<'_>> = letters.map(row).collect();
    let statement = dialect.insert_new("dead_letters", &COLUMNS);
    Ok(query(sql(statement)).bind(text(to_json(&rows))).execute(on).await?.rows_affected())
}

/// Opens those again that failed once more: the letter of a notification that was tried again by hand has the same id.
/// That one may have failed on a host whose clock is behind. An event that is read again after a crash fails again too,
/// which is no reason to open what was archived. A copy of what is known changes nothing, and what was emptied stays so.
async fn renew<'c>(
    on: impl Executor<'c, Database = Any>,
    dialect: Dialect,
    letters: &[&StoredLetter],
) -> Result<(), sqlx::Error> {
    // Each once, with its last failure, and in the order in which all instances lock them.
    let mut latest: BTreeMap<&str, &StoredLetter> = BTreeMap::new();
    for &letter in letters {
        let known = latest.entry(letter.id.as_str()).or_insert(letter);
        if letter.last_failure_at > known.last_failure_at {
            *known = letter;
        }
    }
    let rows: Vec<Row<'_>> = latest.into_values().map(row).collect();
    let changes = RENEWED.map(|column| format!("{column} = r.{column}")).join(", ");
    let statement = format!(
        "UPDATE dead_letters SET {changes},
             state = CASE WHEN dead_letters.state = 'archived' AND r.stage <> 'delivery' THEN 'archived' ELSE 'open' END
         FROM {}
         WHERE dead_letters.id = r.id AND dead_letters.letter <> '{{}}'
           AND (dead_letters.last_failure_at < r.last_failure_at
                OR dead_letters.state = 'replayed' AND dead_letters.last_failure_at <> r.last_failure_at)",
        dialect.rows(&COLUMNS)
    );
    query(sql(statement)).bind(text(to_json(&rows))).execute(on).await.map(drop)
}

/// Nobody has to review the letter of a notification that is tried again, until it fails again. False when the
/// notification was erased.
pub(super) async fn replayed(tx: &mut Transaction<'static, Any>, notification: &str) -> Result<bool, sqlx::Error> {
    let find = "SELECT origin_topic, origin_partition, origin_offset, request FROM requests WHERE id = $1";
    let row = query(find).bind(notification.to_owned()).fetch_one(&mut **tx).await?;
    let (topic, request): (String, String) = (row.try_get("origin_topic")?, row.try_get("request")?);
    if request == erasure::NO_REQUEST {
        return Ok(false);
    }
    let (partition, offset) = (row.try_get("origin_partition")?, row.try_get("origin_offset")?);
    let id = letter_id(&topic, partition, offset, Some(request.as_bytes()));
    let change = "UPDATE dead_letters SET state = 'replayed' WHERE id = $1 AND state = 'open'";
    query(change).bind(id).execute(&mut **tx).await?;
    Ok(true)
}

#[async_trait]
impl DeadLetterTable for Database {
    async fn record(&self, letters: &[StoredLetter]) -> Result<u64, LedgerError> {
        let people = || Named::in_letters(letters.iter().map(|letter| (letter, None)));
        // Before the transaction: it takes its time, and on SQLite nobody else could write.
        let anybody = bounded(erasure::was_anybody_erased(&self.read)).await?;
        let named = anybody.then(people);
        bounded(async {
            let mut tx = self.begin().await?;
            let erased = self.erased_among(&mut tx, letters, named, people).await?;
            let recorded = |(place, letter)| {
                if erased.contains(&place) { Cow::Owned(erasure::emptied(letter)) } else { Cow::Borrowed(letter) }
            };
            let letters: Vec<Cow<'_, StoredLetter>> = letters.iter().enumerate().map(recorded).collect();
            let mut new = insert(&mut *tx, self.dialect, letters.iter().map(|letter| &**letter)).await?;
            if new < letters.len() as u64 {
                let alive = letters.iter().enumerate().filter(|(place, _)| !erased.contains(place));
                let alive: Vec<&StoredLetter> = alive.map(|(_, letter)| &**letter).collect();
                renew(&mut *tx, self.dialect, &alive).await?;
                // One that was dealt with may have left between the two.
                new += insert(&mut *tx, self.dialect, letters.iter().map(|letter| &**letter)).await?;
            }
            // In the order in which all instances lock them.
            let mut ids: Vec<&str> = erased.iter().map(|place| letters[*place].id.as_str()).collect();
            ids.sort_unstable();
            for id in ids {
                erasure::archive(&mut tx, id).await?;
            }
            tx.commit().await?;
            Ok(new)
        })
        .await
    }
}

impl Database {
    /// The places of the letters about people who are erased. Nobody is erased unseen until the transaction ends.
    async fn erased_among(
        &self,
        tx: &mut Transaction<'static, Any>,
        letters: &[StoredLetter],
        named: Option<Named>,
        people: impl FnOnce() -> Named,
    ) -> Result<Vec<usize>, sqlx::Error> {
        query(self.dialect.recording_lock()).fetch_all(&mut **tx).await?;
        if !erasure::was_anybody_erased(&mut **tx).await? {
            return Ok(Vec::new());
        }
        let named = named.unwrap_or_else(people);
        erasure::about_erased(self.dialect, tx, letters, &named).await
    }
}

#[async_trait]
impl PayloadStore for Database {
    async fn park_payload(&self, parked: ParkedPayload) -> Result<(), DeadLetterError> {
        let ParkedPayload { letter, payload } = parked;
        // A whole letter about the same record may be there already: the reference that follows needs the payload. One that
        // was emptied stays so.
        let statement = "UPDATE dead_letters SET payload = $2, letter = $3
             WHERE id = $1 AND payload IS NULL AND letter <> '{}'";
        bounded(async {
            let people = || Named::in_letters(std::iter::once((&letter, Some(payload.as_slice()))));
            let named = erasure::was_anybody_erased(&self.read).await?.then(people);
            let mut transaction = self.begin().await?;
            let erased = self.erased_among(&mut transaction, std::slice::from_ref(&letter), named, people).await?;
            if !erased.is_empty() {
                insert(&mut *transaction, self.dialect, std::iter::once(&erasure::emptied(&letter))).await?;
                erasure::archive(&mut transaction, &letter.id).await?;
                return transaction.commit().await;
            }
            insert(&mut *transaction, self.dialect, std::iter::once(&letter)).await?;
            let update = query(statement).bind(letter.id).bind(payload).bind(letter.letter);
            update.execute(&mut *transaction).await?;
            transaction.commit().await
        })
        .await
        .map_err(|e| DeadLetterError(e.to_string()))
    }

    async fn parked_payload(&self, id: &str) -> Result<Option<Vec<u8>>, DeadLetterError> {
        bounded(async {
            let row = query("SELECT payload FROM dead_letters WHERE id = $1 AND payload IS NOT NULL")
                .bind(id.to_owned())
                .fetch_optional(&self.read)
                .await?;
            row.map(|row| row.try_get("payload")).transpose()
        })
        .await
        .map_err(|e| DeadLetterError(e.to_string()))
    }
}
