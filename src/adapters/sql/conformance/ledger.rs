//! Inserting, claiming and settling.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::query;
use tokio::sync::Barrier;

use super::*;
use crate::ports::contacts::Contacts as _;

on_both_databases! {
    what_is_known_already_changes_nothing_and_is_counted,
    a_claim_takes_what_is_due_of_its_channel_and_lane_in_due_order_up_to_its_limit,
    a_claim_keeps_to_its_limit_when_the_statistics_say_that_the_table_is_empty,
    no_notification_is_claimed_twice,
    an_attempt_begins_only_for_who_holds_the_notification,
    what_is_sent_is_stored_with_its_attempt_and_its_messages,
    of_what_is_settled_at_once_only_what_was_lost_is_left_out,
    a_stranger_settles_nothing_and_publishes_nothing,
    a_late_answer_of_a_former_owner_changes_nothing,
    what_is_retried_comes_due_at_its_time_only,
    round_lane_unknowns_and_first_failure_survive,
    the_notifications_of_an_event_are_found,
    a_report_is_noted_at_the_last_attempt_that_it_can_be_about,
    new_work_is_announced,
}

fn counts(inserted: &Inserted) -> (u64, u64) {
    (inserted.new, inserted.duplicates)
}

async fn what_is_known_already_changes_nothing_and_is_counted(db: &Fresh) {
    let batch = [new("a", 0), new("b", 0), new("a", 5)];
    assert_eq!(counts(&add(db, &batch).await.expect("inserted")), (2, 1));
    let before = shown(db, "a").await;
    let mut other = new("a", 9);
    other.request.template = "another".to_owned();
    assert_eq!(counts(&add(db, &[other, new("c", 0)]).await.expect("inserted")), (1, 1));
    assert_eq!(shown(db, "a").await, before);
    assert_eq!(counts(&add(db, &batch).await.expect("inserted")), (0, 3));
    assert_eq!(counts(&add(db, &[]).await.expect("inserted")), (0, 0));
    // Neither does it return what is settled already.
    let claimed = claim(db, "o", 0, 10).await;
    for claimed in &claimed {
        assert!(settle(db, settlement(claimed, "o", State::Sent, 1)).await);
    }
    assert_eq!(add(db, &batch).await.expect("inserted").new, 0);
    assert!(claim(db, "o", 100, 10).await.is_empty());
    assert!(db.notification("nobody").await.expect("reads").is_none());
}

async fn a_claim_takes_what_is_due_of_its_channel_and_lane_in_due_order_up_to_its_limit(db: &Fresh) {
    let mut sms = new("sms", 0);
    sms.request.channel = Channel::Sms;
    let lane_1 = new("lane 1", -10);
    add(db, &[lane_1, sms]).await.expect("inserted");
    let claimed = claim_one(db, "o", 0).await;
    assert!(settle(db, Settlement { lane: 1, ..settlement(&claimed, "o", State::Retrying, 0) }).await);
    let batch = [new("late", 101), new("third", 100), new("first", 3), new("second", 20), new("fourth", 100)];
    add(db, &batch).await.expect("inserted");
    assert_eq!(ids(&claim(db, "o", 100, 3).await), ["first", "second", "third"]);
    assert_eq!(ids(&claim(db, "o", 100, 3).await), ["fourth"]);
    assert!(claim(db, "o", 100, 3).await.is_empty());
    assert_eq!(ids(&claim(db, "o", 101, 3).await), ["late"]);
    assert_eq!(ids(&db.claim(ClaimRequest { lane: 1, ..asking("o", 100, 3) }).await.expect("claims")), ["lane 1"]);
    let sms = ClaimRequest { channel: Channel::Sms, ..asking("o", 100, 3) };
    assert_eq!(ids(&db.claim(sms).await.expect("claims")), ["sms"]);
}

async fn a_claim_keeps_to_its_limit_when_the_statistics_say_that_the_table_is_empty(db: &Fresh) {
    insert(db, &["0"]).await;
    query("ANALYZE").execute(&db.write).await.expect("analyses");
    let batch: Vec<NewNotification> = (1..15).map(|n| new(&n.to_string(), n)).collect();
    add(db, &batch).await.expect("inserted");
    assert_eq!(ids(&claim(db, "a", 100, 3).await), ["0", "1", "2"]);
    assert_eq!(take_over_of(db, Channel::Email, "b", 100 + LEASE + 1, 2).await.len(), 2);
}

