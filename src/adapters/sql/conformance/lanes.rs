//! Lanes whose provider is away, or was removed from the configuration.

use super::*;
use crate::ports::contacts::Contacts as _;

on_both_databases! {
    removed_lanes_are_folded_into_the_first,
    what_waited_for_a_contact_is_folded_when_it_is_due,
    what_is_not_settled_is_counted_by_channel_and_state,
    who_stands_in_takes_its_own_first_and_nothing_that_its_provider_may_have,
}

/// Leaves a notification in this state and lane; one that is being sent is held by `gone`.
async fn in_lane(db: &Fresh, id: &str, state: State, lane: u16) {
    insert(db, &[id]).await;
    let claimed = claim_one(db, "o", 0).await;
    let first = if state == State::Sending { State::Pending } else { state };
    assert!(settle(db, Settlement { lane, ..settlement(&claimed, "o", first, 0) }).await);
    if state == State::Sending {
        let held = db.claim(ClaimRequest { lane, ..asking("gone", 0, 1) }).await.expect("claims");
        assert_eq!(ids(&held), [id]);
    }
}

async fn removed_lanes_are_folded_into_the_first(db: &Fresh) {
    in_lane(db, "sent", State::Sent, 3).await;
    in_lane(db, "kept", State::Pending, 1).await;
    in_lane(db, "folded", State::Pending, 2).await;
    in_lane(db, "folded too", State::Retrying, 3).await;
    assert_eq!(db.fold_lanes(Channel::Sms, 1, 10).await.expect("folds"), 0);
    assert_eq!(db.fold_lanes(Channel::Email, 2, 1).await.expect("folds"), 1);
    assert_eq!(db.fold_lanes(Channel::Email, 2, 10).await.expect("folds"), 1);
    assert_eq!(db.fold_lanes(Channel::Email, 2, 10).await.expect("folds"), 0);
    let claimed = claim(db, "o", 0, 10).await;
    assert_eq!(set_of(&claimed), BTreeSet::from(["folded", "folded too"]));
    assert!(claimed.iter().all(|c| c.lane == 0));
    assert_eq!(ids(&db.claim(ClaimRequest { lane: 1, ..asking("o", 0, 10) }).await.expect("claims")), ["kept"]);
}

async fn what_waited_for_a_contact_is_folded_when_it_is_due(db: &Fresh) {
    in_lane(db, "n", State::AwaitingContact, 2).await;
    db.learn(vec![with_email("customer-1", "c@example.com")], at(0)).await.expect("learns");
    assert_eq!(db.fold_lanes(Channel::Email, 2, 10).await.expect("folds"), 1);
    assert_eq!(ids(&claim(db, "o", 0, 10).await), ["n"], "woken in a lane that nobody serves");
}

async fn what_is_not_settled_is_counted_by_channel_and_state(db: &Fresh) {
    in_lane(db, "sent", State::Sent, 0).await;
    in_lane(db, "waits", State::AwaitingContact, 0).await;
    in_lane(db, "sending", State::Sending, 1).await;
    in_lane(db, "again", State::Retrying, 2).await;
    insert(db, &["due"]).await;
    let mut text = new("text", 7);
    text.request.channel = Channel::Sms;
    add(db, &[new("also due", 5), text]).await.expect("inserts");
    for (channel, expected) in [(Channel::Email, [2, 1, 1, 1]), (Channel::Sms, [1, 0, 0, 0]), (Channel::Push, [0; 4])] {
        let states = [State::Pending, State::Sending, State::Retrying, State::AwaitingContact];
        let expected: Vec<(State, u64)> = states.into_iter().zip(expected).collect();
        assert_eq!(db.unsettled(channel).await.expect("counts"), expected, "{channel}");
    }
}

async fn who_stands_in_takes_its_own_first_and_nothing_that_its_provider_may_have(db: &Fresh) {
    in_lane(db, "own", State::Pending, 2).await;
    in_lane(db, "next", State::Pending, 1).await;
    in_lane(db, "another's", State::Pending, 3).await;
    insert(db, &["flew"]).await;
    let claimed = claim_one(db, "o", 0).await;
    assert!(settle(db, Settlement { unknowns: 1, ..settlement(&claimed, "o", State::Retrying, 0) }).await);
    insert(db, &["first", "second"]).await;
    let stand_in = async |limit| {
        let request = ClaimRequest { lane: 2, stands_in_for: vec![1, 0], ..asking("p", 0, limit) };
        db.claim(request).await.expect("claims")
    };
    let taken = stand_in(2).await;
    assert_eq!(set_of(&taken), BTreeSet::from(["own", "next"]));
    let taken = stand_in(10).await;
    assert_eq!(set_of(&taken), BTreeSet::from(["first", "second"]));
    assert!(taken.iter().all(|claimed| claimed.lane == 0), "they keep their lane");
    assert!(stand_in(10).await.is_empty());
    assert_eq!(ids(&claim(db, "o", 0, 10).await), ["flew"]);
}
