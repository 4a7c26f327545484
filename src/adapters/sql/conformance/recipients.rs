//! What the directory knows beside addresses: devices, preferences, suppressed addresses; and how it forgets.

use super::*;
use crate::domain::preferences::{OptOut, Preferences};
use crate::domain::recipient::{Device, Platform};
use crate::ports::contacts::Contacts as _;

on_both_databases!(
    a_put_replaces_and_events_only_add,
    claims_carry_preferences_of_known_and_unknown_recipients,
    suppressed_addresses_are_found_in_any_spelling,
    dead_devices_are_forgotten,
    sent_notifications_are_counted_for_the_throttle,
    nothing_personal_remains_of_an_erased_recipient,
);

fn device(token: &str) -> Device {
    Device { token: token.into(), platform: Platform::Android }
}

async fn a_put_replaces_and_events_only_add(database: &Fresh) {
    let whole = Recipient {
        phone: Some("+15550100101".into()),
        devices: vec![device("t-1")],
        ..with_email("r", "a@example.com")
    };
    database.put(whole.clone(), at(0)).await.expect("puts");
    assert_eq!(database.recipient("r").await.expect("reads"), Some(whole.clone()));
    database.learn(vec![with_email("r", "b@example.com")], at(0)).await.expect("learns");
    let learnt = database.recipient("r").await.expect("reads").expect("is there");
    assert_eq!(learnt, Recipient { email: Some("b@example.com".into()), ..whole });
    database.put(with_email("r", "c@example.com"), at(0)).await.expect("puts");
    assert_eq!(database.recipient("r").await.expect("reads"), Some(with_email("r", "c@example.com")));
}

async fn claims_carry_preferences_of_known_and_unknown_recipients(database: &Fresh) {
    let refusal = OptOut { channel: "email".into(), category: "marketing".into() };
    let preferences = Preferences { opt_out: vec![refusal], quiet_hours: None };
    database.set_preferences("customer-1", &Preferences::default()).await.expect("sets");
    database.set_preferences("customer-1", &preferences).await.expect("sets again");
    assert_eq!(database.preferences("customer-1").await.expect("reads"), Some(preferences.clone()));
    assert_eq!(database.preferences("customer-2").await.expect("reads"), None);
    let sms = OptOut { channel: "sms".into(), category: "*".into() };
    let (a, b) = tokio::join!(database.refuse("customer-2", sms.clone()), database.refuse("customer-2", sms.clone()));
    assert!(a.is_ok() && b.is_ok());
    let refused = database.preferences("customer-2").await.expect("reads");
    assert_eq!(refused, Some(Preferences { opt_out: vec![sms], quiet_hours: None }));
    insert(database, &["1"]).await;
    let claimed = claim_one(database, "lane", 0).await;
    assert_eq!((claimed.preferences.as_ref(), claimed.contact.as_ref()), (Some(&preferences), None));
    database.learn(vec![with_email("customer-1", "a@example.com")], at(0)).await.expect("learns");
    assert!(settle(database, settlement(&claimed, "lane", State::Pending, 1)).await);
    let claimed = claim_one(database, "lane", 1).await;
    assert!(claimed.preferences.is_some() && claimed.contact.is_some() && claimed.contact_version == 1);
}

async fn suppressed_addresses_are_found_in_any_spelling(database: &Fresh) {
    let addresses = ["A@Example.com".to_owned(), "a@example.COM".to_owned(), "b@example.com".to_owned()];
    let stored = database.suppress(Channel::Email, &addresses, "bounce").await.expect("suppresses");
    let of_ada = stored.iter().find(|entry| entry.address == "a@example.com").expect("in one spelling");
    assert_eq!((stored.len(), of_ada.reason.as_str(), of_ada.channel), (2, "bounce", Channel::Email));
    let again = database.suppress(Channel::Email, &addresses[..1], "complaint").await.expect("keeps the reason");
    assert_eq!(again, std::slice::from_ref(of_ada));
    assert!(database.suppress(Channel::Email, &[], "bounce").await.expect("nothing to add").is_empty());
    let found = database.suppressed(Channel::Email, &["a@EXAMPLE.com", "c@example.com"]).await.expect("finds");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a@EXAMPLE.com".to_owned(), "bounce".to_owned())]);
    assert!(database.suppressed(Channel::Sms, &["a@example.com"]).await.expect("finds").is_empty());
    assert!(database.suppressed(Channel::Email, &[]).await.expect("finds").is_empty());
    let page = database.suppressions(None, 0, 1).await.expect("lists");
    assert_eq!((page.len(), page[0].address.as_str()), (1, "a@example.com"));
    assert_eq!(database.suppressions(None, 1, 9).await.expect("lists")[0].address, "b@example.com");
    let after = Some(("email".to_owned(), page[0].address.clone()));
    assert_eq!(database.suppressions(after, 0, 9).await.expect("lists")[0].address, "b@example.com");
    assert!(database.unsuppress(Channel::Email, "A@EXAMPLE.COM").await.expect("removes"));
    assert!(!database.unsuppress(Channel::Email, "A@EXAMPLE.COM").await.expect("asks"));
    // As a mail server is told it, as the directory has it, and as an operator types it.
    database.suppress(Channel::Email, &["c@xn--bcher-kva.example".to_owned()], "bounce").await.expect("suppresses");
    let found = database.suppressed(Channel::Email, &["C@bücher.example"]).await.expect("finds");
    assert_eq!(found.keys().collect::<Vec<_>>(), ["C@bücher.example"]);
    assert!(database.unsuppress(Channel::Email, "c@Bücher.example").await.expect("removes"));
}

