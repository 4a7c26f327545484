//! Text that a database might change, refuse or misunderstand.

use std::collections::HashMap;

use super::*;
use crate::adapters::sql::dialect::Dialect;
use crate::ports::contacts::Contacts as _;
use crate::ports::ledger::LedgerError;

on_both_databases! {
    a_category_is_the_request_s_or_else_the_template_s,
    a_claim_carries_what_the_request_came_with,
    text_survives_to_the_last_character,
    what_a_request_lacks_stays_absent,
    nul_characters_are_refused_for_ever_or_stored,
    a_refused_settlement_leaves_no_part_behind,
}

/// Quotes of every kind, escapes, format and bind markers, white space, and characters of every length.
const ODD: &str =
    "a'b\"c`d\\e\\u0000 \\n %s $1 ?1 :x {} -- ; /* é ß 漢 💌 \u{202e}\u{feff}\u{2028}\r\n\t\u{1}\u{7f}\u{ffff}";

async fn a_claim_carries_what_the_request_came_with(db: &Fresh) {
    let mut new = new("n", 10);
    new.origin.offset = Some(i64::MAX);
    new.origin.partition = Some(i32::MAX);
    new.origin.key = Some((0..=255).collect());
    new.origin.headers.push("eventType", Some(b"NotificationRequested"));
    new.origin.headers.push("none", None);
    new.origin.headers.push("bytes", Some(&[0, 255]));
    let (origin, request) = (new.origin.clone(), new.request.clone());
    add(db, &[new]).await.expect("inserted");
    let claimed = claim_one(db, "o", 10).await;
    assert_eq!((claimed.aggregate_id, claimed.channel), (request.aggregate_id, Channel::Email));
    assert_eq!((claimed.template, claimed.recipient), (request.template, request.recipient));
    assert_eq!((claimed.correlation_id, claimed.caused_at), (request.correlation_id, at(5)));
    assert_eq!(claimed.request_json, r#"{"eventId":"n"}"#);
    assert_eq!((claimed.origin.topic, claimed.origin.partition), (origin.topic, origin.partition));
    assert_eq!((claimed.origin.offset, claimed.origin.key), (origin.offset, origin.key));
    let headers: Headers = serde_json::from_str(&claimed.origin.headers_json).expect("reads back");
    assert_eq!(headers, origin.headers);
}

async fn text_survives_to_the_last_character(db: &Fresh) {
    let json = r#" {"eventId" : "x", "data": {"amount": 99.10, "n": 1e3, "N": -0.0E+00, "big": 12345678901234567890.000,
        "nul": "\u0000", "pair": "\ud83d\udc8c", "half": "\ud800", "escaped": "\\u0000 \\\" \/ \b", "e": "é'💌", "e": 2}} "#;
    let number = "1e3".to_owned();
    let id = format!("id {ODD}");
    let mut new = new(&id, 0);
    new.origin.value = Some(json.as_bytes().to_vec());
    new.origin.topic = ODD.to_owned();
    new.request.template = ODD.to_owned();
    new.request.recipient = Some(ODD.to_owned());
    new.request.category = Some(number.clone());
    new.request.aggregate_id = "99.10".to_owned();
    new.request.correlation_id = "null".to_owned();
    new.request.causation_id = Some(ODD.to_owned());
    add(db, std::slice::from_ref(&new)).await.expect("inserted");
    assert_eq!(add(db, &[new]).await.expect("inserted").duplicates, 1);
    let contact = Recipient { locale: Some(number.clone()), ..with_email(ODD, ODD) };
    db.learn(vec![contact.clone()], at(0)).await.expect("learns");
    assert_eq!(db.recipient(ODD).await.expect("reads"), Some(contact.clone()));

    let claimed = claim_one(db, ODD, 0).await;
    assert_eq!(claimed.request_json, json);
    assert_eq!((claimed.id.as_str(), claimed.template.as_str()), (id.as_str(), ODD));
    assert_eq!((claimed.recipient.as_deref(), claimed.contact.as_ref()), (Some(ODD), Some(&contact)));
    assert_eq!((claimed.aggregate_id.as_str(), claimed.correlation_id.as_str()), ("99.10", "null"));
    assert_eq!(claimed.origin.topic, ODD);
    assert_eq!(db.caused_by(&[ODD.to_owned()]).await.expect("reads").len(), 1);

    assert!(begin(db, ODD, &id, 1).await);
    let attempt = AttemptEnd {
        receipt: Some(number.clone()),
        error: Some(ODD.to_owned()),
        ..end(1, Outcome::Permanent).expect("an end")
    };
    let mut headers = Headers::default();
    headers.push(ODD, Some(ODD.as_bytes()));
    let message = OutboxMessage {
        kind: OutboxKind::Lifecycle,
        key: Some(ODD.as_bytes().to_vec()),
        headers: headers.clone(),
        body: raw_json(&format!("{ODD}{json}")),
    };
    let (attempt, reason, outbox) = (Some(attempt), Some(ODD.to_owned()), vec![message]);
    assert!(settle(db, Settlement { attempt, reason, outbox, ..settlement(&claimed, ODD, State::Failed, 0) }).await);
    let shown = view(db, &id).await;
    assert_eq!((shown.template.as_str(), shown.category, shown.reason.as_deref()), (ODD, number.clone(), Some(ODD)));
    assert_eq!((shown.attempts[0].receipt.as_ref(), shown.attempts[0].error.as_deref()), (Some(&number), Some(ODD)));
    let [told] = messages(reserve(db, 0, 1, 1).await).try_into().expect("one message");
    assert_eq!((told.body.get(), &told.headers), (raw_json(&format!("{ODD}{json}")).get(), &headers));
    assert_eq!(told.key.as_deref(), Some(ODD.as_bytes()));
}

