//! Notifications that are settled out of their turn.

use std::collections::BTreeMap;

use super::*;
use crate::ports::ledger::{Replaceable, Superseder};

on_both_databases!(
    a_newer_notification_replaces_those_that_wait_about_the_same,
    what_waits_is_found_to_be_replaced_by_what_waits_with_it,
    cancelling_reaches_what_waits_and_nothing_else,
    what_is_past_its_time_expires_and_so_does_what_waits_for_a_contact_too_long,
    a_settled_one_can_be_opened_again_unless_it_was_sent,
    one_that_is_opened_again_keeps_an_expiry_that_is_ahead,
    a_list_is_narrowed_and_goes_on_where_it_ended,
);

/// Settles what is selected, as the desk does; says how many.
async fn call_off(database: &Database, selection: &Selection, state: State, now: i64) -> usize {
    let verdict = |claimed: &Claimed| settlement(claimed, OUT_OF_TURN, state, now);
    database.call_off(selection, 100, &verdict).await.expect("settles").len()
}

async fn cancel(database: &Database, id: &str, now: i64) -> bool {
    call_off(database, &Selection::Ids(vec![id.into()]), State::Cancelled, now).await == 1
}

fn about(id: &str, template: &str, about: &str, received: i64) -> NewNotification {
    let mut new = new(id, received);
    new.request.template = template.into();
    new.handling.about = Some(about.into());
    new
}

async fn a_newer_notification_replaces_those_that_wait_about_the_same(database: &Fresh) {
    let mut other_recipient = about("3", "order_confirmation", "order:1", 0);
    other_recipient.request.recipient = Some("customer-2".into());
    let mut dated = about("5", "order_confirmation", "order:1", 0);
    dated.request.send_at = Some(at(60_000));
    let waiting = [
        about("1", "order_confirmation", "order:1", 0),
        about("2", "order_confirmation", "order:2", 0),
        other_recipient,
        about("4", "order_cancelled", "order:1", 0),
        dated,
        about("6", "order_confirmation", "order:1", 9500),
        about("7", "order_confirmation", "order:1", 9000),
    ];
    add(database, &waiting).await.expect("inserts");
    // No contact is known: it waits although it is young.
    let lacking = database.seize(&Selection::Ids(vec!["7".into()]), "lane", at(LEASE), 1).await.expect("claims");
    assert!(settle(database, settlement(&lacking[0], "lane", State::AwaitingContact, 9001)).await);
    let mut newer = about("8", "order_shipped", "order:1", 10_000);
    newer.handling.supersedes = vec!["order_confirmation".into()];
    let younger = about("9", "order_confirmation", "order:1", 10_001);
    let replaced = add(database, &[newer.clone(), younger]).await.expect("inserts").replaced;
    // The first has stood in the queue for ten seconds.
    let replaced: BTreeSet<&str> = replaced.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(replaced, BTreeSet::from(["1", "5", "7"]));
    for (id, expected) in [("1", "suppressed"), ("5", "suppressed"), ("7", "suppressed")] {
        assert_eq!(state(database, id).await, expected, "{id}");
    }
    for other in ["2", "3", "4", "6", "8", "9"] {
        assert_eq!(state(database, other).await, "pending", "{other}");
    }
    let again = add(database, &[newer]).await.expect("again");
    assert_eq!((again.new, again.duplicates, again.replaced.len()), (0, 1, 0));
}

async fn what_waits_is_found_to_be_replaced_by_what_waits_with_it(database: &Fresh) {
    let shipped = |id: &str, order: &str, caused: i64| {
        let mut new = about(id, "order_shipped", order, 0);
        new.request.caused_at = at(caused);
        new
    };
    let confirmation = |id: &str, order: &str| {
        let mut new = about(id, "order_confirmation", order, 0);
        new.request.caused_at = at(0);
        new
    };
    let mut others = shipped("another's", "order:3", 10);
    others.request.recipient = Some("customer-2".into());
    let batch = [
        shipped("came first", "order:1", 10),
        confirmation("1", "order:1"),
        confirmation("2", "order:2"),
        shipped("before", "order:2", -10),
        confirmation("3", "order:3"),
        others,
        shipped("at once", "order:4", 0),
        confirmation("4", "order:4"),
    ];
    add(database, &batch).await.expect("inserts");
    let ids = ["1", "2", "3", "4"].map(str::to_owned).to_vec();
    let old = database.seize(&Selection::Ids(ids), "lane", at(LEASE), 10).await.expect("seizes");
    let asked = async |template: &str, mutual: bool| {
        let by = [Superseder { template: template.into(), mutual }];
        let old: Vec<Replaceable<'_>> = old.iter().map(|claimed| Replaceable { claimed, by: &by }).collect();
        database.superseded(&old).await.expect("reads").into_iter().collect::<BTreeMap<String, String>>()
    };
    let found = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    assert_eq!(asked("order_shipped", false).await, found(&[("1", "came first"), ("4", "at once")]));
    assert_eq!(asked("order_shipped", true).await, found(&[("1", "came first")]), "it came before");
    assert_eq!(asked("order_cancelled", false).await, BTreeMap::new());
    assert!(cancel(database, "came first", 1).await);
    assert_eq!(asked("order_shipped", false).await, found(&[("4", "at once")]), "it waits no more");
}

