//! Notifications that are collected and travel as one.

use std::time::Duration;

use super::*;

on_both_databases!(
    later_ones_join_the_one_that_collects_and_wait_for_it,
    nobody_joins_one_that_is_under_way,
    followers_go_on_by_themselves_when_their_leader_is_settled_without_them,
    two_instances_begin_one_digest,
    batches_that_come_in_the_wrong_order_are_one_digest,
    a_digest_is_taken_over_whole,
    of_a_digest_only_what_lingers_is_taken_over,
    what_has_a_time_within_the_window_travels_with_nobody,
);

fn collected(id: &str, received: i64) -> NewNotification {
    let mut new = new(id, received);
    new.handling.digest_window = Some(Duration::from_millis(100));
    new
}

async fn leader_of(database: &Database, id: &str) -> Option<String> {
    view(database, id).await.digest_id
}

async fn followers(database: &Database, leader: &str) -> Vec<String> {
    let selection = Selection::DigestOf(vec![leader.into()]);
    let seized = database.seize(&selection, "lane", at(LEASE), 100).await.expect("seizes");
    seized.into_iter().map(|claimed| claimed.id).collect()
}

async fn later_ones_join_the_one_that_collects_and_wait_for_it(database: &Fresh) {
    let mut other = collected("other", 1);
    other.request.recipient = Some("customer-2".into());
    add(database, &[collected("1", 0), collected("2", 1), other]).await.expect("inserts");
    add(database, &[collected("3", 50)]).await.expect("inserts");
    assert_eq!(add(database, &[collected("3", 60)]).await.expect("again").duplicates, 1);
    assert_eq!(leader_of(database, "1").await, None);
    assert_eq!(leader_of(database, "2").await.as_deref(), Some("1"));
    assert_eq!(leader_of(database, "3").await.as_deref(), Some("1"));
    assert_eq!(leader_of(database, "other").await, None, "another recipient's");
    assert!(claim(database, "lane", 99, 10).await.is_empty(), "the window is open");
    let leaders = claim(database, "lane", 101, 10).await;
    assert_eq!(ids(&leaders), ["1", "other"]);
    assert_eq!(followers(database, "1").await, ["2", "3"]);
    assert!(followers(database, "1").await.is_empty(), "they are in hand");
}

async fn nobody_joins_one_that_is_under_way(database: &Fresh) {
    add(database, &[collected("1", 0)]).await.expect("inserts");
    let leader = claim_one(database, "lane", 100).await;
    add(database, &[collected("2", 101)]).await.expect("inserts");
    assert_eq!(leader_of(database, "2").await, None);
    // An attempt was made: its content stands, whatever comes later.
    assert!(begin(database, "lane", "1", 1).await);
    let again = Settlement { attempt: end(1, Outcome::Transient), ..settlement(&leader, "lane", State::Retrying, 110) };
    assert!(settle(database, again).await);
    add(database, &[collected("3", 111)]).await.expect("inserts");
    assert_eq!(leader_of(database, "3").await.as_deref(), Some("2"));
}

async fn followers_go_on_by_themselves_when_their_leader_is_settled_without_them(database: &Fresh) {
    let all = ["1", "2", "3", "4"].map(|id| collected(id, 0));
    add(database, &all).await.expect("inserts");
    assert_eq!(database.release_followers(Channel::Email, at(2)).await.expect("looks"), 0);
    let leader = claim_one(database, "lane", 100).await;
    assert!(settle(database, settlement(&leader, "lane", State::Failed, 101)).await);
    assert!(claim(database, "lane", 200, 10).await.is_empty());
    assert_eq!(database.release_followers(Channel::Email, at(200)).await.expect("releases"), 3);
    assert_eq!(claim_one(database, "lane", 200).await.id, "2");
    assert_eq!(followers(database, "2").await, ["3", "4"], "they stay together");
}

async fn two_instances_begin_one_digest(database: &Fresh) {
    let other = database.again().await;
    let batch = |from: usize| (from..from + 20).map(|n| collected(&n.to_string(), 0)).collect::<Vec<_>>();
    let (here, there) = (batch(0), batch(20));
    let (a, b) = tokio::join!(add(database, &here), add(&other, &there));
    assert_eq!(a.expect("inserts").new + b.expect("inserts").new, 40);
    let leader = claim_one(database, "lane", 100).await;
    assert_eq!(followers(database, &leader.id).await.len(), 39);
    other.close().await;
}

