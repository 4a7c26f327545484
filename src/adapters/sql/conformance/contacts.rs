//! The recipients directory, and what waits for it.

use super::*;
use crate::ports::contacts::Contacts as _;

on_both_databases! {
    an_entry_wakes_what_waits_for_it_and_nothing_else,
    an_entry_learnt_between_claim_and_settlement_ends_the_wait_at_once,
    an_entry_without_the_address_that_nobody_changed_keeps_it_waiting,
    a_former_owner_that_saw_an_older_entry_does_not_end_the_wait,
    what_is_learnt_adds_up,
    entries_for_the_same_recipient_in_one_call_add_up_in_order,
    learning_and_waiting_at_once_never_misses_each_other,
}

async fn waiting(db: &Database, id: &str) -> Claimed {
    insert(db, &[id]).await;
    let claimed = claim_one(db, "o", 0).await;
    assert!(settle(db, settlement(&claimed, "o", State::AwaitingContact, 0)).await);
    claimed
}

async fn an_entry_wakes_what_waits_for_it_and_nothing_else(db: &Fresh) {
    let claimed = waiting(db, "n").await;
    assert_eq!((claimed.contact, claimed.contact_version), (None, 0));
    assert_eq!(state(db, "n").await, "awaiting_contact");
    assert_eq!(db.next_due(Channel::Email, 0).await.expect("reads"), None);
    assert!(claim(db, "o", 100 * LEASE, 10).await.is_empty());
    assert!(take_over(db, "o", 100 * LEASE).await.is_empty());
    db.learn(vec![with_email("customer-2", "two@example.com")], at(0)).await.expect("learns");
    assert_eq!(state(db, "n").await, "awaiting_contact");
    db.learn(vec![with_email("customer-1", "one@example.com")], at(50)).await.expect("learns");
    assert_eq!(state(db, "n").await, "pending");
    assert_eq!(db.next_due(Channel::Email, 0).await.expect("reads"), Some(at(50)), "by the clock of whoever learnt it");
    assert!(claim(db, "o", 49, 10).await.is_empty());
    let woken = claim_one(db, "o", 50).await;
    assert_eq!(woken.contact, Some(with_email("customer-1", "one@example.com")));
    assert!(woken.contact_version > 0);
    assert!(settle(db, settlement(&woken, "o", State::Sent, 0)).await);
    db.learn(vec![with_email("customer-1", "other@example.com")], at(0)).await.expect("learns");
    assert_eq!(state(db, "n").await, "sent");
}

async fn an_entry_learnt_between_claim_and_settlement_ends_the_wait_at_once(db: &Fresh) {
    insert(db, &["n"]).await;
    for phone in ["+15550100101", "+15550100102"] {
        // The first time there is no entry at the claim, the second time an older one.
        let claimed = claim_one(db, "o", 0).await;
        let entry = Recipient { id: "customer-1".into(), phone: Some(phone.into()), ..Recipient::default() };
        db.learn(vec![entry], at(0)).await.expect("learns");
        let mut work = db.work();
        work.mark_unchanged();
        assert!(settle(db, settlement(&claimed, "o", State::AwaitingContact, 0)).await);
        assert_eq!(state(db, "n").await, "pending");
        assert!(work.has_changed().expect("the sender lives"), "the lane has to be told");
    }
    assert_eq!(claim_one(db, "o", 0).await.contact.and_then(|c| c.phone).as_deref(), Some("+15550100102"));
}

async fn an_entry_without_the_address_that_nobody_changed_keeps_it_waiting(db: &Fresh) {
    let entry = Recipient { id: "customer-1".into(), locale: Some("de".into()), ..Recipient::default() };
    db.learn(vec![entry.clone()], at(0)).await.expect("learns");
    let claimed = waiting(db, "n").await;
    assert_eq!(claimed.contact, Some(entry));
    assert_eq!(state(db, "n").await, "awaiting_contact");
    assert!(claim(db, "o", 100 * LEASE, 10).await.is_empty());
    db.learn(vec![with_email("customer-1", "one@example.com")], at(0)).await.expect("learns");
    let contact = claim_one(db, "o", 0).await.contact.expect("a contact");
    assert_eq!((contact.email.as_deref(), contact.locale.as_deref()), (Some("one@example.com"), Some("de")));
}

