//! Erasing a person: nothing personal remains in any table, and what is counted stays counted. A dead letter that is on
//! its way at that moment loses what is personal when it arrives.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::{Any, Executor, Row as _, Transaction, query};

use super::database::{Database, bounded, sql};
use super::dialect::Dialect;
use super::insert::text;
use super::rows::millis;
use crate::domain::bytes::hex;
use crate::domain::envelope::to_json;
use crate::domain::mentions::strings_of;
use crate::domain::stored_letter::StoredLetter;
use crate::ports::contacts::Erased;
use crate::ports::ledger::LedgerError;

/// Dead letters that are looked through together.
const PAGE: i64 = 50;

/// What is still on its way keeps what it needs.
const NOTIFICATIONS: &str = "UPDATE notifications
    SET recipient = NULL, about = NULL, receipt = NULL, reason = CASE WHEN reason IS NULL THEN NULL ELSE 'erased' END
    WHERE seq IN (SELECT seq FROM requests WHERE recipient = $1) AND settled_at IS NOT NULL";

const ATTEMPTS: &str = "UPDATE attempts
    SET receipt = NULL, error = CASE WHEN error IS NULL THEN NULL ELSE 'erased' END
    WHERE seq IN (SELECT seq FROM requests WHERE recipient = $1)";

const REQUESTS: &str = "UPDATE requests
    SET recipient = NULL, request = '{}', headers = '[]', origin_key = NULL, aggregate_id = 'erased',
        causation_id = NULL, correlation_id = 'erased'
    WHERE recipient = $1
      AND EXISTS (SELECT 1 FROM notifications n WHERE n.seq = requests.seq AND n.settled_at IS NOT NULL)";

/// What remains of an erased request.
pub(super) const NO_REQUEST: &str = "{}";
/// What remains of a dead letter about an erased person.
const NO_LETTER: &str = "{}";
/// Its reason.
const ERASED: &str = "erased";

/// One of another host's letters may bear a later time than an erasure that came after it.
const CLOCKS_DIFFER_MS: i64 = 60_000;

pub(super) async fn erase(database: &Database, id: &str, now: Timestamp) -> Result<Erased, LedgerError> {
    let mut erased = bounded(async {
        let mut tx = database.begin().await?;
        // A contact that arrives at the same time locks the same rows in another order.
        query(database.dialect.contacts_lock()).fetch_all(&mut *tx).await?;
        // The rows before their attempts, as everybody locks them.
        let lock = format!(
            "SELECT seq FROM notifications WHERE seq IN (SELECT seq FROM requests WHERE recipient = $1) ORDER BY seq {}",
            database.dialect.for_update()
        );
        query(sql(lock)).bind(id.to_owned()).fetch_all(&mut *tx).await?;
        query(database.dialect.erasure_lock()).fetch_all(&mut *tx).await?;
        let note = "INSERT INTO erasures (person, erased_at) VALUES ($1, $2)
             ON CONFLICT (person) DO UPDATE SET erased_at = excluded.erased_at
             WHERE excluded.erased_at > erasures.erased_at";
        query(note).bind(person(id)).bind(millis(now)).execute(&mut *tx).await?;
        let erased = Erased {
            recipients: change(&mut tx, "DELETE FROM recipients WHERE id = $1", id).await?,
            preferences: change(&mut tx, "DELETE FROM preferences WHERE recipient = $1", id).await?,
            inbox_entries: change(&mut tx, "DELETE FROM inbox WHERE recipient = $1", id).await?,
            dead_letters: 0,
            notifications: {
                change(&mut tx, ATTEMPTS, id).await?;
                change(&mut tx, NOTIFICATIONS, id).await?;
                change(&mut tx, REQUESTS, id).await?
            },
        };
        tx.commit().await?;
        Ok(erased)
    })
    .await?;
    erased.dead_letters = erase_letters(database, id).await?;
    Ok(erased)
}

async fn change(tx: &mut Transaction<'static, Any>, statement: &'static str, id: &str) -> Result<u64, sqlx::Error> {
    Ok(query(statement).bind(id.to_owned()).execute(&mut **tx).await?.rows_affected())
}

