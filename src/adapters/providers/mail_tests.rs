//! Whether e-mails open as they were meant: sent over SMTP, read back by a parser that is not the sender's library, and
//! their DKIM signatures checked as a receiver does.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{MessageParser, MimeHeaders};
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::sha::sha256;
use openssl::sign::Verifier;

use super::smtp_tests::Sink;
use super::test_support::{self, rsa_key, settings};
use super::{DkimSettings, ProviderKind, ProviderSettings, SmtpProvider};
use crate::domain::channel::Channel;
use crate::ports::provider::{Message, Provider};

const UNSUBSCRIBE: &str = "https://n.example/unsubscribe?token=eyJhbGciOiJIUzI1NiJ9.eyJyIjoiY3VzdG9tZXItNzg5IiwiYyI6Im\
    1hcmtldGluZyJ9.c2lnbmF0dXJl0123456789&x=%C3%BC";

fn email() -> Message {
    test_support::message(Channel::Email, Some("ann@example.com"))
}

/// Sends over a real connection and gives back what came out at the other end, dots taken away.
async fn received(message: &Message, dkim: Option<DkimSettings>) -> Vec<u8> {
    let mut sink = Sink::start([]).await;
    let settings = ProviderSettings { dkim, ..settings(ProviderKind::Smtp, &sink.url()) };
    let provider = SmtpProvider::new(&settings).unwrap_or_else(|error| panic!("{error}"));
    provider.send(message).await.expect("accepted");
    let raw = sink.mail().raw;
    assert!(sink.mails.try_recv().is_err(), "one mail");
    let mut mail = Vec::new();
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.ends_with(b"\r\n"), "a bare line feed");
        assert!(line.len() <= 1000, "a line of {} bytes", line.len());
        assert!(!line[..line.len() - 2].contains(&b'\r') && !line.contains(&0), "a bare carriage return, or NUL");
        mail.extend(line.strip_prefix(b".").unwrap_or(line));
    }
    mail
}

/// Subject, text and HTML as a mail program shows them.
async fn shown(message: &Message) -> (String, String, Option<String>) {
    let mail = received(message, None).await;
    let parsed = MessageParser::default().parse(&mail).expect("a mail");
    let to = parsed.to().and_then(|to| to.first()).and_then(|to| to.address());
    assert_eq!(to, Some("ann@example.com"));
    let from = parsed.from().and_then(|from| from.first()).expect("a sender");
    assert_eq!((from.name(), from.address()), (Some("Müllers Läden"), Some("no-reply@example.com")));
    assert!(parsed.bcc().is_none() && parsed.cc().is_none() && parsed.attachment_count() == 0);
    let text = parsed.body_text(0).expect("a text").replace("\r\n", "\n");
    let html = message.html.as_ref().map(|_| parsed.body_html(0).expect("HTML").replace("\r\n", "\n"));
    (parsed.subject().unwrap_or_default().to_owned(), text.trim_end_matches('\n').to_owned(), html)
}

#[tokio::test]
async fn what_was_written_is_shown() {
    let right_to_left = "\u{202b}שלום עולם\u{202c} مرحبا \u{200f}123";
    for body in [
        "Grüße aus Köln – 100 % für Ørsted & Søn",
        right_to_left,
        "💌👩‍👩‍👧‍👦 emoji",
        ".\n..\n...\n.hidden\n\n.",
        "From here\nFrom there",
        "=3D =\n=20",
        " leading and trailing \n\ttab\t",
    ] {
        let html = format!("<p dir=\"auto\">{}</p>", body.replace('&', "&amp;").replace('\n', "<br>"));
        let subject = body.lines().next().unwrap_or_default().trim().to_owned();
        let message =
            Message { subject: Some(subject.clone()), body: body.into(), html: Some(html.clone()), ..email() };
        let (shown_subject, text, shown_html) = shown(&message).await;
        assert_eq!(text, body);
        assert_eq!(shown_html.as_deref().map(str::trim_end), Some(html.as_str()));
        assert_eq!(shown_subject, subject.replace('\t', " "));
        let alone = shown(&Message { html: None, ..message }).await;
        assert_eq!(alone.1, body);
    }
}

#[tokio::test]
async fn very_long_lines_are_carried() {
    for piece in ["x", "ü", "💌", "word ", "."] {
        let long = piece.repeat(100_000);
        let message = Message { body: long.clone(), html: Some(format!("<p>{long}</p>")), ..email() };
        let (_, text, html) = shown(&message).await;
        assert!(text.trim_end() == long.trim_end(), "a text of {} bytes came out as {}", long.len(), text.len());
        assert!(html.is_some_and(|html| html.contains(&long)));
    }
    let subject = "Größe ".repeat(500);
    let (shown_subject, ..) = shown(&Message { subject: Some(subject.clone()), ..email() }).await;
    assert_eq!(shown_subject.trim_end(), subject.trim_end());
}

