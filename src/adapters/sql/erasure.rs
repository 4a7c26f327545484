//! Erasing a person: nothing personal remains in any table, and what is counted stays counted.

use sqlx::{Any, Row as _, Transaction, query};

use super::database::{Database, bounded, sql};
use crate::domain::bytes;
use crate::ports::contacts::Erased;
use crate::ports::ledger::LedgerError;

/// Dead letters that are looked through together.
const PAGE: i64 = 20;

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

pub(super) async fn erase(database: &Database, id: &str) -> Result<Erased, LedgerError> {
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
    // The database finds candidates; only what it cannot read has to be looked into here.
    let page = "SELECT id, letter, payload FROM dead_letters
         WHERE id > $1 AND (letter LIKE $3 ESCAPE '!' OR payload IS NOT NULL
                            OR letter LIKE '%\"originalMessageEncoding\":\"base64\"%')
         ORDER BY id LIMIT $2";
    let pattern = format!("%{}%", like(&serde_json::to_string(id).unwrap_or_default()));
    let clear =
        "UPDATE dead_letters SET letter = '{}', payload = NULL, reason = 'erased', state = 'archived' WHERE id = $1";
    let (mut last, mut erased) = (String::new(), 0);
    loop {
        let rows = bounded(async {
            query(page).bind(last.clone()).bind(PAGE).bind(pattern.clone()).fetch_all(&database.read).await
        })
        .await?;
        let Some(newest) = rows.last() else { return Ok(erased) };
        let read = |row: &sqlx::any::AnyRow| Ok((row.try_get("id")?, row.try_get("letter")?, row.try_get("payload")?));
        last = bounded(async { newest.try_get("id") }).await?;
        for row in &rows {
            let (letter_id, letter, payload): (String, String, Option<Vec<u8>>) = bounded(async { read(row) }).await?;
            if names(&letter, payload.as_deref(), id) {
                bounded(async { query(clear).bind(letter_id).execute(&database.write).await }).await?;
                erased += 1;
            }
        }
    }
}

/// A text as it stands in a LIKE pattern.
fn like(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}

/// True when a letter or its payload has the id as a whole JSON string, also within a base64 message.
fn names(letter: &str, payload: Option<&[u8]>, id: &str) -> bool {
    let needle = serde_json::to_string(id).unwrap_or_default();
    let has = |text: &[u8]| text.windows(needle.len().max(1)).any(|window| window == needle.as_bytes());
    if has(letter.as_bytes()) || payload.is_some_and(has) {
        return true;
    }
    let letter: serde_json::Value = serde_json::from_str(letter).unwrap_or_default();
    let encoded = letter["originalMessageEncoding"] == "base64";
    let message = letter["originalMessage"].as_str().filter(|_| encoded).map(bytes::decode);
    message.is_some_and(|message| message.is_ok_and(|bytes| has(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_names_a_person_in_json_base64_and_payload() {
        let json = r#"{"originalMessageEncoding":"json","originalMessage":{"customerId":"c-1"}}"#;
        assert!(names(json, None, "c-1") && !names(json, None, "c-"));
        let encoded = bytes::encode(br#"broken {"customerId":"c-1""#);
        let base64 = format!(r#"{{"originalMessageEncoding":"base64","originalMessage":"{encoded}"}}"#);
        assert!(names(&base64, None, "c-1") && !names(&base64, None, "c-2"));
        assert!(names("{}", Some(br#"{"customerId":"c-1"}"#), "c-1"));
    }
}