async fn no_notification_is_claimed_twice(db: &Fresh) {
    let batch: Vec<NewNotification> = (0..400).map(|n| new(&n.to_string(), n / 40)).collect();
    add(db, &batch).await.expect("inserted");
    let (other, barrier) = (db.again().await, Arc::new(Barrier::new(8)));
    let claimers = (0..8).map(|n| {
        let (database, barrier) = (if n % 2 == 0 { db.database.clone() } else { other.clone() }, Arc::clone(&barrier));
        tokio::spawn(async move {
            barrier.wait().await;
            let mut mine = BTreeSet::new();
            loop {
                let claimed = claim(&database, &n.to_string(), 100, 10).await;
                if claimed.is_empty() {
                    return mine;
                }
                for claimed in claimed {
                    assert!(mine.insert(claimed.id), "claimed twice");
                }
            }
        })
    });
    let mut owner_of = HashMap::new();
    let mut takers = 0;
    for (n, mine) in futures::future::join_all(claimers).await.into_iter().enumerate() {
        let mine = mine.expect("ends");
        takers += usize::from(!mine.is_empty());
        for id in mine {
            assert_eq!(owner_of.insert(id, n), None, "claimed twice");
        }
    }
    assert_eq!(owner_of.len(), 400);
    assert!(takers > 1, "there was no contest");
    for (id, owner) in owner_of.iter().take(20) {
        assert!(!begin(db, &((owner + 1) % 8).to_string(), id, 1).await);
        assert!(begin(db, &owner.to_string(), id, 1).await);
    }
    other.close().await;
}

async fn an_attempt_begins_only_for_who_holds_the_notification(db: &Fresh) {
    insert(db, &["held", "settled"]).await;
    assert!(!begin(db, "a", "held", 1).await, "nobody holds it yet");
    let claimed = claim(db, "a", 0, 10).await;
    insert(db, &["free"]).await;
    assert!(settle(db, settlement(&claimed[1], "a", State::Retrying, 0)).await);
    let mut starts = Vec::new();
    for id in ["settled", "held", "free", "unknown"] {
        starts.push(start(db, id, 1).await);
    }
    assert!(db.begin_attempts("b", &starts).await.expect("begins").is_empty());
    assert_eq!(db.begin_attempts("a", &starts).await.expect("begins"), ["held"]);
    assert!(db.begin_attempts("a", &[]).await.expect("begins").is_empty());
    let shown = view(db, "held").await;
    assert_eq!(shown.attempts.len(), 1);
    assert_eq!((shown.attempts[0].number, shown.attempts[0].provider.as_str()), (1, "mail"));
    assert_eq!(
        (&shown.attempts[0].outcome, shown.attempts[0].started_at.as_str()),
        (&None, "2100-01-01T00:00:00.007Z")
    );
    assert!(view(db, "settled").await.attempts.is_empty());
    take_over(db, "b", LEASE + 1).await;
    assert!(!begin(db, "a", "held", 2).await);
    assert!(begin(db, "b", "held", 2).await);
}

fn as_sent(claimed: &Claimed, owner: &str) -> Settlement {
    let end = AttemptEnd { receipt: Some("receipt-1".to_owned()), ..end(1, Outcome::Accepted).expect("an end") };
    let outbox = vec![message("one"), message("two")];
    Settlement { attempt: Some(end), outbox, ..settlement(claimed, owner, State::Sent, 90) }
}

async fn what_is_sent_is_stored_with_its_attempt_and_its_messages(db: &Fresh) {
    insert(db, &["n", "m"]).await;
    let claimed = claim(db, "o", 0, 10).await;
    assert!(begin(db, "o", "n", 1).await);
    assert!(settle(db, as_sent(&claimed[0], "o")).await);
    let n = view(db, "n").await;
    assert_eq!((n.state.as_str(), n.channel.as_str(), n.recipient.as_deref()), ("sent", "email", Some("customer-1")));
    assert_eq!((n.template.as_str(), n.category.as_str()), ("order_confirmation", "transactional"));
    assert_eq!(n.created_at, "2100-01-01T00:00:00.000Z");
    assert_eq!(n.settled_at.as_deref(), Some("2100-01-01T00:00:00.090Z"));
    assert_eq!((n.receipt.as_deref(), n.reason), (Some("receipt-1"), None));
    assert_eq!(n.attempts.len(), 1);
    assert_eq!(n.attempts[0].outcome.as_deref(), Some("accepted"));
    assert_eq!((n.attempts[0].duration_ms, n.attempts[0].receipt.as_deref()), (Some(40), Some("receipt-1")));
    assert_eq!(bodies(reserve(db, 100, 200, 10).await), ["one", "two"]);
    assert_eq!(state(db, "m").await, "sending");
    assert!(!settle(db, as_sent(&claimed[0], "o")).await, "settled once only");
    assert!(take_over(db, "p", 10 * LEASE).await.iter().all(|(c, _)| c.id == "m"));
    assert!(claim(db, "p", 10 * LEASE, 10).await.is_empty());
    assert!(reserve(db, 100, 200, 10).await.is_empty());
    assert!(db.settle(&[]).await.expect("settles").is_empty());
}

