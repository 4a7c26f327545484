//! Leases: what becomes of notifications whose owner is gone.

use super::*;

on_both_databases! {
    what_an_owner_left_is_taken_over_with_the_interrupted_provider,
    what_is_still_leased_is_not_taken_over,
    a_take_over_keeps_to_its_channel_and_its_limit,
    a_take_over_that_is_interrupted_itself_forgets_nothing,
    what_was_seized_and_left_still_knows_its_time,
    a_lease_that_changed_meanwhile_is_not_taken_over,
    a_clock_that_goes_backwards_frees_nothing_early,
    a_renewed_lease_holds,
    two_instances_never_take_over_the_same_notification,
}

async fn what_an_owner_left_is_taken_over_with_the_interrupted_provider(db: &Fresh) {
    insert(db, &["begun", "idle"]).await;
    let claimed = claim(db, "gone", 0, 10).await;
    assert_eq!(claimed.len(), 2);
    assert!(begin(db, "gone", "begun", 1).await);
    let mut taken = take_over(db, "heir", LEASE + 1).await;
    taken.sort_by(|a, b| a.0.id.cmp(&b.0.id));
    let (begun, idle) = (&taken[0], &taken[1]);
    assert_eq!((begun.0.id.as_str(), begun.1.as_deref()), ("begun", Some("mail")));
    assert_eq!((begun.0.attempts, begun.0.unknowns), (1, 1));
    assert_eq!((idle.0.id.as_str(), idle.1.as_deref()), ("idle", None));
    assert_eq!((idle.0.attempts, idle.0.unknowns), (0, 0));
    assert_eq!(begun.0.request_json, r#"{"eventId":"begun"}"#);
    let shown = view(db, "begun").await;
    assert_eq!((shown.state.as_str(), shown.attempts.len()), ("sending", 1));
    assert_eq!(shown.attempts[0].outcome.as_deref(), Some("unknown"));
    assert!(shown.attempts[0].error.is_some());
    // The heir holds them now, and nobody else does.
    assert!(take_over(db, "late", LEASE + 1).await.is_empty());
    assert!(!settle(db, settlement(&begun.0, "gone", State::Retrying, LEASE)).await);
    assert!(settle(db, settlement(&begun.0, "heir", State::Retrying, LEASE)).await);
    let again = claim_one(db, "heir", LEASE).await;
    assert_eq!((again.attempts, again.unknowns), (1, 1));
    assert!(begin(db, "heir", "begun", 2).await);
    assert!(begin(db, "heir", "idle", 1).await);
}

async fn what_is_still_leased_is_not_taken_over(db: &Fresh) {
    insert(db, &["n", "free"]).await;
    assert_eq!(claim(db, "o", 0, 1).await.len(), 1);
    assert!(begin(db, "o", "n", 1).await);
    assert!(take_over(db, "p", 0).await.is_empty());
    assert!(take_over(db, "p", LEASE).await.is_empty(), "a lease holds to its last millisecond");
    assert_eq!(view(db, "n").await.attempts[0].outcome, None);
    // An expired lease is still its owner's until somebody takes it.
    assert_eq!(take_over(db, "o", LEASE + 1).await.len(), 1);
    assert_eq!(state(db, "free").await, "pending");
}

async fn a_take_over_keeps_to_its_channel_and_its_limit(db: &Fresh) {
    let mut sms = new("sms", 0);
    sms.request.channel = Channel::Sms;
    add(db, &[new("late", 50), new("a", 0), new("b", 0), sms]).await.expect("inserted");
    assert_eq!(claim(db, "gone", 0, 10).await.len(), 2);
    assert_eq!(claim(db, "gone", 50, 10).await.len(), 1);
    let of_sms = ClaimRequest { channel: Channel::Sms, ..asking("gone", 0, 10) };
    assert_eq!(db.claim(of_sms).await.expect("claims").len(), 1);
    let taken = take_over_of(db, Channel::Email, "heir", LEASE + 51, 2).await;
    assert_eq!(set_of(taken.iter().map(|(c, _)| c)), BTreeSet::from(["a", "b"]), "the longest expired first");
    let taken = take_over_of(db, Channel::Email, "heir", LEASE + 51, 2).await;
    assert_eq!(set_of(taken.iter().map(|(c, _)| c)), BTreeSet::from(["late"]));
    let taken = take_over_of(db, Channel::Sms, "heir", LEASE + 51, 2).await;
    assert_eq!(set_of(taken.iter().map(|(c, _)| c)), BTreeSet::from(["sms"]));
}

async fn a_take_over_that_is_interrupted_itself_forgets_nothing(db: &Fresh) {
    insert(db, &["n"]).await;
    claim_one(db, "first", 0).await;
    assert!(begin(db, "first", "n", 1).await);
    assert_eq!(take_over(db, "second", LEASE + 1).await.len(), 1);
    // The second owner ends before it settles: whether `mail` took the notification is as unknown as before.
    let taken = take_over(db, "third", 3 * LEASE).await;
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].1.as_deref(), Some("mail"), "it would be sent again, whatever `on_unknown` says");
    assert_eq!((taken[0].0.attempts, taken[0].0.unknowns), (1, 1));
}