/// A letter holds the event as it came, in whatever spelling: each is looked through, page by page.
async fn erase_letters(database: &Database, id: &str) -> Result<u64, LedgerError> {
    // The database finds candidates: letters with the id as it stands, and those with what only this can read.
    let page = r#"SELECT id, letter, payload FROM dead_letters
         WHERE id > $1 AND (letter LIKE $3 ESCAPE '!' OR letter LIKE $4 ESCAPE '!' OR payload IS NOT NULL
                            OR letter LIKE '%base64%')
         ORDER BY id LIMIT $2"#;
    let spelt = serde_json::to_string(id).unwrap_or_default();
    // Most ids can hide in a letter in one way only: a character that is written by its number.
    let plain = spelt.len() == id.len() + 2 && !id.contains('/');
    let hidden = if plain { r"%\u%" } else { r"%\%" };
    let (mut last, mut erased) = (String::new(), 0);
    loop {
        let rows = bounded(async {
            let page = query(page).bind(last.clone()).bind(PAGE).bind(format!("%{}%", like(id))).bind(hidden);
            page.fetch_all(&database.read).await
        })
        .await?;
        let Some(newest) = rows.last() else { return Ok(erased) };
        let read = |row: &sqlx::any::AnyRow| Ok((row.try_get("id")?, row.try_get("letter")?, row.try_get("payload")?));
        last = bounded(async { newest.try_get("id") }).await?;
        for row in &rows {
            let (letter_id, letter, payload): (String, String, Option<Vec<u8>>) = bounded(async { read(row) }).await?;
            if strings_of(&letter, payload.as_deref()).contains(id) {
                bounded(async { clear(&letter_id).execute(&database.write).await }).await?;
                erased += 1;
            }
        }
    }
}

/// A text as it stands in a LIKE pattern.
fn like(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}

type Statement = sqlx::query::Query<'static, Any, sqlx::any::AnyArguments>;

/// Removes what is personal from a letter.
fn clear(letter_id: &str) -> Statement {
    query("UPDATE dead_letters SET letter = $2, payload = NULL, reason = $3, state = 'archived' WHERE id = $1")
        .bind(letter_id.to_owned())
        .bind(NO_LETTER)
        .bind(ERASED)
}

/// By what an erased person is known.
fn person(id: &str) -> String {
    hex(&Sha256::digest(id))
}

#[derive(Serialize)]
struct PersonRow<'a> {
    person: &'a str,
}

/// People whom letters name, as they are known here, by letter.
pub(super) struct Named(Vec<HashSet<String>>);

impl Named {
    /// What stands in these letters and their payloads.
    pub fn in_letters<'a>(letters: impl Iterator<Item = (&'a StoredLetter, Option<&'a [u8]>)>) -> Self {
        let people = |(letter, payload): (&StoredLetter, _)| {
            strings_of(&letter.letter, payload).iter().map(|id| person(id)).collect()
        };
        Self(letters.map(people).collect())
    }
}

/// Whether anybody was erased. Mostly nobody was, and then a burst of letters need not be searched.
pub(super) async fn was_anybody_erased<'c>(on: impl Executor<'c, Database = Any>) -> Result<bool, sqlx::Error> {
    Ok(query("SELECT person FROM erasures LIMIT 1").fetch_optional(on).await?.is_some())
}

/// Which of the letters, by their places, are about somebody who was erased after they were written. Whoever asks holds
/// [`Dialect::recording_lock`].
pub(super) async fn about_erased(
    dialect: Dialect,
    tx: &mut Transaction<'static, Any>,
    letters: &[StoredLetter],
    Named(people): &Named,
) -> Result<Vec<usize>, sqlx::Error> {
    let asked: HashSet<&str> = people.iter().flatten().map(String::as_str).collect();
    let asked: Vec<PersonRow<'_>> = asked.into_iter().map(|person| PersonRow { person }).collect();
    let statement = format!(
        "SELECT e.person, e.erased_at FROM {} JOIN erasures e ON e.person = r.person",
        dialect.rows(&[("person", "text")])
    );
    let mut erased: HashMap<String, i64> = HashMap::new();
    for row in query(sql(statement)).bind(text(to_json(&asked))).fetch_all(&mut **tx).await? {
        erased.insert(row.try_get("person")?, row.try_get("erased_at")?);
    }
    let is_about = |letter: &StoredLetter, people: &HashSet<String>| {
        let written = letter.last_failure_at.map_or(i64::MIN, |at| millis(at).saturating_sub(CLOCKS_DIFFER_MS));
        people.iter().filter_map(|person| erased.get(person)).any(|at| written <= *at)
    };
    let places = letters.iter().zip(people).enumerate();
    Ok(places.filter(|(_, (letter, people))| is_about(letter, people)).map(|(place, _)| place).collect())
}

/// What is recorded of such a letter.
pub(super) fn emptied(letter: &StoredLetter) -> StoredLetter {
    StoredLetter { letter: NO_LETTER.to_owned(), reason: ERASED.to_owned(), ..letter.clone() }
}

/// Nobody needs to review it.
pub(super) async fn archive(tx: &mut Transaction<'static, Any>, letter_id: &str) -> Result<(), sqlx::Error> {
    clear(letter_id).execute(&mut **tx).await.map(drop)
}
