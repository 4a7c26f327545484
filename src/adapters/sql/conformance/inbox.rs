//! Inboxes.

use super::*;
use crate::ports::inbox::{Inbox as _, NewEntry};
use crate::ports::ledger::LedgerError;

on_both_databases! {
    an_entry_that_is_there_already_changes_nothing,
    entries_come_newest_first_and_page_by_page,
    an_inbox_belongs_to_one_recipient,
    reading_counts_once,
    changes_are_announced_in_this_process,
    an_entry_comes_back_as_it_went_in,
}

fn entry(id: &str, recipient: &str) -> NewEntry {
    NewEntry {
        id: id.to_owned(),
        recipient: recipient.to_owned(),
        subject: None,
        body: format!("body of {id}"),
        template: "welcome".to_owned(),
        category: "transactional".to_owned(),
        data_json: "{}".to_owned(),
    }
}

pub(super) async fn put(db: &Database, ids: &[&str]) {
    for id in ids {
        db.put(entry(id, "ann")).await.expect("puts");
    }
}

/// Ids of a page and the cursor to the next.
pub(super) async fn page(db: &Database, before: Option<i64>, limit: usize) -> (Vec<String>, Option<i64>) {
    let entries = db.entries("ann", before, limit).await.expect("reads");
    let next = entries.last().map(|e| e.seq);
    (entries.into_iter().map(|e| e.id).collect(), next)
}

async fn an_entry_that_is_there_already_changes_nothing(db: &Fresh) {
    put(db, &["a", "b"]).await;
    db.mark_read("ann", Some("a")).await.expect("marks");
    db.put(NewEntry { body: "another".to_owned(), ..entry("a", "bob") }).await.expect("puts");
    let entries = db.entries("ann", None, 10).await.expect("reads");
    let shown: Vec<_> = entries.iter().map(|e| (e.id.as_str(), e.body.as_str(), e.read_at.is_some())).collect();
    assert_eq!(shown, [("b", "body of b", false), ("a", "body of a", true)]);
    assert!(db.entries("bob", None, 10).await.expect("reads").is_empty());
}

async fn entries_come_newest_first_and_page_by_page(db: &Fresh) {
    put(db, &["a", "b", "c", "d", "e"]).await;
    let (first, cursor) = page(db, None, 2).await;
    assert_eq!(first, ["e", "d"]);
    put(db, &["f"]).await;
    let (second, cursor) = page(db, cursor, 2).await;
    assert_eq!(second, ["c", "b"], "what came meanwhile moves nothing");
    let (third, cursor) = page(db, cursor, 2).await;
    assert_eq!(third, ["a"]);
    assert_eq!(page(db, cursor, 2).await, (Vec::new(), None));
    assert_eq!(page(db, None, 0).await, (Vec::new(), None));
}

async fn an_inbox_belongs_to_one_recipient(db: &Fresh) {
    put(db, &["a"]).await;
    assert_eq!(db.unread("bob").await.expect("counts"), 0);
    assert!(db.entries("bob", None, 10).await.expect("reads").is_empty());
    assert_eq!(db.mark_read("bob", Some("a")).await.expect("marks"), 0);
    assert_eq!(db.mark_read("bob", None).await.expect("marks"), 0);
    assert_eq!(db.unread("ann").await.expect("counts"), 1);
}

async fn reading_counts_once(db: &Fresh) {
    put(db, &["a", "b", "c"]).await;
    assert_eq!(db.unread("ann").await.expect("counts"), 3);
    assert_eq!(db.mark_read("ann", Some("b")).await.expect("marks"), 1);
    let read_at = db.entries("ann", None, 10).await.expect("reads")[1].read_at.clone();
    assert!(read_at.is_some());
    assert_eq!(db.mark_read("ann", Some("b")).await.expect("marks"), 0);
    assert_eq!(db.mark_read("ann", Some("no such")).await.expect("marks"), 0);
    assert_eq!(db.unread("ann").await.expect("counts"), 2);
    assert_eq!(db.mark_read("ann", None).await.expect("marks"), 2);
    assert_eq!(db.unread("ann").await.expect("counts"), 0);
    assert_eq!(db.entries("ann", None, 10).await.expect("reads")[1].read_at, read_at, "the first reading stays");
}

async fn changes_are_announced_in_this_process(db: &Fresh) {
    let mut changes = db.changes();
    put(db, &["a"]).await;
    assert_eq!(changes.try_recv().ok().as_deref(), Some("ann"));
    put(db, &["a"]).await;
    db.mark_read("bob", None).await.expect("marks");
    assert!(changes.try_recv().is_err(), "nothing changed");
    db.mark_read("ann", Some("a")).await.expect("marks");
    assert_eq!(changes.try_recv().ok().as_deref(), Some("ann"));
    db.mark_read("ann", None).await.expect("marks");
    assert!(changes.try_recv().is_err(), "nothing changed");
}

async fn an_entry_comes_back_as_it_went_in(db: &Fresh) {
    let data = r#"{"amount": 99.10, "n": 1e3, "text": "\u202eabc \\ \" ' 💌"}"#;
    let hostile = "'; DROP TABLE inbox; --\r\n<script>\u{202e}שלום 💌";
    let new = NewEntry {
        subject: Some(hostile.to_owned()),
        body: hostile.repeat(1000),
        data_json: data.to_owned(),
        ..entry(hostile, hostile)
    };
    db.put(new.clone()).await.expect("puts");
    let entry = db.entries(hostile, None, 10).await.expect("reads").remove(0);
    assert_eq!((entry.id, entry.subject, entry.body), (new.id, new.subject, new.body));
    assert_eq!((entry.template, entry.category, entry.data.get()), (new.template, new.category, data));
    assert!(entry.created_at.ends_with('Z') && entry.read_at.is_none());

    // PostgreSQL has no NUL in texts, and says so for ever.
    let nul = db.put(NewEntry { body: "a\0b".to_owned(), ..self::entry("nul", "ann") }).await;
    assert!(matches!(nul, Ok(()) | Err(LedgerError::Rejected(_))), "{nul:?}");
}
