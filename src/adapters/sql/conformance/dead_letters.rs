//! The table of dead letters.

use sqlx::{Row as _, query};

use super::*;
use crate::adapters::sql::database::sql;
use crate::adapters::sql::dialect::Dialect;
use crate::adapters::sql::rows::timestamp;
use crate::domain::dead_letter::{DeadLetter, Failure, Stage};
use crate::domain::error::ErrorClass;
use crate::domain::stored_letter::StoredLetter;
use crate::ports::dead_letters::{DeadLetterTable as _, ParkedPayload, PayloadStore as _};

on_both_databases! {
    a_letter_comes_back_as_it_was_recorded,
    a_letter_is_recorded_once,
    two_instances_may_record_the_same_letters_at_once,
    payloads_come_back_byte_for_byte,
    a_parked_letter_has_its_payload_whoever_came_first,
    payloads_that_were_parked_before_are_letters_like_the_others,
}

fn letter(offset: i64, value: &[u8]) -> DeadLetter {
    let mut failure = Failure::new(ErrorClass::Permanent, "missing_field", "`data.orderId` is missing", at(7));
    failure.retries = 2;
    let origin = Origin {
        topic: "order-events".to_owned(),
        partition: Some(1),
        offset: Some(offset),
        key: None,
        value: Some(value.to_vec()),
        headers: Headers::default(),
    };
    DeadLetter { origin, stage: Stage::Routing, failure, event_type: Some("OrderCreated".to_owned()) }
}

fn stored(id: &str) -> StoredLetter {
    StoredLetter { id: id.to_owned(), ..StoredLetter::of_parked(&letter(1, b"x"), at(8)) }
}

/// A letter with its state; panics unless it is there.
async fn read(db: &Database, id: &str) -> (StoredLetter, String) {
    let row = query("SELECT * FROM dead_letters WHERE id = $1").bind(id.to_owned()).fetch_one(&db.read).await;
    let row = row.expect("is there");
    let text = |column: &str| row.try_get::<String, _>(column).expect("a text");
    let number = |column: &str| row.try_get::<Option<i64>, _>(column).expect("a number");
    let letter = StoredLetter {
        id: text("id"),
        stage: text("stage"),
        error_class: text("error_class"),
        error_code: text("error_code"),
        fingerprint: text("fingerprint"),
        event_type: row.try_get("event_type").expect("a text"),
        reason: text("reason"),
        retry_count: number("retry_count").expect("is set"),
        original_topic: text("original_topic"),
        original_partition: number("original_partition"),
        original_offset: number("original_offset"),
        first_failure_at: number("first_failure_at").map(timestamp),
        last_failure_at: number("last_failure_at").map(timestamp),
        letter: text("letter"),
        recorded_at: timestamp(number("recorded_at").expect("is set")),
    };
    (letter, text("state"))
}

async fn count(db: &Database) -> i64 {
    let row = query("SELECT count(*) AS n FROM dead_letters").fetch_one(&db.read).await.expect("reads");
    row.try_get("n").expect("a number")
}

async fn a_letter_comes_back_as_it_was_recorded(db: &Fresh) {
    let strange = StoredLetter {
        reason: "quotes \" ' ` and \\ 💌\n\u{1}".to_owned(),
        letter: r#"{"originalMessage": {"n": 1e3, "text": "\u0000 \ud800 \\ \" ' 💌"}}"#.to_owned(),
        ..stored("strange")
    };
    let bare = StoredLetter {
        event_type: None,
        original_partition: None,
        original_offset: None,
        first_failure_at: None,
        last_failure_at: None,
        ..stored("bare")
    };
    let letters = [stored("ordinary"), strange, bare];
    assert_eq!(db.record(&letters).await.expect("records"), 3);
    for letter in letters {
        assert_eq!(read(db, &letter.id).await, (letter.clone(), "open".to_owned()));
        assert_eq!(db.parked_payload(&letter.id).await.expect("reads"), None, "nothing is parked");
    }
}

async fn a_letter_is_recorded_once(db: &Fresh) {
    assert_eq!(db.record(&[]).await.expect("records"), 0);
    assert_eq!(db.record(&[stored("a"), stored("b"), stored("a")]).await.expect("records"), 2);
    query("UPDATE dead_letters SET state = 'archived' WHERE id = 'a'").execute(&db.write).await.expect("updates");
    let later = StoredLetter { reason: "another".to_owned(), recorded_at: at(99), ..stored("a") };
    assert_eq!(db.record(&[later, stored("c")]).await.expect("records"), 1);
    assert_eq!(read(db, "a").await, (stored("a"), "archived".to_owned()), "nothing has changed");
    assert_eq!(count(db).await, 3);
}

