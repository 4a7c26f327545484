//! E-mails over SMTP, as a mail server gets them and a mail program reads them. Needs no server.

use mail_parser::MimeHeaders as _;
use serde_json::{Value, json};

use crate::support::alone::Alone;
use crate::support::mail_server::{Asked, MailServer, Step};
use crate::support::service::{attempts, outcomes};
use crate::support::wait::{self, secs};

const ADA: &str = "ada@example.com";
/// As the service is reached from outside.
const OUTSIDE: &str = "https://notify.example";

#[test]
fn an_e_mail_is_read_as_it_was_meant() {
    let server = MailServer::accepting();
    let alone = start(&server);
    let service = &alone.service;
    service.put("/api/v1/recipients/ada", &json!({"email": ADA}));
    let id = service.submit(&confirmation("ada"));
    let sent = service.wait_for_state(&id, "sent", secs(20));
    assert_eq!((outcomes(&sent), attempts(&sent, "provider")), (vec!["accepted"], vec!["mail"]));
    assert_eq!(sent["receipt"], "2.0.0 queued as 1", "{sent}");

    let [mail] = &server.mails()[..] else { panic!("one mail") };
    assert_eq!((mail.from.as_str(), mail.to.as_str()), ("no-reply@example.com", ADA));
    let parsed = mail.parsed();
    assert_eq!(parsed.message_id().map(str::to_owned), Some(format!("{id}@example.com")));
    let from = parsed.from().and_then(|from| from.first()).expect("a sender");
    assert_eq!((from.name(), from.address()), (Some("Müllers Läden"), Some("no-reply@example.com")));
    assert_eq!(parsed.to().and_then(|to| to.first()).and_then(|to| to.address()), Some(ADA));
    assert_eq!(parsed.subject(), Some("Your order Ä-4711 & Co is confirmed"));
    assert_eq!(parsed.content_type().and_then(|kind| kind.subtype()), Some("alternative"));
    let (text, html) = (parsed.body_text(0).expect("a text"), parsed.body_html(0).expect("HTML"));
    assert!(text.contains("Order number: Ä-4711 & Co") && !text.contains('<'), "{text}");
    assert!(html.contains("<html") && html.contains("Ä-4711 &amp; Co"), "{html}");
    assert!(parsed.header("List-Unsubscribe").is_none() && !html.contains("nsubscribe"), "receipts are sent anyway");
    assert_eq!(parsed.attachment_count(), 0);
}

#[test]
fn news_are_refused_with_one_click() {
    let server = MailServer::accepting();
    let alone = start(&server);
    let service = &alone.service;
    let mut news = confirmation(ADA);
    news["category"] = json!("news");
    service.wait_for_state(&service.submit(&news), "sent", secs(20));
    let [mail] = &server.mails()[..] else { panic!("one mail") };
    let parsed = mail.parsed();
    let raw = |name: &'static str| parsed.header_raw(name).map(str::trim);
    assert_eq!(raw("List-Unsubscribe-Post"), Some("List-Unsubscribe=One-Click"));
    let link = raw("List-Unsubscribe").and_then(|link| link.strip_prefix('<')?.strip_suffix('>'));
    let html = parsed.body_html(0).expect("HTML").replace("&#x2f;", "/");
    assert!(link.is_some_and(|link| html.contains(&format!("href=\"{link}\""))), "for people too: {html}");
    let path = link.and_then(|link| link.strip_prefix(OUTSIDE)).expect("a link to the service");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(service.send("POST", path, &form, "List-Unsubscribe=One-Click").status, 200);
    service.wait_for_state(&service.submit(&news), "suppressed", secs(20));
    service.wait_for_state(&service.submit(&confirmation(ADA)), "sent", secs(20));
    assert_eq!(server.mails().len(), 2, "the first, and the one that is no news");
}