async fn a_former_owner_that_saw_an_older_entry_does_not_end_the_wait(db: &Fresh) {
    insert(db, &["n"]).await;
    let seen_before = claim_one(db, "former", 0).await;
    let entry = Recipient { id: "customer-1".into(), locale: Some("de".into()), ..Recipient::default() };
    db.learn(vec![entry], at(0)).await.expect("learns");
    let taken = take_over(db, "o", LEASE + 1).await;
    assert!(settle(db, settlement(&taken[0].0, "o", State::Pending, 0)).await);
    let claimed = claim_one(db, "o", 0).await;
    assert!(settle(db, settlement(&claimed, "o", State::AwaitingContact, 0)).await);
    assert!(!settle(db, settlement(&seen_before, "former", State::AwaitingContact, 0)).await);
    assert_eq!(state(db, "n").await, "awaiting_contact");
}

async fn what_is_learnt_adds_up(db: &Fresh) {
    assert_eq!(db.recipient("r").await.expect("reads"), None);
    let mut known = Recipient { id: "r".into(), phone: Some("+15550100101".into()), ..Recipient::default() };
    known.time_zone = Some("Europe/Berlin".into());
    db.learn(vec![known.clone()], at(0)).await.expect("learns");
    assert_eq!(db.recipient("r").await.expect("reads"), Some(known.clone()));
    let french = Recipient { locale: Some("fr".into()), ..with_email("r", "r@example.com") };
    db.learn(vec![french], at(0)).await.expect("learns");
    known.email = Some("r@example.com".into());
    known.locale = Some("fr".into());
    assert_eq!(db.recipient("r").await.expect("reads"), Some(known.clone()));
    let both = vec![with_email("r", "new@example.com"), with_email("s", "s@example.com")];
    db.learn(both, at(0)).await.expect("learns");
    known.email = Some("new@example.com".into());
    assert_eq!(db.recipient("r").await.expect("reads"), Some(known.clone()));
    db.learn(vec![Recipient { id: "r".into(), ..Recipient::default() }], at(0)).await.expect("learns");
    assert_eq!(db.recipient("r").await.expect("reads"), Some(known));
    assert_eq!(db.recipient("s").await.expect("reads"), Some(with_email("s", "s@example.com")));
    db.learn(Vec::new(), at(0)).await.expect("learns");
}

async fn entries_for_the_same_recipient_in_one_call_add_up_in_order(db: &Fresh) {
    let phone = Recipient { phone: Some("+15550100101".into()), ..with_email("r", "old@example.com") };
    let locale = Recipient { id: "r".into(), locale: Some("fr".into()), ..Recipient::default() };
    let entries = vec![phone, with_email("s", "s@example.com"), with_email("r", "new@example.com"), locale];
    db.learn(entries, at(0)).await.expect("learns");
    let known = db.recipient("r").await.expect("reads").expect("is known");
    assert_eq!(known.email.as_deref(), Some("new@example.com"));
    assert_eq!((known.phone.as_deref(), known.locale.as_deref()), (Some("+15550100101"), Some("fr")));
    assert!(db.recipient("s").await.expect("reads").is_some());
}

async fn learning_and_waiting_at_once_never_misses_each_other(db: &Fresh) {
    let other = db.again().await;
    for round in 0..40 {
        let (id, recipient) = (format!("n{round}"), format!("r{round}"));
        let mut new = new(&id, 0);
        new.request.recipient = Some(recipient.clone());
        add(db, &[new]).await.expect("inserted");
        let claimed = claim_one(db, "o", 0).await;
        let wait = settlement(&claimed, "o", State::AwaitingContact, 0);
        let (settled, learnt) =
            tokio::join!(settle(db, wait), other.learn(vec![with_email(&recipient, "r@example.com")], at(0)));
        assert!(settled);
        learnt.expect("learns");
        assert_eq!(state(db, &id).await, "pending", "round {round}: it would wait for ever");
        let woken = claim_one(db, "o", 0).await;
        assert!(settle(db, settlement(&woken, "o", State::Sent, 0)).await);
    }
    other.close().await;
}