async fn two_instances_may_record_the_same_letters_at_once(db: &Fresh) {
    let other = db.again().await;
    for round in 0..20 {
        let letters: Vec<_> = (0..50).map(|n| stored(&format!("{round}-{n}"))).collect();
        let (one, two) = tokio::join!(db.record(&letters), other.record(&letters));
        assert_eq!(one.expect("records") + two.expect("records"), 50);
    }
    assert_eq!(count(db).await, 1000);
    other.close().await;
}

async fn payloads_come_back_byte_for_byte(db: &Fresh) {
    let parked = |id: &str, payload: Vec<u8>| ParkedPayload { letter: stored(id), payload };
    assert_eq!(db.parked_payload("nothing").await.expect("reads"), None);
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = every_byte.repeat(8 * 1024);
    for (id, payload) in [("empty", Vec::new()), ("every byte", every_byte), ("large", large)] {
        db.park_payload(parked(id, payload.clone())).await.expect("parks");
        assert_eq!(db.parked_payload(id).await.expect("reads"), Some(payload.clone()), "{id}");
        db.park_payload(parked(id, b"another".to_vec())).await.expect("parks");
        assert_eq!(db.parked_payload(id).await.expect("reads"), Some(payload), "{id}: the first one stays");
    }
}

async fn a_parked_letter_has_its_payload_whoever_came_first(db: &Fresh) {
    let reference = stored("parked first");
    let payload = b"\xff\x00".to_vec();
    db.park_payload(ParkedPayload { letter: reference.clone(), payload: payload.clone() }).await.expect("parks");
    // As the reference is read from the topic: without the type, which stands in the payload.
    let mirrored = StoredLetter { event_type: None, recorded_at: at(99), ..reference.clone() };
    assert_eq!(db.record(&[mirrored]).await.expect("records"), 0);
    assert_eq!(read(db, "parked first").await.0, reference);
    assert_eq!(db.parked_payload("parked first").await.expect("reads"), Some(payload.clone()));

    let whole = StoredLetter { letter: "{\"whole\": true}".to_owned(), ..stored("recorded first") };
    db.record(&[whole]).await.expect("records");
    let reference = stored("recorded first");
    db.park_payload(ParkedPayload { letter: reference.clone(), payload: payload.clone() }).await.expect("parks");
    assert_eq!(read(db, "recorded first").await.0, reference, "the letter says where its payload is");
    assert_eq!(db.parked_payload("recorded first").await.expect("reads"), Some(payload));
}

async fn payloads_that_were_parked_before_are_letters_like_the_others(db: &Fresh) {
    // The table as the first migration made it, with a letter.
    let (blob, number) = match db.dialect {
        Dialect::Postgres => ("BYTEA", "BIGINT"),
        Dialect::Sqlite => ("BLOB", "INTEGER"),
    };
    for statement in [
        "DROP TABLE dead_letters".to_owned(),
        "DELETE FROM _sqlx_migrations WHERE version = 2".to_owned(),
        format!(
            "CREATE TABLE dead_letters (id TEXT PRIMARY KEY, letter TEXT NOT NULL, payload {blob} NOT NULL, \
             parked_at {number} NOT NULL)"
        ),
    ] {
        query(sql(statement)).execute(&db.write).await.expect("is executed");
    }
    let expected = StoredLetter::of_parked(&letter(17, b"payload"), at(8));
    query("INSERT INTO dead_letters (id, letter, payload, parked_at) VALUES ($1, $2, $3, $4)")
        .bind(expected.id.clone())
        .bind(expected.letter.clone())
        .bind(b"payload".to_vec())
        .bind(at(8).as_millisecond())
        .execute(&db.write)
        .await
        .expect("parks as before");

    let migrated = db.again().await;
    // Nobody wrote the event's type down then.
    let expected = StoredLetter { event_type: None, ..expected };
    assert_eq!(read(&migrated, &expected.id).await, (expected.clone(), "open".to_owned()));
    let payload = migrated.parked_payload(&expected.id).await.expect("reads");
    assert_eq!(payload.as_deref(), Some(&b"payload"[..]));
    assert_eq!(migrated.record(&[stored("new")]).await.expect("records"), 1);
    migrated.close().await;
}