#[tokio::test]
async fn a_name_beside_the_address_is_only_a_name() {
    for name in ["Jörg Müller", "שלום", "O'Brien, Ann", "a;b", "evil@example.com"] {
        let to = format!("\"{name}\" <ann@example.com>");
        let mail = received(&Message { to: Some(to), ..email() }, None).await;
        let parsed = MessageParser::default().parse(&mail).expect("a mail");
        let all: Vec<_> = parsed.to().expect("a recipient").iter().map(|to| (to.name(), to.address())).collect();
        assert_eq!(all, [(Some(name), Some("ann@example.com"))]);
    }
}

#[tokio::test]
async fn headers_and_bodies_cannot_be_injected() {
    let hostile =
        "x\r\nBcc: evil@example.com\r\n\r\n--boundary\r\nContent-Type: text/html\r\n\r\n<b>evil</b>\r\n.\r\nQUIT";
    for subject in
        [hostile, "x\nBcc: evil@example.com", "x\rBcc: evil@example.com", "x\u{2028}Bcc: evil@example.com", "\0"]
    {
        let message = Message { subject: Some(subject.into()), body: hostile.into(), ..email() };
        let mail = received(&Message { body: hostile.replace('\0', ""), ..message }, None).await;
        let parsed = MessageParser::default().parse(&mail).expect("a mail");
        assert!(parsed.header("Bcc").is_none() && parsed.html_body_count() <= 1 && parsed.attachment_count() == 0);
        assert_eq!(parsed.headers().iter().filter(|header| header.name() == "Subject").count(), 1);
        assert_eq!(parsed.body_text(0).expect("a text").trim_end(), hostile);
    }
    // A text is text, whatever it looks like.
    let markup = "<script>alert(1)</script>";
    let mail = received(&Message { body: markup.into(), ..email() }, None).await;
    let parsed = MessageParser::default().parse(&mail).expect("a mail");
    assert_eq!(parsed.content_type().and_then(|kind| kind.subtype()), Some("plain"));
}

#[tokio::test]
async fn one_click_unsubscription_is_offered_when_there_is_a_url() {
    let with_url = Message { unsubscribe_url: Some(UNSUBSCRIBE.into()), ..email() };
    let text = String::from_utf8(received(&with_url, None).await).expect("ASCII");
    assert!(text.contains(&format!("\r\nList-Unsubscribe: <{UNSUBSCRIBE}>\r\n")), "{text}");
    assert!(text.contains("\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"), "{text}");
    let without = String::from_utf8(received(&email(), None).await).expect("ASCII");
    assert!(!without.contains("List-Unsubscribe"));

    // Without one that fits into a header the mail goes all the same.
    let long = format!("https://n.example/{}", "x".repeat(1000));
    for bad in [
        "",
        "mailto:a@b.example",
        "https://n.example/a b",
        "https://n.example/>\r\nBcc: e@x.example",
        "https://a,b",
        &long,
    ] {
        let mail = received(&Message { unsubscribe_url: Some(bad.into()), ..email() }, None).await;
        let text = String::from_utf8(mail).expect("ASCII");
        assert!(!text.contains("List-Unsubscribe") && !text.contains("Bcc"), "{bad}: {text}");
    }
}

fn key_file(folder: &Path, key: &PKey<Private>) -> DkimSettings {
    let private_key_file = folder.join("dkim.pem");
    std::fs::write(&private_key_file, key.private_key_to_pem_pkcs8().expect("pem")).expect("written");
    DkimSettings { selector: "s2026".into(), domain: "example.com".into(), private_key_file }
}

