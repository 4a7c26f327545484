//! Settled notifications leave in small steps and are counted.

use sqlx::{Row as _, query};

use super::dead_letters::{set_state, stored};
use super::*;
use crate::domain::stored_letter::StoredLetter;
use crate::ports::dead_letters::DeadLetterTable as _;
use crate::ports::inbox::Inbox as _;

on_both_databases!(
    old_ones_leave_in_small_steps_and_their_counts_stay,
    letters_that_were_dealt_with_leave_and_open_ones_stay,
    entries_of_inboxes_leave_read_or_not,
);

async fn old_ones_leave_in_small_steps_and_their_counts_stay(database: &Fresh) {
    let all: Vec<String> = (0..5).map(|n| n.to_string()).collect();
    insert(database, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (index, claimed) in claim(database, "lane", 0, 4).await.iter().enumerate() {
        assert!(begin(database, "lane", &claimed.id, 1).await);
        let state = if index == 0 { State::Failed } else { State::Sent };
        let settled =
            Settlement { attempt: end(1, Outcome::Accepted), ..settlement(claimed, "lane", state, index as i64) };
        assert!(settle(database, settled).await);
    }
    assert_eq!(database.retire(at(3), 2).await.expect("retires"), 2);
    assert_eq!(database.retire(at(3), 2).await.expect("retires"), 1);
    assert_eq!(database.retire(at(3), 2).await.expect("retires"), 0, "one is too young, one is not settled");
    let rows =
        query("SELECT * FROM notification_totals ORDER BY state").fetch_all(&database.read).await.expect("reads");
    let total = |index: usize| -> (String, i64, i64) {
        let row = &rows[index];
        (row.get("state"), row.get("total"), row.get("day"))
    };
    let day = at(0).as_millisecond();
    assert_eq!([total(0), total(1)], [("failed".into(), 1, day), ("sent".into(), 2, day)]);
    let left = query(
        "SELECT (SELECT COUNT(*) FROM requests) AS requests, (SELECT COUNT(*) FROM notifications) AS notifications,
             (SELECT COUNT(*) FROM attempts) AS attempts",
    );
    let left = left.fetch_one(&database.read).await.expect("reads");
    let left = ["requests", "notifications", "attempts"].map(|table| left.get::<i64, _>(table));
    assert_eq!(left, [2, 2, 1]);
}

async fn letters_that_were_dealt_with_leave_and_open_ones_stay(database: &Fresh) {
    let recorded = |n: i64| StoredLetter { recorded_at: at(n), ..stored(&n.to_string()) };
    let letters: Vec<StoredLetter> = (0..6).map(recorded).collect();
    assert_eq!(database.record(&letters).await.expect("records"), 6);
    for (id, state) in [("1", "archived"), ("2", "replayed"), ("3", "archived"), ("5", "archived")] {
        set_state(database, id, state).await;
    }
    let emptied = query("UPDATE dead_letters SET letter = '{}' WHERE id = '3'").execute(&database.write).await;
    assert_eq!(emptied.expect("updates").rows_affected(), 1);
    let left = async |limit| {
        database.retire(at(5), limit).await.expect("retires");
        let rows = query("SELECT id FROM dead_letters ORDER BY id").fetch_all(&database.read).await.expect("reads");
        rows.iter().map(|row| row.get("id")).collect::<Vec<String>>()
    };
    assert_eq!(left(1).await, ["0", "2", "3", "4", "5"]);
    assert_eq!(left(1).await, ["0", "3", "4", "5"]);
    assert_eq!(left(10).await, ["0", "3", "4", "5"], "two are open, one is empty, one is too young");
}

async fn entries_of_inboxes_leave_read_or_not(database: &Fresh) {
    let entries = ["old", "older", "young"];
    super::inbox::put(database, &entries).await;
    for (id, created) in entries.iter().zip([2, 1, 3]) {
        let update = query("UPDATE inbox SET created_at = $2 WHERE id = $1")
            .bind((*id).to_owned())
            .bind(at(created).as_millisecond());
        assert_eq!(update.execute(&database.write).await.expect("updates").rows_affected(), 1);
    }
    database.mark_read("ann", Some("old")).await.expect("marks");
    database.retire(at(3), 10).await.expect("retires");
    let (left, _) = super::inbox::page(database, None, 10).await;
    assert_eq!(left, ["young"]);
}