async fn of_what_is_settled_at_once_only_what_was_lost_is_left_out(db: &Fresh) {
    insert(db, &["a", "lost", "b"]).await;
    let claimed = claim(db, "o", 0, 10).await;
    for claimed in &claimed {
        assert!(begin(db, "o", &claimed.id, 1).await);
    }
    query("UPDATE notifications SET lease_owner = 'heir' WHERE seq = $1")
        .bind(claimed[1].seq)
        .execute(&db.write)
        .await
        .expect("another one takes it");
    let lost = shown(db, "lost").await;
    let all: Vec<Settlement> = claimed.iter().map(|claimed| as_sent(claimed, "o")).collect();
    assert_eq!(db.settle(&all).await.expect("settles"), ["a", "b"]);
    assert_eq!(bodies(reserve(db, 100, 200, 10).await), ["one", "two", "one", "two"]);
    for id in ["a", "b"] {
        let settled = view(db, id).await;
        assert_eq!((settled.state.as_str(), settled.attempts[0].outcome.as_deref()), ("sent", Some("accepted")));
    }
    assert_eq!(shown(db, "lost").await, lost);
}

async fn a_stranger_settles_nothing_and_publishes_nothing(db: &Fresh) {
    insert(db, &["n"]).await;
    let claimed = claim_one(db, "o", 0).await;
    assert!(begin(db, "o", "n", 1).await);
    let before = shown(db, "n").await;
    assert!(!settle(db, as_sent(&claimed, "stranger")).await);
    assert!(reserve(db, 100, 200, 10).await.is_empty());
    assert_eq!(shown(db, "n").await, before);
    assert!(settle(db, as_sent(&claimed, "o")).await);
}

async fn a_late_answer_of_a_former_owner_changes_nothing(db: &Fresh) {
    insert(db, &["n"]).await;
    let claimed = claim_one(db, "o", 0).await;
    assert!(begin(db, "o", "n", 1).await);
    take_over(db, "p", LEASE + 1).await;
    let before = shown(db, "n").await;
    assert!(!settle(db, as_sent(&claimed, "o")).await);
    assert!(reserve(db, 100, 200, 10).await.is_empty());
    assert_eq!(shown(db, "n").await, before);
}

async fn what_is_retried_comes_due_at_its_time_only(db: &Fresh) {
    assert_eq!(db.next_due(Channel::Email, 0).await.expect("reads"), None);
    add(db, &[new("n", 5)]).await.expect("inserted");
    assert_eq!(db.next_due(Channel::Email, 0).await.expect("reads"), Some(at(5)));
    let claimed = claim_one(db, "o", 5).await;
    assert_eq!(db.next_due(Channel::Email, 0).await.expect("reads"), None);
    let later = Settlement {
        next_attempt_at: Some(at(5000)),
        attempt: end(1, Outcome::Transient),
        reason: Some("busy".to_owned()),
        ..settlement(&claimed, "o", State::Retrying, 50)
    };
    assert!(settle(db, later).await);
    assert_eq!(db.next_due(Channel::Email, 0).await.expect("reads"), Some(at(5000)));
    assert_eq!(db.next_due(Channel::Email, 1).await.expect("reads"), None);
    assert_eq!(db.next_due(Channel::Sms, 0).await.expect("reads"), None);
    let shown = view(db, "n").await;
    assert_eq!((shown.state.as_str(), shown.reason.as_deref(), shown.settled_at), ("retrying", Some("busy"), None));
    assert!(claim(db, "o", 4999, 10).await.is_empty());
    claim_one(db, "o", 5000).await;
}