async fn cancelling_reaches_what_waits_and_nothing_else(database: &Fresh) {
    insert(database, &["1", "2"]).await;
    let claimed = database.claim(asking("lane", 0, 1)).await.expect("claims");
    assert_eq!(ids(&claimed), ["1"]);
    assert!(!cancel(database, "1", 1).await, "it is being sent");
    assert!(cancel(database, "2", 1).await);
    assert!(!cancel(database, "2", 1).await, "it is cancelled already");
    assert!(!cancel(database, "3", 1).await, "nobody knows it");
    assert_eq!(state(database, "2").await, "cancelled");
    assert!(settle(database, settlement(&claimed[0], "lane", State::Sent, 2)).await, "its owner still has it");
}

async fn what_is_past_its_time_expires_and_so_does_what_waits_for_a_contact_too_long(database: &Fresh) {
    let mut dated = new("1", 0);
    dated.handling.expires_at = Some(at(100));
    add(database, &[dated, new("2", 0), new("3", 50)]).await.expect("inserts");
    for id in ["2", "3"] {
        let claimed = database.seize(&Selection::Ids(vec![id.into()]), "lane", at(LEASE), 1).await.expect("claims");
        assert!(
            settle(database, settlement(&claimed[0], "lane", State::AwaitingContact, if id == "2" { 0 } else { 50 }))
                .await
        );
    }
    let expire = async |channel, by, waiting_since| {
        let expired = Selection::Expired { channel, by: at(by) };
        let forgotten = Selection::Forgotten { channel, waiting_since: at(waiting_since) };
        call_off(database, &expired, State::Expired, by).await
            + call_off(database, &forgotten, State::Expired, by).await
    };
    assert_eq!(expire(Channel::Email, 99, -1).await, 0);
    assert_eq!(expire(Channel::Sms, 149, 49).await, 0, "another channel");
    assert_eq!(expire(Channel::Email, 149, 49).await, 2);
    assert_eq!(state(database, "1").await, "expired");
    assert_eq!(state(database, "2").await, "expired");
    assert_eq!(state(database, "3").await, "awaiting_contact");
}

async fn a_settled_one_can_be_opened_again_unless_it_was_sent(database: &Fresh) {
    insert(database, &["1", "2"]).await;
    let ends = [(State::Sent, Outcome::Accepted), (State::Failed, Outcome::Permanent)];
    for (claimed, (state, outcome)) in claim(database, "lane", 0, 2).await.iter().zip(ends) {
        assert!(begin(database, "lane", &claimed.id, 1).await);
        let reason = Some("no answer".to_owned());
        let settled = Settlement { attempt: end(1, outcome), reason, ..settlement(claimed, "lane", state, 1) };
        assert!(settle(database, settled).await);
    }
    assert!(database.reopen("1", at(2)).await.expect("asks").is_none());
    assert!(database.reopen("3", at(2)).await.expect("asks").is_none());
    let reopened = database.reopen("2", at(2)).await.expect("reopens").expect("it failed");
    assert_eq!((reopened.id.as_str(), reopened.state.as_str(), reopened.attempts.len()), ("2", "pending", 1));
    assert_eq!((&reopened.settled_at, &reopened.reason, &reopened.receipt), (&None, &None, &None));
    assert_eq!(serde_json::to_string(&reopened).expect("serialises"), shown(database, "2").await);
    assert!(database.reopen("2", at(2)).await.expect("asks").is_none(), "it waits already");
    let again = claim_one(database, "lane", 2).await;
    assert_eq!((again.id.as_str(), again.round, again.unknowns), ("2", 0, 0));
    assert_eq!(view(database, "2").await.settled_at, None);
}

async fn one_that_is_opened_again_keeps_an_expiry_that_is_ahead(database: &Fresh) {
    let expiring = |id: &str, expires: i64| {
        let mut new = new(id, 0);
        new.handling.expires_at = Some(at(expires));
        new
    };
    add(database, &[expiring("code", 100), expiring("past", 1)]).await.expect("inserts");
    for claimed in claim(database, "lane", 0, 2).await {
        assert!(settle(database, settlement(&claimed, "lane", State::Failed, 1)).await);
    }
    for id in ["code", "past"] {
        assert!(database.reopen(id, at(2)).await.expect("reopens").is_some());
    }
    let mut again = claim(database, "lane", 2, 2).await;
    again.sort_by(|a, b| a.id.cmp(&b.id));
    let expiries: Vec<_> = again.iter().map(|claimed| (claimed.id.as_str(), claimed.expires_at)).collect();
    assert_eq!(expiries, [("code", Some(at(100))), ("past", None)]);
}

async fn a_list_is_narrowed_and_goes_on_where_it_ended(database: &Fresh) {
    insert(database, &["1", "2", "3"]).await;
    assert!(cancel(database, "2", 1).await);
    let found = async |search: Search| {
        let found = database.search(&search).await.expect("searches");
        found.into_iter().map(|(seq, view)| (seq, view.id)).collect::<Vec<_>>()
    };
    let all = found(Search { limit: 2, ..Search::default() }).await;
    assert_eq!([&all[0].1, &all[1].1], ["3", "2"]);
    let rest = found(Search { limit: 2, before: Some(all[1].0), ..Search::default() }).await;
    assert_eq!(rest.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["1"]);
    let narrow = Search {
        state: Some(State::Pending),
        channel: Some(Channel::Email),
        recipient: Some("customer-1".into()),
        template: Some("order_confirmation".into()),
        causation_id: Some("cause of 3".into()),
        from: Some(at(0)),
        to: Some(at(1)),
        before: None,
        limit: 10,
    };
    assert_eq!(found(narrow.clone()).await.len(), 1);
    assert!(found(Search { to: Some(at(0)), ..narrow }).await.is_empty());
    assert_eq!(database.request_of("1").await.expect("reads").as_deref(), Some(r#"{"eventId":"1"}"#));
    assert_eq!(database.request_of("9").await.expect("reads"), None);
}
