//! Dead letters about somebody who is erased: those that are in the table, and those that arrive there later.

use serde_json::json;
use sqlx::{Row as _, query};

use super::*;
use crate::domain::bytes;
use crate::domain::stored_letter::StoredLetter;
use crate::ports::contacts::Contacts as _;
use crate::ports::dead_letters::{DeadLetterTable as _, ParkedPayload, PayloadStore as _};

on_both_databases!(
    letters_are_emptied_in_whatever_spelling_they_name_a_person,
    letters_that_were_on_their_way_arrive_empty,
    erasures_are_forgotten_with_settled_notifications,
);

/// A letter of the service, which failed at this time.
fn letter(id: &str, failed_at: i64, message: serde_json::Value, encoding: &str) -> StoredLetter {
    let letter = json!({"originalTopic": "t", "originalMessage": message, "originalMessageEncoding": encoding});
    StoredLetter {
        id: id.into(),
        stage: "routing".into(),
        error_class: "permanent".into(),
        error_code: "invalid_field".into(),
        fingerprint: "f".into(),
        event_type: None,
        reason: "of secret@example.com".into(),
        retry_count: 0,
        original_topic: "t".into(),
        original_partition: None,
        original_offset: None,
        first_failure_at: None,
        last_failure_at: Some(at(failed_at)),
        letter: letter.to_string(),
        recorded_at: at(failed_at),
    }
}

/// State and content of a letter.
async fn shown(database: &Database, id: &str) -> (String, String) {
    let row = query("SELECT * FROM dead_letters WHERE id = $1").bind(id.to_owned()).fetch_one(&database.read).await;
    let row = row.expect("is there");
    let payload: Option<Vec<u8>> = row.get("payload");
    let (letter, reason): (String, String) = (row.get("letter"), row.get("reason"));
    (row.get("state"), format!("{letter} {reason} {}", String::from_utf8_lossy(&payload.unwrap_or_default())))
}

fn gone() -> (String, String) {
    ("archived".into(), "{} erased ".into())
}

async fn letters_are_emptied_in_whatever_spelling_they_name_a_person(database: &Fresh) {
    let person = "c/\u{e9}_1";
    let event = json!({"data": {"customerId": person}});
    let spelt = |id: &str, from: &str, to: &str| {
        let letter = letter(id, 1, event.clone(), "json");
        StoredLetter { letter: letter.letter.replace(from, to), ..letter }
    };
    let named = [
        letter("json", 1, event.clone(), "json"),
        spelt("escaped", "\u{e9}", "\\u00e9"),
        spelt("slashed", "c/", "c\\/"),
        letter("base64", 1, json!(bytes::encode(event.to_string().as_bytes())), "base64"),
        letter("text", 1, json!(event.to_string()), "json"),
    ];
    let others = [
        letter("like", 1, json!({"data": {"customerId": "c/\u{e9}x1"}}), "json"),
        letter("longer", 1, json!({"data": {"customerId": format!("{person}2"), "path": "a\\b"}}), "json"),
    ];
    database.record(&[&named[..], &others[..]].concat()).await.expect("records");
    let parked = letter("parked", 1, json!(null), "parked");
    let payload = format!("broken {event}").into_bytes();
    database.park_payload(ParkedPayload { letter: parked, payload }).await.expect("parks");

    let erased = database.erase(person, at(9)).await.expect("erases");
    assert_eq!(erased.dead_letters, named.len() as u64 + 1);
    for id in named.iter().map(|letter| letter.id.as_str()).chain(["parked"]) {
        assert_eq!(shown(database, id).await, gone(), "{id}");
    }
    for other in &others {
        let (state, content) = shown(database, &other.id).await;
        assert!(state != "archived" && content.contains("customerId"), "{content}");
    }
}

async fn letters_that_were_on_their_way_arrive_empty(database: &Fresh) {
    const MINUTE: i64 = 60_000;
    let about = |id: &str, person: &str, failed_at| letter(id, failed_at, json!({"customerId": person}), "json");
    database.erase("ada", at(5 * MINUTE)).await.expect("erases");
    database.erase("bob", at(MINUTE)).await.expect("erases");
    database.erase("bob", at(2 * MINUTE)).await.expect("erases once more");
    let undated = StoredLetter { last_failure_at: None, ..about("undated", "ada", 0) };
    let letters = [
        about("before", "ada", 4 * MINUTE),
        undated,
        about("again", "bob", 2 * MINUTE),
        about("after", "ada", 7 * MINUTE),
        about("another", "eve", MINUTE),
    ];
    assert_eq!(database.record(&letters).await.expect("records"), 5);
    assert_eq!(database.record(&letters).await.expect("records"), 0, "they are counted once");
    let parked = letter("parked", 4 * MINUTE, json!(null), "parked");
    database
        .park_payload(ParkedPayload { letter: parked, payload: br#"{"customerId":"ada"}"#.into() })
        .await
        .expect("parks");
    let again = letter("before", 7 * MINUTE, json!(null), "parked");
    database.park_payload(ParkedPayload { letter: again, payload: b"\"eve\"".into() }).await.expect("parks");
    for id in ["before", "undated", "again", "parked"] {
        assert_eq!(shown(database, id).await, gone(), "{id}");
    }
    for (id, person) in [("after", "ada"), ("another", "eve")] {
        let (state, content) = shown(database, id).await;
        assert!(state != "archived" && content.contains(person), "{content}");
    }
}

async fn erasures_are_forgotten_with_settled_notifications(database: &Fresh) {
    database.erase("ada", at(5)).await.expect("erases");
    let known = async || {
        let rows = query("SELECT person FROM erasures").fetch_all(&database.read).await.expect("reads");
        rows.iter().map(|row| row.get("person")).collect::<Vec<String>>()
    };
    database.retire(at(5), 10).await.expect("retires");
    let [person] = &known().await[..] else { panic!("it is remembered") };
    assert!(!person.contains("ada"));
    database.retire(at(6), 10).await.expect("retires");
    assert_eq!(known().await, [""; 0]);
}