async fn what_has_a_time_within_the_window_travels_with_nobody(database: &Fresh) {
    let mut timed = collected("timed", 0);
    timed.request.send_at = Some(at(10));
    let mut brief = collected("brief", 0);
    brief.request.expires_at = Some(at(100));
    add(database, &[collected("1", 0), timed, brief, collected("2", 0)]).await.expect("inserts");
    assert_eq!(ids(&claim(database, "lane", 9, 10).await), ["brief"], "it would be over when the digest is sent");
    assert_eq!(ids(&claim(database, "lane", 10, 10).await), ["timed"]);
    assert_eq!(ids(&claim(database, "lane", 100, 10).await), ["1"]);
    assert_eq!(followers(database, "1").await, ["2"]);
}

async fn a_digest_is_taken_over_whole(database: &Fresh) {
    add(database, &[collected("1", 0), collected("2", 1), collected("3", 2)]).await.expect("inserts");
    let follower_first = async |led: &str, kept: &str| {
        let mut held = claim(database, led, 200, 10).await;
        assert_eq!(ids(&held), ["1"]);
        let selection = Selection::DigestOf(vec!["1".into()]);
        held.extend(database.seize(&selection, led, at(3 * LEASE), 100).await.expect("seizes"));
        // Their leases need not have been seen at the same look.
        let leases = database.leases(Channel::Email, 10).await.expect("reads");
        let seq = held.iter().find(|claimed| claimed.id == kept).expect("is held").seq;
        let one: Vec<Lease> = leases.iter().filter(|lease| lease.seq == seq).cloned().collect();
        let taken = database.take_over("heir", &one, &leases, at(4 * LEASE)).await.expect("takes over");
        assert_eq!(set_of(taken.iter().map(|(claimed, _)| claimed)), BTreeSet::from(["1", "2", "3"]));
        taken
    };
    let taken = follower_first("first", "2").await;
    for (claimed, _) in &taken {
        let back = settlement(claimed, "heir", State::Pending, 100);
        let at = back.next_attempt_at.filter(|_| claimed.digest_id.is_none());
        assert!(settle(database, Settlement { next_attempt_at: at, ..back }).await);
    }
    follower_first("second", "1").await;
}

async fn of_a_digest_only_what_lingers_is_taken_over(database: &Fresh) {
    add(database, &[collected("1", 0), collected("2", 1)]).await.expect("inserts");
    assert_eq!(ids(&claim(database, "owner", 200, 10).await), ["1"]);
    let selection = Selection::DigestOf(vec!["1".into()]);
    assert_eq!(database.seize(&selection, "owner", at(LEASE), 10).await.expect("seizes").len(), 1);
    let leases = database.leases(Channel::Email, 10).await.expect("reads");
    let [leader, follower] = [at(200 + LEASE), at(LEASE)]
        .map(|until| leases.iter().find(|lease| lease.until == until).expect("is leased").clone());
    // The owner lives: it has renewed what it still knows of.
    let taken = database.take_over("heir", std::slice::from_ref(&follower), &[], at(4 * LEASE)).await;
    assert_eq!(set_of(taken.expect("takes over").iter().map(|(claimed, _)| claimed)), BTreeSet::from(["2"]));
    let other = Lease { owner: "another".into(), ..leader };
    let taken = database.take_over("third", &[follower], &[other], at(4 * LEASE)).await;
    assert!(taken.expect("takes over").is_empty());
}

async fn batches_that_come_in_the_wrong_order_are_one_digest(database: &Fresh) {
    add(database, &[collected("later", 50)]).await.expect("inserts");
    add(database, &[collected("earlier", 10), collected("last", 60)]).await.expect("inserts");
    for id in ["earlier", "last"] {
        assert_eq!(leader_of(database, id).await.as_deref(), Some("later"));
    }
    assert!(claim(database, "lane", 109, 10).await.is_empty());
    assert_eq!(ids(&claim(database, "lane", 110, 10).await), ["later"], "when the first of them would have left");
    // One that has a time of its own is nobody's leader.
    let mut timed = collected("timed", 200);
    timed.request.send_at = Some(at(5000));
    add(database, &[timed]).await.expect("inserts");
    add(database, &[collected("alone", 210)]).await.expect("inserts");
    assert_eq!(leader_of(database, "alone").await, None);
}