#[test]
fn what_the_server_refuses_for_now_is_sent_again_as_the_same_mail() {
    let server = MailServer::answering(|asked: Asked<'_>| match (asked.step, asked.to, asked.nth) {
        (Step::Recipient, "busy@example.com", 1) => Some("451 4.3.2 overloaded"),
        (Step::Recipient, "full@example.com", 1) => Some("452 4.2.2 mailbox full"),
        (Step::Content, "slow@example.com", 1) => Some("451 4.7.1 try again later"),
        _ => None,
    });
    let alone = start(&server);
    let service = &alone.service;
    let cases = [("busy@example.com", "451", 1), ("full@example.com", "452", 1), ("slow@example.com", "451", 2)];
    for (to, code, contents) in cases {
        let id = service.submit(&confirmation(to));
        let sent = service.wait_for_state(&id, "sent", secs(20));
        assert_eq!(outcomes(&sent), ["transient", "accepted"], "{sent}");
        assert!(attempts(&sent, "error")[0].contains(code), "{sent}");
        assert_eq!(server.asked(Step::Recipient, to), 2);
        let mails = server.mails_to(to);
        let accepted: Vec<bool> = mails.iter().map(|mail| mail.accepted).collect();
        assert_eq!((accepted.len(), accepted.last()), (contents, Some(&true)), "{to}: {accepted:?}");
        for mail in mails {
            assert_eq!(mail.parsed().message_id().map(str::to_owned), Some(format!("{id}@example.com")));
        }
    }
}

#[test]
fn what_the_server_refuses_for_good_fails_and_a_mailbox_that_is_none_gets_nothing_more() {
    const GONE: &str = "gone@example.com";
    const BLOCKED: &str = "blocked@example.com";
    let server = MailServer::answering(|asked: Asked<'_>| match (asked.step, asked.to) {
        (Step::Recipient, GONE) => Some("550 5.1.1 no such user"),
        // It may stand for a policy as well.
        (Step::Recipient, BLOCKED) => Some("550 not here"),
        _ => None,
    });
    let alone = start(&server);
    let service = &alone.service;
    for to in [BLOCKED, GONE, BLOCKED] {
        let failed = service.wait_for_state(&service.submit(&confirmation(to)), "failed", secs(20));
        assert_eq!(outcomes(&failed), ["permanent"], "no retry: {failed}");
        assert!(failed["reason"].as_str().is_some_and(|why| why.contains("550")), "{failed}");
    }
    let listed = wait::until("the directory has learnt it", secs(10), || {
        let listed = service.get("/api/v1/suppressions").json()["items"].as_array().cloned().unwrap_or_default();
        (!listed.is_empty()).then_some(listed)
    });
    let addresses: Vec<&str> = listed.iter().filter_map(|entry| entry["address"].as_str()).collect();
    assert_eq!(addresses, [GONE]);
    let next = service.wait_for_state(&service.submit(&confirmation(GONE)), "suppressed", secs(20));
    assert_eq!(outcomes(&next), Vec::<&str>::new(), "{next}");
    assert_eq!((server.asked(Step::Recipient, GONE), server.asked(Step::Recipient, BLOCKED)), (1, 2));
    assert!(server.mails().is_empty(), "no content was sent");
}

#[track_caller]
fn start(server: &MailServer) -> Alone {
    let settings = format!(
        "[delivery]\nemail_from = \"Müllers Läden <no-reply@example.com>\"\n[delivery.retry]\nschedule_ms = [300]\n\
         [delivery.recipients]\nunsubscribe_base_url = \"{OUTSIDE}\"\nunsubscribe_secret = \"0123456789abcdef\"\n{}",
        server.provider()
    );
    Alone::start(&settings)
}

fn confirmation(to: &str) -> Value {
    let order = "Ä-4711 & Co";
    let data = json!({"orderId": order, "amount": 99.1, "currency": "EUR", "orderDate": "2026-01-15T10:30:00Z"});
    json!({"channel": "email", "recipient": to, "template": "order_confirmation", "data": data})
}