#[tokio::test]
async fn signatures_hold_and_cover_what_matters() {
    let folder = tempfile::tempdir().expect("a folder");
    for (key, algorithm) in [(rsa_key(), "rsa-sha256"), (PKey::generate_ed25519().expect("a key"), "ed25519-sha256")] {
        let dkim = key_file(folder.path(), &key);
        for body in ["Grüße\n\n.\n  two  blanks \n\n\n", "", "x", &"ü".repeat(50_000)] {
            let html = Some(format!("<p>{body}</p>"));
            let subject = Some("Größe ".repeat(40));
            let unsubscribe_url = Some(UNSUBSCRIBE.into());
            let message = Message { body: body.into(), html, subject, unsubscribe_url, ..email() };
            let mail = received(&message, Some(dkim.clone())).await;
            let tags = verify(&mail, &key).unwrap_or_else(|problem| panic!("{algorithm}: {problem}"));
            assert_eq!(
                (tags["a"].as_str(), tags["d"].as_str(), tags["s"].as_str()),
                (algorithm, "example.com", "s2026")
            );
            for covered in ["from", "to", "subject", "date", "message-id", "list-unsubscribe", "list-unsubscribe-post"]
            {
                assert!(tags["h"].split(':').any(|name| name == covered), "{covered}: {}", tags["h"]);
            }
            assert!(
                MessageParser::default().parse(&mail).is_some_and(|parsed| parsed.header("DKIM-Signature").is_some())
            );

            // What is changed on the way, or added, is found out.
            let text = String::from_utf8(mail).expect("ASCII");
            for (from, to) in [
                ("Message-ID: <0", "Message-ID: <1"),
                ("One-Click", "Two-Click"),
                ("\r\nFrom: ", "\r\nFrom: evil@example.com\r\nFrom: "),
                ("multipart/alternative", "multipart/mixed"),
            ] {
                assert!(text.contains(from));
                assert!(verify(text.replacen(from, to, 1).as_bytes(), &key).is_err(), "{to}");
            }
            let body_at = text.find("\r\n\r\n").expect("a body") + 4;
            let changed = format!("{}X{}", &text[..body_at], &text[body_at..]);
            assert!(verify(changed.as_bytes(), &key).is_err());
        }
    }
}

#[tokio::test]
async fn a_key_that_cannot_sign_is_found_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dkim = key_file(folder.path(), &rsa_key());
    std::fs::write(&dkim.private_key_file, "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n")
        .expect("written");
    let problem = |dkim: &DkimSettings| {
        let settings =
            ProviderSettings { dkim: Some(dkim.clone()), ..settings(ProviderKind::Smtp, "smtp://localhost") };
        SmtpProvider::new(&settings).err().expect("a problem").to_string()
    };
    let text = problem(&dkim);
    assert!(text.starts_with("provider `mail`: `dkim.private_key_file` names `") && !text.contains("s3cret"), "{text}");
    dkim.private_key_file = folder.path().join("none.pem");
    assert!(problem(&dkim).contains("cannot be read"));
}

/// Verifies as RFC 6376, section 6 says, written for these tests without a look at the signer. Gives back the tags.
fn verify(mail: &[u8], key: &PKey<Private>) -> Result<HashMap<String, String>, String> {
    let text = String::from_utf8(mail.to_vec()).map_err(|_| "8-bit content")?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no body")?;
    let mut headers: Vec<String> = Vec::new();
    for line in head.split("\r\n") {
        match headers.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => last.push_str(line),
            _ => headers.push(line.to_owned()),
        }
    }
    let canonical = |header: &str| {
        let (name, value) = header.split_once(':').expect("a header");
        let value = value.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        format!("{}:{value}", name.trim().to_lowercase())
    };
    let signature = headers.first().filter(|first| first.starts_with("DKIM-Signature:")).ok_or("no signature")?.clone();
    let tags: HashMap<String, String> = signature["DKIM-Signature:".len()..]
        .split(';')
        .filter_map(|tag| tag.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.split_whitespace().collect()))
        .collect();

    let mut lines: Vec<String> = body
        .split("\r\n")
        .map(|line| {
            let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
            if line.starts_with([' ', '\t']) && !words.is_empty() {
                words.insert(0, ' ');
            }
            words
        })
        .collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    let body: String = lines.into_iter().map(|line| line + "\r\n").collect();
    if tags["bh"] != STANDARD.encode(sha256(body.as_bytes())) {
        return Err("the body was changed".into());
    }

    let mut data = String::new();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for name in tags["h"].split(':') {
        let nth = seen.entry(name).or_default();
        let found = headers.iter().rev().filter(|header| canonical(header).starts_with(&format!("{name}:"))).nth(*nth);
        *nth += 1;
        if let Some(found) = found {
            data += &canonical(found);
            data += "\r\n";
        }
    }
    let (without, _) = signature.rsplit_once(" b=").ok_or("no b=")?;
    data += &canonical(&format!("{without} b="));
    let given = STANDARD.decode(&tags["b"]).map_err(|_| "no base64")?;
    let holds = if key.id() == Id::ED25519 {
        Verifier::new_without_digest(key).and_then(|mut v| v.verify_oneshot(&given, &sha256(data.as_bytes())))
    } else {
        Verifier::new(MessageDigest::sha256(), key).and_then(|mut v| v.verify_oneshot(&given, data.as_bytes()))
    };
    if holds.unwrap_or(false) { Ok(tags) } else { Err("the signature does not hold".into()) }
}