async fn what_was_seized_and_left_still_knows_its_time(db: &Fresh) {
    let mut dated = new("dated", 0);
    dated.request.send_at = Some(at(10 * LEASE));
    add(db, &[dated]).await.expect("inserts");
    let selection = Selection::Ids(vec!["dated".into()]);
    assert_eq!(db.seize(&selection, "gone", at(LEASE), 10).await.expect("seizes").len(), 1);
    let taken = take_over(db, "heir", LEASE + 1).await;
    assert_eq!(taken[0].0.due, Some(at(10 * LEASE)));
}

async fn a_lease_that_changed_meanwhile_is_not_taken_over(db: &Fresh) {
    insert(db, &["renewed", "settled", "other", "gone"]).await;
    let claimed = claim(db, "o", 0, 10).await;
    let leases = db.leases(Channel::Email, 10).await.expect("reads");
    assert_eq!((leases.len(), leases[0].owner.as_str(), leases[0].until), (4, "o", at(LEASE)));
    assert_eq!(db.renew("o", &["renewed".into()], at(LEASE + 1)).await.expect("renews"), 1);
    let find = |id: &str| claimed.iter().find(|claimed| claimed.id == id).expect("is claimed");
    assert!(settle(db, settlement(find("settled"), "o", State::Sent, 1)).await);
    let of = |id: &str| leases.iter().find(|lease| lease.seq == find(id).seq).expect("is leased").clone();
    assert_eq!(db.take_over("first", &[of("other")], &[], at(LEASE)).await.expect("takes over").len(), 1);
    let taken = db.take_over("heir", &leases, &[], at(2 * LEASE)).await.expect("takes over");
    assert_eq!(set_of(taken.iter().map(|(c, _)| c)), BTreeSet::from(["gone"]));
}

async fn a_clock_that_goes_backwards_frees_nothing_early(db: &Fresh) {
    insert(db, &["leased"]).await;
    add(db, &[new("due", 5 * LEASE)]).await.expect("inserts");
    assert_eq!(ids(&claim(db, "o", 2 * LEASE, 10).await), ["leased"]);
    for earlier in [2 * LEASE - 1, LEASE, 0, -100 * LEASE] {
        assert!(take_over(db, "heir", earlier).await.is_empty(), "its lease is in the future");
        assert!(claim(db, "heir", earlier, 10).await.is_empty(), "its time is in the future");
    }
    // What was over once is over again when the clock comes back, and has not been given to anybody meanwhile.
    assert_eq!(set_of(take_over(db, "heir", 3 * LEASE + 1).await.iter().map(|(c, _)| c)), BTreeSet::from(["leased"]));
    assert_eq!(ids(&claim(db, "heir", 5 * LEASE, 10).await), ["due"]);
}

async fn a_renewed_lease_holds(db: &Fresh) {
    insert(db, &["a", "b", "c"]).await;
    assert_eq!(claim(db, "o", 0, 2).await.len(), 2);
    assert_eq!(claim(db, "p", 0, 1).await.len(), 1);
    let all = ["a", "b", "c"].map(str::to_owned);
    assert_eq!(db.renew("o", &all[..1], at(10 * LEASE)).await.expect("renews"), 1, "only what is named");
    assert_eq!(db.renew("o", &all, at(10 * LEASE)).await.expect("renews"), 2, "only what it holds");
    assert_eq!(db.renew("nobody", &all, at(10 * LEASE)).await.expect("renews"), 0);
    let taken = take_over(db, "heir", 5 * LEASE).await;
    assert_eq!(set_of(taken.iter().map(|(c, _)| c)), BTreeSet::from(["c"]));
    assert_eq!(db.renew("p", &all, at(20 * LEASE)).await.expect("renews"), 0, "it holds nothing any more");
    assert_eq!(take_over(db, "heir", 10 * LEASE + 1).await.len(), 3);
}

async fn two_instances_never_take_over_the_same_notification(db: &Fresh) {
    let names: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    insert(db, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(claim(db, "gone", 0, 100).await.len(), 60);
    for name in &names[..30] {
        assert!(begin(db, "gone", name, 1).await);
    }
    let other = db.again().await;
    let (left, right) = tokio::join!(take_over(db, "left", LEASE + 1), take_over(&other, "right", LEASE + 1));
    let (left_ids, right_ids) = (set_of(left.iter().map(|(c, _)| c)), set_of(right.iter().map(|(c, _)| c)));
    assert!(left_ids.is_disjoint(&right_ids));
    // Whoever looks while the other one writes may leave rows to the next look.
    let rest = take_over(db, "left", LEASE + 1).await;
    assert_eq!(left.len() + right.len() + rest.len(), 60);
    let interrupted = left.iter().chain(&right).chain(&rest).filter(|(_, provider)| provider.is_some()).count();
    assert_eq!(interrupted, 30);
    other.close().await;
}
