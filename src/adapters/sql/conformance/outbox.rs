//! The outbox.

use sqlx::query;

use super::*;
use crate::adapters::sql::outbox::MOST_FRESH;
use crate::ports::ledger::{OutboxKind, OutboxMessage};
use crate::ports::outbox::{Added, FreshEvents};

on_both_databases! {
    messages_wait_in_their_order_until_they_are_removed,
    a_reservation_holds_until_its_end,
    a_reservation_keeps_to_its_limit_when_the_statistics_say_that_the_table_is_empty,
    no_message_is_reserved_twice,
    a_message_comes_back_as_it_went_in,
    new_messages_are_announced,
    who_settles_holds_lifecycle_events_for_a_while,
    fresh_messages_are_kept_up_to_a_bound_and_for_somebody,
}

fn message(body: &str) -> OutboxMessage {
    let body = body.to_owned();
    OutboxMessage { kind: OutboxKind::Lifecycle, key: None, body, headers_json: "[]".to_owned() }
}

/// Settles a notification of this id with these messages.
async fn publish(db: &Database, id: &str, outbox: Vec<OutboxMessage>) {
    insert(db, &[id]).await;
    let claimed = claim_one(db, "o", 0).await;
    assert!(settle(db, Settlement { outbox, ..settlement(&claimed, "o", State::Sent, 0) }).await);
}

async fn publish_numbers(db: &Database, id: &str, numbers: std::ops::Range<u32>) {
    publish(db, id, numbers.map(|n| message(&n.to_string())).collect()).await;
}

fn bodies(waiting: &[Waiting]) -> Vec<&str> {
    waiting.iter().map(|w| w.body.as_str()).collect()
}

async fn messages_wait_in_their_order_until_they_are_removed(db: &Fresh) {
    assert!(reserve(db, 0, 10, 5).await.is_empty());
    publish_numbers(db, "a", 0..3).await;
    publish_numbers(db, "b", 3..6).await;
    let first = reserve(db, 0, 10, 4).await;
    assert_eq!(bodies(&first), ["0", "1", "2", "3"]);
    assert_eq!(bodies(&reserve(db, 0, 10, 4).await), ["4", "5"]);
    db.remove(&[first[0].id, first[2].id]).await.expect("removes");
    assert_eq!(bodies(&reserve(db, 10, 20, 10).await), ["1", "3", "4", "5"]);
    db.remove(&[first[0].id, first[1].id, 4711]).await.expect("what is gone stays gone");
    db.remove(&[]).await.expect("nothing to do");
    let rest = reserve(db, 20, 30, 10).await;
    assert_eq!(bodies(&rest), ["3", "4", "5"]);
    db.remove(&rest.iter().map(|w| w.id).collect::<Vec<_>>()).await.expect("removes");
    assert!(reserve(db, i64::MAX, i64::MAX, 10).await.is_empty());
}

async fn a_reservation_holds_until_its_end(db: &Fresh) {
    publish_numbers(db, "a", 0..2).await;
    assert_eq!(bodies(&reserve(db, 100, 200, 1).await), ["0"]);
    assert_eq!(bodies(&reserve(db, 150, 250, 10).await), ["1"]);
    assert!(reserve(db, 199, 300, 10).await.is_empty());
    assert_eq!(bodies(&reserve(db, 200, 300, 10).await), ["0"]);
    assert_eq!(bodies(&reserve(db, 250, 350, 10).await), ["1"]);
}

async fn a_reservation_keeps_to_its_limit_when_the_statistics_say_that_the_table_is_empty(db: &Fresh) {
    publish_numbers(db, "a", 0..1).await;
    query("ANALYZE").execute(&db.write).await.expect("analyses");
    publish_numbers(db, "b", 1..50).await;
    assert_eq!(bodies(&reserve(db, 0, 10, 3).await), ["0", "1", "2"]);
}

async fn no_message_is_reserved_twice(db: &Fresh) {
    publish_numbers(db, "a", 0..200).await;
    let other = db.again().await;
    let drain = async |database: &Database| {
        let mut mine = BTreeSet::new();
        loop {
            let waiting = reserve(database, 0, 10, 7).await;
            if waiting.is_empty() {
                return mine;
            }
            for waiting in waiting {
                assert!(mine.insert(waiting.id), "reserved twice");
            }
        }
    };
    // Two of one instance, for SQLite lets one instance starve another for a while.
    let (a, b, c) = tokio::join!(drain(db), drain(db), drain(&other));
    assert!(a.is_disjoint(&b) && b.is_disjoint(&c) && c.is_disjoint(&a));
    assert_eq!(a.len() + b.len() + c.len(), 200);
    assert!([a, b, c].iter().filter(|mine| !mine.is_empty()).count() > 1, "there was no contest");
    other.close().await;
}

