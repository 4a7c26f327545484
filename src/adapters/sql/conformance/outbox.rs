//! The outbox.

use serde_json::value::RawValue;
use sqlx::query;

use super::*;
use crate::adapters::sql::outbox::MOST_FRESH;
use crate::ports::outbox::{Added, FreshEvents, MOST_TOGETHER};

on_both_databases! {
    messages_wait_in_their_order_until_they_are_removed,
    messages_that_were_settled_at_once_share_rows_and_letters_do_not,
    a_reservation_holds_until_its_end,
    a_reservation_keeps_to_its_limit_when_the_statistics_say_that_the_table_is_empty,
    no_message_is_reserved_twice,
    a_message_comes_back_as_it_went_in,
    a_row_that_cannot_be_read_comes_as_it_stands,
    new_messages_are_announced,
    who_settles_holds_lifecycle_events_for_a_while,
    fresh_messages_are_kept_up_to_a_bound_and_for_somebody,
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

/// Reserves a number of rows.
async fn take(db: &Database, now: i64, until: i64, rows: usize) -> Vec<String> {
    bodies(reserve(db, now, until, rows).await)
}

fn ids(waiting: &[Waiting]) -> Vec<i64> {
    waiting.iter().map(|w| w.id).collect()
}

async fn messages_wait_in_their_order_until_they_are_removed(db: &Fresh) {
    assert!(reserve(db, 0, 10, 5).await.is_empty());
    publish_numbers(db, "a", 0..3).await;
    publish_numbers(db, "b", 3..6).await;
    publish_numbers(db, "c", 6..7).await;
    let first = reserve(db, 0, 10, 2).await;
    let first_ids = ids(&first);
    assert_eq!(bodies(first), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(take(db, 0, 10, 2).await, ["6"]);
    db.remove(&first_ids[..1]).await.expect("removes");
    assert_eq!(take(db, 10, 20, 10).await, ["3", "4", "5", "6"]);
    db.remove(&[first_ids[0], first_ids[1], 4711]).await.expect("what is gone stays gone");
    db.remove(&[]).await.expect("nothing to do");
    let rest = reserve(db, 20, 30, 10).await;
    let rest_ids = ids(&rest);
    assert_eq!(bodies(rest), ["6"]);
    db.remove(&rest_ids).await.expect("removes");
    assert!(reserve(db, i64::MAX, i64::MAX, 10).await.is_empty());
}

async fn messages_that_were_settled_at_once_share_rows_and_letters_do_not(db: &Fresh) {
    let most = u32::try_from(MOST_TOGETHER).expect("is small");
    let mut messages: Vec<OutboxMessage> = (0..=2 * most).map(|n| message(&n.to_string())).collect();
    messages.splice(1..1, [letter(), letter()]);
    publish(db, "n", messages).await;
    let waiting = reserve(db, 0, 10, 10).await;
    let mut sizes: Vec<_> = waiting.iter().map(|w| (w.kind == OutboxKind::DeadLetter, w.messages.len())).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [(false, 1), (false, MOST_TOGETHER), (false, MOST_TOGETHER), (true, 1), (true, 1)]);
    let events = waiting.into_iter().filter(|w| w.kind == OutboxKind::Lifecycle).collect();
    assert!(bodies(events).into_iter().eq((0..=2 * most).map(|n| n.to_string())), "in their order");
}

async fn a_reservation_holds_until_its_end(db: &Fresh) {
    publish_numbers(db, "a", 0..1).await;
    publish_numbers(db, "b", 1..2).await;
    assert_eq!(take(db, 100, 200, 1).await, ["0"]);
    assert_eq!(take(db, 150, 250, 10).await, ["1"]);
    assert!(reserve(db, 199, 300, 10).await.is_empty());
    assert_eq!(take(db, 200, 300, 10).await, ["0"]);
    assert_eq!(take(db, 250, 350, 10).await, ["1"]);
}

async fn a_reservation_keeps_to_its_limit_when_the_statistics_say_that_the_table_is_empty(db: &Fresh) {
    publish_numbers(db, "a", 0..1).await;
    query("ANALYZE").execute(&db.write).await.expect("analyses");
    for n in 1..10 {
        publish_numbers(db, &n.to_string(), n..n + 1).await;
    }
    assert_eq!(take(db, 0, 10, 3).await, ["0", "1", "2"]);
}

async fn no_message_is_reserved_twice(db: &Fresh) {
    publish(db, "n", (0..200).map(|_| letter()).collect()).await;
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
    let mut headers = Headers::default();
    headers.push("eventType", Some(b"NotificationSent"));
    headers.push("none", None);
    let body = r#"{"amount": 99.10, "n": 1e3, "text": "\u0000 \\ \" '' 💌"}"#;
    let body = RawValue::from_string(body.to_owned()).expect("JSON");
    let letter = OutboxMessage { kind: OutboxKind::DeadLetter, key: Some((0..=255).collect()), headers, body };
    let empty = OutboxMessage { key: Some(Vec::new()), ..message("") };
    publish(db, "n", vec![letter.clone(), empty, message("no key")]).await;
    let (letters, events): (Vec<_>, Vec<_>) =
        messages(reserve(db, 0, 10, 10).await).into_iter().partition(|m| m.kind == OutboxKind::DeadLetter);
    assert_eq!((&letters[0].key, &letters[0].headers), (&letter.key, &letter.headers));
    assert_eq!(letters[0].body.get(), letter.body.get());
    assert_eq!((events[0].body.get(), events[0].key.as_deref()), (r#""""#, Some(&[][..])));
    assert_eq!((events[1].key.as_deref(), &events[1].headers), (None, &Headers::default()));
}

async fn a_row_that_cannot_be_read_comes_as_it_stands(db: &Fresh) {
    publish_numbers(db, "a", 0..1).await;
    query("UPDATE outbox SET messages = '[{]'").execute(&db.write).await.expect("spoils it");
    publish_numbers(db, "b", 1..2).await;
    let waiting = reserve(db, 0, 10, 10).await;
    let texts: Vec<_> = waiting.iter().map(|w| w.flaw.as_ref().map(|flaw| flaw.text.as_str())).collect();
    assert_eq!(texts, [Some("[{]"), None]);
    assert!(waiting[0].flaw.as_ref().is_some_and(|flaw| !flaw.reason.is_empty()), "and why");
    let all = ids(&waiting);
    assert_eq!(bodies(waiting), ["1"], "it holds up nothing");
    assert!(reserve(db, 9, 20, 10).await.is_empty(), "it is reserved like the others");
    db.remove(&all).await.expect("removes");
    assert!(reserve(db, i64::MAX, i64::MAX, 10).await.is_empty());
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
    let FreshEvents { ids: fresh, messages, reserved_until_ms } = db.fresh().expect("there are fresh ones");
    assert_eq!(messages.iter().map(|m| m.body.get()).collect::<Vec<_>>(), [r#""one""#, r#""two""#]);
    assert_eq!(reserved_until_ms, at(RESERVED_MS).as_millisecond());
    assert!(db.fresh().is_none(), "once");
    assert_eq!(take(db, -1, RESERVED_MS, 10).await, ["letter"]);
    let free = reserve(db, 0, RESERVED_MS, 10).await;
    assert_eq!(fresh, ids(&free));
    assert_eq!(bodies(free), ["one", "two"]);
    db.remove(&fresh).await.expect("removes");
    assert_eq!(take(db, i64::MAX, i64::MAX, 10).await, ["letter"]);
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
    assert_eq!(db.fresh().map(|fresh| fresh.messages.len()), Some(MOST_FRESH));
    assert!(db.fresh().is_none());
    publish_numbers(db, "has room again", 0..1).await;
    assert_eq!(db.fresh().map(|fresh| fresh.messages.len()), Some(1));
}