async fn what_a_request_lacks_stays_absent(db: &Fresh) {
    let mut new = new("n", 0);
    new.request.recipient = None;
    new.request.causation_id = None;
    (new.origin.partition, new.origin.offset, new.origin.key) = (None, None, None);
    add(db, &[new]).await.expect("inserted");
    let claimed = claim_one(db, "o", 0).await;
    assert_eq!((claimed.recipient, claimed.contact), (None, None));
    assert_eq!((claimed.origin.partition, claimed.origin.offset, claimed.origin.key), (None, None, None));
    assert_eq!(view(db, "n").await.recipient, None);
}

/// PostgreSQL has no NUL in its texts, SQLite has: neither may look like an outage, which would be waited for.
fn refused<T>(db: &Fresh, what: &str, result: Result<T, LedgerError>) -> Option<T> {
    match (db.dialect, result) {
        (Dialect::Sqlite, Ok(value)) => Some(value),
        (Dialect::Postgres, Err(LedgerError::Rejected(_))) => None,
        (_, Ok(_)) => panic!("{what}: stored without its NUL?"),
        (_, Err(error)) => panic!("{what}: {error}"),
    }
}

async fn nul_characters_are_refused_for_ever_or_stored(db: &Fresh) {
    type Edit = fn(&mut NewNotification);
    let edits: [(&str, Edit); 6] = [
        ("id", |n| n.request.id = "a\0b".into()),
        ("template", |n| n.request.template = "a\0b".into()),
        ("recipient", |n| n.request.recipient = Some("a\0b".into())),
        ("causation", |n| n.request.causation_id = Some("a\0b".into())),
        ("topic", |n| n.origin.topic = "a\0b".into()),
        ("request", |n| n.origin.value = Some(b"\"a\0b\"".to_vec())),
    ];
    for (what, edit) in edits {
        let mut odd = new(what, 0);
        edit(&mut odd);
        let id = odd.request.id.clone();
        if let Some(inserted) = refused(db, what, add(db, &[odd, new(&format!("beside {what}"), 0)]).await) {
            assert_eq!(inserted.new, 2, "{what}");
            let claimed = claim(db, "o", 0, 10).await;
            let odd = claimed.iter().find(|c| c.id == id).expect("stored under its own id");
            let whole = format!("{odd:?} {:?}", view(db, &id).await);
            let cause = db.caused_by(&["a\0b".to_owned()]).await.expect("reads");
            assert!(whole.contains(r"a\0b") || cause.len() == 1, "{what}: {whole}");
        } else {
            assert!(claim(db, "o", 0, 10).await.is_empty(), "{what}: all or nothing");
        }
    }
    let learnt = refused(db, "learn", db.learn(vec![with_email("r", "a\0b")], at(0)).await);
    assert_eq!(db.recipient("r").await.expect("reads"), learnt.map(|()| with_email("r", "a\0b")));
    // Whether a look-up is refused depends on the plan.
    let looked_up = [
        db.notification("\0").await.map(drop),
        db.recipient("\0").await.map(drop),
        db.caused_by(&["\0".to_owned()]).await.map(drop),
    ];
    assert!(looked_up.iter().all(|r| !matches!(r, Err(LedgerError::Unavailable(_)))), "{looked_up:?}");
}

async fn a_refused_settlement_leaves_no_part_behind(db: &Fresh) {
    insert(db, &["n"]).await;
    let claimed = claim_one(db, "o", 0).await;
    assert!(begin(db, "o", "n", 1).await);
    let before = shown(db, "n").await;
    let attempt = Some(AttemptEnd { error: Some("a\0b".to_owned()), ..end(1, Outcome::Transient).expect("an end") });
    let outbox = vec![message("told")];
    let failed = Settlement { attempt, outbox, ..settlement(&claimed, "o", State::Failed, 0) };
    let settled = refused(db, "settle", db.settle(&[failed]).await);
    let waiting = reserve(db, 0, 1, 10).await;
    if settled.is_some() {
        assert_eq!(bodies(waiting), ["told"]);
    } else {
        assert!(waiting.is_empty());
        assert_eq!(shown(db, "n").await, before);
        assert!(settle(db, settlement(&claimed, "o", State::Retrying, 0)).await, "its owner still holds it");
    }
}

async fn a_category_is_the_request_s_or_else_the_template_s(db: &Fresh) {
    let of = |id: &str, request: Option<&str>, template: Option<&str>| {
        let mut new = new(id, 0);
        new.request.category = request.map(str::to_owned);
        new.handling.category = template.map(str::to_owned);
        new
    };
    let batch =
        [of("both", Some("alerts"), Some("news")), of("template", None, Some("news")), of("neither", None, None)];
    add(db, &batch).await.expect("inserts");
    let claimed = claim(db, "o", 0, 10).await;
    let categories: HashMap<&str, &str> = claimed.iter().map(|c| (c.id.as_str(), c.category.as_str())).collect();
    let expected = [("both", "alerts"), ("template", "news"), ("neither", "transactional")];
    assert_eq!(categories, HashMap::from(expected));
}