async fn round_lane_unknowns_and_first_failure_survive(db: &Fresh) {
    insert(db, &["n"]).await;
    let first = claim_one(db, "o", 0).await;
    assert_eq!((first.round, first.lane, first.attempts, first.unknowns), (0, 0, 0, 0));
    assert_eq!(first.first_failure_at, None);
    assert!(begin(db, "o", "n", 1).await);
    let (attempt, again) = (end(1, Outcome::Unknown), settlement(&first, "o", State::Retrying, 70));
    assert!(settle(db, Settlement { round: 3, lane: 2, unknowns: 1, attempt, ..again }).await);
    let lane_2 = || ClaimRequest { lane: 2, ..asking("p", 100, 10) };
    let second = db.claim(lane_2()).await.expect("claims").remove(0);
    assert_eq!((second.round, second.lane, second.attempts, second.unknowns), (3, 2, 1, 1));
    assert_eq!(second.first_failure_at, Some(at(70)));
    assert!(begin(db, "p", "n", 2).await);
    let (attempt, again) = (end(2, Outcome::Transient), settlement(&second, "p", State::Retrying, 100));
    assert!(settle(db, Settlement { attempt, ..again }).await);
    // Put back without an attempt: nothing is forgotten.
    let third = db.claim(lane_2()).await.expect("claims").remove(0);
    assert!(settle(db, settlement(&third, "p", State::Retrying, 100)).await);
    let fourth = db.claim(lane_2()).await.expect("claims").remove(0);
    assert_eq!((fourth.round, fourth.lane, fourth.attempts, fourth.unknowns), (3, 2, 2, 1));
    assert_eq!(fourth.first_failure_at, Some(at(70)));
    let outcomes: Vec<_> = view(db, "n").await.attempts.into_iter().filter_map(|a| a.outcome).collect();
    assert_eq!(outcomes, ["unknown", "transient"]);
}

async fn the_notifications_of_an_event_are_found(db: &Fresh) {
    let (mut a, mut b, mut c) = (new("a", 0), new("b", 0), new("c", 0));
    a.request.causation_id = Some("event".to_owned());
    b.request.causation_id = Some("event".to_owned());
    c.request.causation_id = None;
    add(db, &[a, b, c, new("d", 0)]).await.expect("inserted");
    let claimed = claim(db, "o", 0, 1).await;
    assert!(settle(db, settlement(&claimed[0], "o", State::Failed, 0)).await);
    let events = ["event".to_owned(), "cause of d".to_owned(), "cause of nothing".to_owned()];
    let mut found = db.caused_by(&events).await.expect("reads");
    found.sort_by(|a, b| a.id.cmp(&b.id));
    let found: Vec<_> = found.iter().map(|b| (b.id.as_str(), b.causation_id.as_deref(), b.state)).collect();
    let event = Some("event");
    let pending = State::Pending;
    assert_eq!(found, [("a", event, State::Failed), ("b", event, pending), ("d", Some("cause of d"), pending)]);
    assert!(db.caused_by(&[]).await.expect("reads").is_empty());
}

async fn new_work_is_announced(db: &Fresh) {
    let mut work = db.work();
    let mut announced = || {
        let changed = work.has_changed().expect("the sender lives");
        work.mark_unchanged();
        changed
    };
    assert!(!announced());
    insert(db, &["n"]).await;
    assert!(announced());
    add(db, &[new("n", 0)]).await.expect("inserted");
    assert!(!announced(), "a duplicate is no work");
    let claimed = claim_one(db, "o", 0).await;
    assert!(settle(db, settlement(&claimed, "o", State::Retrying, 0)).await);
    assert!(announced(), "another lane may have to go on");
    let claimed = claim_one(db, "o", 0).await;
    assert!(settle(db, settlement(&claimed, "o", State::AwaitingContact, 0)).await);
    announced();
    db.learn(vec![with_email("somebody else", "s@example.com")], at(0)).await.expect("learns");
    assert!(!announced(), "nobody waited for it");
    db.learn(vec![with_email("customer-1", "c@example.com")], at(0)).await.expect("learns");
    assert!(announced());
}

async fn a_report_is_noted_at_the_last_attempt_that_it_can_be_about(db: &Fresh) {
    insert(db, &["n", "other"]).await;
    let ends = [(1, Outcome::Unknown), (2, Outcome::Accepted), (3, Outcome::Transient)];
    for (number, outcome) in ends {
        let claimed = claim(db, "o", 100, 1).await.remove(0);
        assert_eq!((claimed.id.as_str(), begin(db, "o", "n", number).await), ("n", true));
        let again = Settlement { attempt: end(number, outcome), ..settlement(&claimed, "o", State::Retrying, -1) };
        assert!(settle(db, again).await);
    }
    let note =
        async |provider: &str, reports: &[(&str, &str)]| db.note_reports(provider, reports).await.expect("notes");
    assert_eq!(note("mail", &[("n", "bounced for now")]).await, 1);
    let others = [("n", "delivered"), ("nobody", "bounced"), ("other", "bounced")];
    assert_eq!(note("mail", &others).await, 1, "the others it never had");
    assert_eq!((note("another", &others).await, note("mail", &[]).await), (0, 0));
    let reports: Vec<Option<String>> = view(db, "n").await.attempts.into_iter().map(|a| a.report).collect();
    assert_eq!(reports, [None, Some("delivered".to_owned()), None]);
}