async fn dead_devices_are_forgotten(database: &Fresh) {
    let devices = ["t-1", "t-2", "t-3"].map(device).to_vec();
    database.put(Recipient { devices, ..with_email("r", "a@example.com") }, at(0)).await.expect("puts");
    database.forget_devices("r", &["t-1".into(), "t-3".into(), "t-9".into()]).await.expect("forgets");
    database.forget_devices("nobody", &["t-2".into()]).await.expect("nothing to forget");
    let left = database.recipient("r").await.expect("reads").expect("is there").devices;
    assert_eq!(left, [device("t-2")]);
}

async fn sent_notifications_are_counted_for_the_throttle(database: &Fresh) {
    insert(database, &["1", "2", "3"]).await;
    let mut critical = new("4", 0);
    critical.handling.critical = true;
    add(database, &[critical]).await.expect("inserts");
    for (index, claimed) in claim(database, "lane", 0, 4).await.iter().enumerate() {
        let state = if claimed.id == "3" { State::Failed } else { State::Sent };
        assert!(settle(database, settlement(claimed, "lane", state, 10 + index as i64)).await);
    }
    let sent = database.sent_since(Channel::Email, &["customer-1", "customer-2"], at(5)).await.expect("counts");
    assert_eq!(sent.into_iter().collect::<Vec<_>>(), [("customer-1".to_owned(), (2, at(10)))]);
    let later = database.sent_since(Channel::Email, &["customer-1"], at(10)).await.expect("counts");
    assert_eq!(later["customer-1"], (1, at(11)));
}

async fn nothing_personal_remains_of_an_erased_recipient(database: &Fresh) {
    database.put(with_email("customer-1", "secret@example.com"), at(0)).await.expect("puts");
    database.set_preferences("customer-1", &Preferences::default()).await.expect("sets");
    insert(database, &["1", "2"]).await;
    let claimed = claim_one_of(database, 2).await;
    assert!(begin(database, "lane", "1", 1).await);
    let attempt =
        end(1, Outcome::Permanent).map(|end| AttemptEnd { error: Some("no secret@example.com".into()), ..end });
    let reason = Some("no secret@example.com".to_owned());
    let failed = Settlement { attempt, reason, ..settlement(&claimed[0], "lane", State::Failed, 1) };
    assert!(settle(database, failed).await);
    assert!(settle(database, settlement(&claimed[1], "lane", State::Cancelled, 1)).await);
    let erased = database.erase("customer-1", at(9)).await.expect("erases");
    assert_eq!((erased.recipients, erased.preferences, erased.notifications), (1, 1, 2));
    assert_eq!(database.recipient("customer-1").await.expect("reads"), None);
    let view = view(database, "1").await;
    assert_eq!((view.state.as_str(), view.recipient.as_ref(), view.attempts.len()), ("failed", None, 1));
    let text = format!("{}{:?}", shown(database, "1").await, database.request_of("1").await.expect("reads"));
    for personal in ["customer-1", "secret", "cause of"] {
        assert!(!text.contains(personal), "{text}");
    }
    assert_eq!(database.erase("customer-1", at(9)).await.expect("again").recipients, 0);
}

async fn claim_one_of(database: &Database, count: usize) -> Vec<Claimed> {
    let claimed = claim(database, "lane", 0, count).await;
    assert_eq!(claimed.len(), count);
    claimed
}