async fn a_message_comes_back_as_it_went_in(db: &Fresh) {
    let letter = OutboxMessage {
        kind: OutboxKind::DeadLetter,
        key: Some((0..=255).collect()),
        body: r#"{"amount": 99.10, "n": 1e3, "text": "\u0000 \\ \" '' 💌"}"#.to_owned(),
        headers_json: r#"[["eventType","Tm90aWZpY2F0aW9uU2VudA=="],["none",null]]"#.to_owned(),
    };
    let empty = OutboxMessage { key: Some(Vec::new()), ..message("") };
    publish(db, "n", vec![letter.clone(), empty, message("no key")]).await;
    let waiting = reserve(db, 0, 10, 10).await;
    assert_eq!((waiting[0].kind, &waiting[0].key), (OutboxKind::DeadLetter, &letter.key));
    assert_eq!((&waiting[0].body, &waiting[0].headers_json), (&letter.body, &letter.headers_json));
    assert_eq!((waiting[1].kind, waiting[1].key.as_deref()), (OutboxKind::Lifecycle, Some(&[][..])));
    assert_eq!((waiting[1].body.as_str(), waiting[1].headers_json.as_str()), ("", "[]"));
    assert_eq!(waiting[2].key, None);
}

async fn new_messages_are_announced(db: &Fresh) {
    let mut added = db.added();
    publish(db, "silent", Vec::new()).await;
    assert!(!added.has_changed().expect("the sender lives"));
    publish(db, "n", vec![message("one")]).await;
    assert!(added.has_changed().expect("the sender lives"));
    added.mark_unchanged();
    reserve(db, 0, 10, 10).await;
    assert!(!added.has_changed().expect("the sender lives"));
}

fn letter() -> OutboxMessage {
    OutboxMessage { kind: OutboxKind::DeadLetter, ..message("letter") }
}

async fn who_settles_holds_lifecycle_events_for_a_while(db: &Fresh) {
    let added = db.added();
    publish(db, "n", vec![message("one"), letter(), message("two")]).await;
    assert_eq!(*added.borrow(), Added { batches: 1, unreserved: 1 }, "a letter is for whoever comes first");
    let FreshEvents { mut ids, messages, reserved_until_ms } = db.fresh().expect("there are fresh ones");
    assert_eq!(messages.iter().map(|m| m.body.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(reserved_until_ms, at(RESERVED_MS).as_millisecond());
    assert!(db.fresh().is_none(), "once");
    assert_eq!(bodies(&reserve(db, -1, RESERVED_MS, 10).await), ["letter"]);
    let free = reserve(db, 0, RESERVED_MS, 10).await;
    assert_eq!(bodies(&free), ["one", "two"]);
    ids.sort_unstable();
    assert_eq!(ids, free.iter().map(|w| w.id).collect::<Vec<_>>());
    db.remove(&ids).await.expect("removes");
    assert!(reserve(db, i64::MAX, i64::MAX, 1).await.iter().all(|w| w.body == "letter"));
}

async fn fresh_messages_are_kept_up_to_a_bound_and_for_somebody(db: &Fresh) {
    publish_numbers(db, "nobody watches", 0..3).await;
    assert!(db.fresh().is_none());
    let added = db.added();
    let most = u32::try_from(MOST_FRESH).expect("is small");
    publish_numbers(db, "fills it", 0..most).await;
    assert_eq!(added.borrow().unreserved, 0);
    publish_numbers(db, "is too much", 0..1).await;
    assert_eq!(added.borrow().unreserved, 1, "the database has to be looked into");
    assert_eq!(db.fresh().map(|fresh| fresh.ids.len()), Some(MOST_FRESH));
    assert!(db.fresh().is_none());
    publish_numbers(db, "has room again", 0..1).await;
    assert_eq!(db.fresh().map(|fresh| fresh.ids.len()), Some(1));
}
