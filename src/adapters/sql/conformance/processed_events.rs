//! The table of processed events, by the cases that every store is asked; and that it does not grow for ever.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;

use super::*;
use crate::adapters::processed_events_conformance as cases;
use crate::adapters::sql::SqlProcessedEvents;
use crate::ports::clock::SystemClock;
use crate::ports::processed_events::ProcessedEvents;

/// Hands a case the stores of this database.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        on_both_databases! { $($case),+, old_events_are_forgotten, instances_that_claim_the_same_events_never_block_each_other }
        $(
            async fn $case(db: &Fresh) {
                cases::$case(&|group| store(db, group, Duration::from_secs(3_600))).await;
            }
        )+
    };
}

cases! {
    a_crash_before_the_effect_does_not_lose_it,
    a_claim_in_flight_is_not_taken_for_a_duplicate,
    the_claim_of_a_record_that_never_comes_back_ends_with_its_lease,
    what_is_processed_is_so_for_every_record_claimed_or_not,
    many_answers_keep_their_places,
    groups_know_nothing_of_each_other,
    any_text_is_an_id,
}

fn store(db: &Database, group: &str, remember: Duration) -> Arc<dyn ProcessedEvents> {
    Arc::new(SqlProcessedEvents::new(db.clone(), group, remember, Arc::new(SystemClock::default())))
}

async fn rows(db: &Database) -> i64 {
    let row = sqlx::query("SELECT count(*) AS n FROM processed_events").fetch_one(&db.read).await.expect("counts");
    row.try_get("n").expect("a number")
}

async fn old_events_are_forgotten(db: &Fresh) {
    let ids: Vec<String> = (0..800).map(|n| n.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    store(db, "g", Duration::from_secs(3_600)).mark(&ids).await.expect("marks");
    assert_eq!(rows(db).await, 800);
    tokio::time::sleep(Duration::from_millis(5)).await;
    store(db, "other", Duration::from_millis(1)).mark(&[]).await.expect("marks nothing");
    assert_eq!(rows(db).await, 800, "another group's are not touched");
    store(db, "g", Duration::from_millis(1)).mark(&[]).await.expect("marks nothing");
    assert_eq!(rows(db).await, 0);
}

async fn instances_that_claim_the_same_events_never_block_each_other(db: &Fresh) {
    let other = db.again().await;
    let ids: Vec<String> = (0..400).map(|n| n.to_string()).collect();
    let forwards: Vec<&str> = ids.iter().map(String::as_str).collect();
    let backwards: Vec<&str> = forwards.iter().rev().copied().collect();
    let (mine, theirs) = (store(db, "g", Duration::from_secs(60)), store(&other, "g", Duration::from_secs(60)));
    for _ in 0..20 {
        let (one, two) = tokio::join!(mine.mark(&forwards), theirs.mark(&backwards));
        one.and(two).expect("no deadlock");
    }
    other.close().await;
}
