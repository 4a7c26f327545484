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
    a_letter_that_fails_again_is_open_again,
    clocks_that_differ_hide_no_failure_and_a_crash_opens_nothing,
    the_letter_of_a_notification_is_replayed_when_it_is_tried_again_by_hand,
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

pub(super) fn stored(id: &str) -> StoredLetter {
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

/// What is recorded of the same letter when it fails at this time.
fn failing(letter: DeadLetter, failed: i64, reason: &str, retries: u32) -> StoredLetter {
    let mut failure = Failure::new(ErrorClass::Transient, "retries_exhausted", reason, at(failed));
    (failure.first_at, failure.retries) = (at(failed - 3), retries);
    StoredLetter::of_parked(&DeadLetter { failure, stage: Stage::Delivery, ..letter }, at(failed + 1))
}

pub(super) async fn set_state(db: &Database, id: &str, state: &str) {
    let update = query("UPDATE dead_letters SET state = $2 WHERE id = $1").bind(id.to_owned()).bind(state.to_owned());
    assert_eq!(update.execute(&db.write).await.expect("updates").rows_affected(), 1);
}

async fn a_letter_that_fails_again_is_open_again(db: &Fresh) {
    let first = failing(letter(1, b"request"), 10, "no answer", 2);
    let again = failing(letter(1, b"request"), 20, "still no answer", 5);
    let id = &first.id;
    assert_eq!(&again.id, id);
    assert_eq!(db.record(&[first.clone(), stored("another")]).await.expect("records"), 2);
    for state in ["replayed", "archived"] {
        set_state(db, id, state).await;
        assert_eq!(db.record(std::slice::from_ref(&first)).await.expect("records"), 0);
        assert_eq!(read(db, id).await, (first.clone(), state.to_owned()), "a copy tells nothing new");
    }
    assert_eq!(db.record(&[again.clone(), first.clone(), again.clone()]).await.expect("records"), 0);
    let expected = StoredLetter { first_failure_at: first.first_failure_at, ..again.clone() };
    assert_eq!(read(db, id).await, (expected.clone(), "open".to_owned()));
    assert_eq!(db.record(std::slice::from_ref(&first)).await.expect("records"), 0);
    assert_eq!(read(db, id).await, (expected, "open".to_owned()), "an old copy changes nothing");
    assert_eq!(read(db, "another").await, (stored("another"), "open".to_owned()));

    let both = [10, 20].map(|failed| failing(letter(2, b"at once"), failed, &failed.to_string(), 1));
    assert_eq!(db.record(&both).await.expect("records"), 1);
    assert_eq!(read(db, &both[0].id).await.0.reason, "20");

    query("UPDATE dead_letters SET letter = '{}'").execute(&db.write).await.expect("empties all");
    set_state(db, id, "archived").await;
    assert_eq!(db.record(&[failing(letter(1, b"request"), 30, "secret", 7)]).await.expect("records"), 0);
    let (emptied, state) = read(db, id).await;
    assert_eq!((emptied.letter.as_str(), emptied.reason.as_str()), ("{}", "still no answer"), "it stays empty");
    assert_eq!(state, "archived");
}

async fn clocks_that_differ_hide_no_failure_and_a_crash_opens_nothing(db: &Fresh) {
    for (n, (state, stage, failed, opened)) in [
        // The host that tried again has a clock that is behind.
        ("replayed", Stage::Delivery, 10, "open"),
        ("replayed", Stage::Delivery, 20, "replayed"),
        ("archived", Stage::Delivery, 30, "open"),
        ("archived", Stage::Delivery, 10, "archived"),
        // The event was read again.
        ("archived", Stage::Routing, 30, "archived"),
        ("open", Stage::Routing, 30, "open"),
    ]
    .into_iter()
    .enumerate()
    {
        let failing = |failed| StoredLetter {
            stage: stage.as_str().to_owned(),
            ..failing(letter(n as i64, b"record"), failed, "no answer", 1)
        };
        let id = failing(20).id;
        assert_eq!(db.record(&[failing(20)]).await.expect("records"), 1);
        set_state(db, &id, state).await;
        assert_eq!(db.record(&[failing(failed)]).await.expect("records"), 0);
        assert_eq!(read(db, &id).await.1, opened, "{state} {stage:?} {failed}");
    }
}

async fn the_letter_of_a_notification_is_replayed_when_it_is_tried_again_by_hand(db: &Fresh) {
    let mut direct = new("direct", 0);
    (direct.origin.topic, direct.origin.partition, direct.origin.offset) = ("api".to_owned(), None, None);
    add(db, &[new("routed", 0), direct]).await.expect("inserts");
    db.record(&[stored("another")]).await.expect("records");
    for claimed in claim(db, "lane", 0, 2).await {
        assert!(settle(db, settlement(&claimed, "lane", State::Failed, 1)).await);
        let origin = Origin {
            topic: claimed.origin.topic.clone(),
            partition: claimed.origin.partition,
            offset: claimed.origin.offset,
            value: Some(claimed.request_json.clone().into_bytes()),
            ..letter(0, b"").origin
        };
        let dead = |failed| failing(DeadLetter { origin: origin.clone(), ..letter(0, b"") }, failed, "no answer", 2);
        let id = dead(1).id;
        db.record(&[dead(1)]).await.expect("records");
        assert!(db.reopen(&claimed.id, at(2)).await.expect("reopens").is_some());
        assert_eq!(read(db, &id).await.1, "replayed", "{}", claimed.id);
        db.record(&[dead(3)]).await.expect("records");
        assert_eq!(read(db, &id).await.1, "open", "{}", claimed.id);
        assert!(db.reopen(&claimed.id, at(4)).await.expect("asks").is_none(), "it waits");
        assert_eq!(read(db, &id).await.1, "open", "nothing is tried again");
    }
    assert_eq!(read(db, "another").await.1, "open");
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
