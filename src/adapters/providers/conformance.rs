//! What every kind of provider must do, asked of all of them alike: the same trouble has the same class, nothing leaves
//! twice within one send, no error holds a secret, and no content breaks a protocol.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use serde_json::value::RawValue;

use super::smtp_tests::{CLOSE, CONTENT, HANG, Sink};
use super::test_support::{
    MemoryInbox, Request, Server, Then, answer, closed_port, message, service_account, settings,
};
use super::{ProviderKind, ProviderSettings, build};
use crate::domain::channel::Channel;
use crate::domain::recipient::{Device, Platform};
use crate::ports::ledger::LedgerError;
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// How the provider's server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Accept,
    RejectForGood,
    LimitTheRate,
    AnswerUnavailable,
    Hang,
    CloseWithinTheAnswer,
    AnswerGarbage,
    RefuseConnections,
}

const ALL: [Told; 8] = [
    Told::Accept,
    Told::RejectForGood,
    Told::LimitTheRate,
    Told::AnswerUnavailable,
    Told::Hang,
    Told::CloseWithinTheAnswer,
    Told::AnswerGarbage,
    Told::RefuseConnections,
];

const KINDS: [ProviderKind; 7] = [
    ProviderKind::Smtp,
    ProviderKind::Http,
    ProviderKind::Twilio,
    ProviderKind::Fcm,
    ProviderKind::Slack,
    ProviderKind::Inbox,
    ProviderKind::File,
];

/// A provider with its counterpart.
struct Rig {
    provider: Arc<dyn Provider>,
    message: Message,
    /// Notifications that reached the counterpart since the last look; checks that each is well-formed.
    arrived: Box<dyn FnMut() -> usize + Send>,
    _kept: Vec<Box<dyn Any + Send>>,
}

impl Rig {
    /// `None` where the kind has no such trouble.
    async fn new(kind: ProviderKind, told: Told) -> Option<Self> {
        match kind {
            ProviderKind::Smtp => smtp(told).await,
            ProviderKind::Inbox => inbox(told),
            ProviderKind::File => file(told),
            ProviderKind::Http | ProviderKind::Twilio | ProviderKind::Fcm | ProviderKind::Slack => {
                Some(web(kind, told).await)
            }
        }
    }

    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        let outcome = self.provider.send(message).await;
        assert!(!format!("{outcome:?}").contains("s3cret"), "{outcome:?}");
        outcome
    }
}

fn timeout(told: Told) -> Duration {
    if told == Told::Hang { Duration::from_millis(700) } else { Duration::from_secs(10) }
}

fn rig(settings: &ProviderSettings, message: Message, arrived: Box<dyn FnMut() -> usize + Send>) -> Rig {
    let provider = build(settings, None).unwrap_or_else(|error| panic!("{error}"));
    Rig { provider, message, arrived, _kept: Vec::new() }
}

async fn smtp(told: Told) -> Option<Rig> {
    let script = match told {
        Told::Accept | Told::RefuseConnections => None,
        Told::RejectForGood => Some(("RCPT", "550 5.7.1 s0 not")),
        // Mail servers have no word for it.
        Told::LimitTheRate => return None,
        Told::AnswerUnavailable => Some(("MAIL", "421 4.3.2 shutting down")),
        Told::Hang => Some((CONTENT, HANG)),
        Told::CloseWithinTheAnswer => Some((CONTENT, CLOSE)),
        Told::AnswerGarbage => Some((CONTENT, "\u{1}garbage")),
    };
    let mut sink = Sink::start(script).await;
    let host = match told {
        Told::RefuseConnections => closed_port().await.to_string(),
        _ => sink.url().replace("smtp://", ""),
    };
    // The credentials cannot be used without AUTH, so they are only there when no connection is made.
    let login = if told == Told::RefuseConnections { "user:s3cret@" } else { "" };
    let settings =
        ProviderSettings { timeout: timeout(told), ..settings(ProviderKind::Smtp, &format!("smtp://{login}{host}")) };
    let arrived = move || {
        let mails: Vec<_> = std::iter::from_fn(|| sink.mails.try_recv().ok()).collect();
        for mail in &mails {
            let commands = mail.commands.iter().filter(|command| *command != "RSET").count();
            assert_eq!(commands, 3, "{:?}", mail.commands);
            assert!(mail.header("Bcc").is_empty());
        }
        mails.len()
    };
    Some(rig(&settings, message(Channel::Email, Some("ann@example.com")), Box::new(arrived)))
}

fn inbox(told: Told) -> Option<Rig> {
    let failure = match told {
        Told::Accept => None,
        Told::RejectForGood => Some(LedgerError::Rejected("NUL".into())),
        Told::AnswerUnavailable => Some(LedgerError::Unavailable("away".into())),
        _ => return None,
    };
    let inbox = Arc::new(MemoryInbox::default());
    *inbox.failure.lock().expect("failure") = failure;
    let provider = build(&settings(ProviderKind::Inbox, ""), Some(Arc::clone(&inbox) as _)).expect("a provider");
    let arrived = Box::new(move || std::mem::take(&mut *inbox.entries.lock().expect("entries")).len());
    Some(Rig { provider, message: message(Channel::InApp, None), arrived, _kept: Vec::new() })
}

fn file(told: Told) -> Option<Rig> {
    if !matches!(told, Told::Accept | Told::AnswerUnavailable) {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("inner");
    let path: PathBuf = inner.join("out.jsonl");
    let settings = settings(ProviderKind::File, &path.display().to_string());
    let arrived = move || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        drop(std::fs::remove_file(&path));
        text.lines().inspect(|line| assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}")).count()
    };
    let mut rig = rig(&settings, message(Channel::Webhook, Some("https://hooks.example/x")), Box::new(arrived));
    if told == Told::AnswerUnavailable {
        std::fs::remove_dir_all(&inner).expect("removed");
    }
    rig._kept.push(Box::new(folder));
    Some(rig)
}

async fn web(kind: ProviderKind, told: Told) -> Rig {
    let mut server = Server::by_rule(move |request| {
        let token = json!({"access_token": "s3cret", "expires_in": 3600}).to_string();
        if is_token(request) { answer("200 OK", "", &token) } else { behaviour(kind, told) }
    })
    .await;
    let host = if told == Told::RefuseConnections { closed_port().await } else { server.address };
    let (url, message) = match kind {
        ProviderKind::Twilio => (format!("http://AC1:s3cret@{host}"), message(Channel::Sms, Some("+15550100123"))),
        ProviderKind::Fcm => {
            let device = Device { token: "d1".into(), platform: Platform::Ios };
            (format!("http://{host}/"), Message { devices: vec![device], ..message(Channel::Push, Some("d1")) })
        }
        ProviderKind::Slack => (format!("http://{host}/services/s3cret"), message(Channel::AdminAlert, None)),
        _ => {
            (format!("http://user:s3cret@{host}/hook?key=s3cret"), message(Channel::Webhook, Some("https://a.example")))
        }
    };
    let folder = tempfile::tempdir().expect("a folder");
    let account = service_account(folder.path(), &format!("http://{}/token", server.address));
    let settings = ProviderSettings {
        timeout: timeout(told),
        credentials_file: Some(account),
        secret: Some("s3cret".into()),
        ..settings(kind, &url)
    };
    let arrived = move || {
        let requests: Vec<Request> = server.all().into_iter().filter(|request| !is_token(request)).collect();
        requests.iter().for_each(|request| assert_well_formed(kind, request));
        requests.len()
    };
    let mut rig = rig(&settings, message, Box::new(arrived));
    rig._kept.push(Box::new(folder));
    rig
}

fn is_token(request: &Request) -> bool {
    request.line.starts_with("POST /token ")
}

fn assert_well_formed(kind: ProviderKind, request: &Request) {
    let path = match kind {
        ProviderKind::Twilio => "/2010-04-01/Accounts/AC1/Messages.json",
        ProviderKind::Fcm => "/v1/projects/shop-1/messages:send",
        ProviderKind::Slack => "/services/s3cret",
        _ => "/hook?key=s3cret",
    };
    assert_eq!(request.line, format!("POST {path} HTTP/1.1"));
    match kind {
        ProviderKind::Twilio => {
            let names: Vec<String> = request.form().into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["To", "From", "Body"]);
        }
        _ => assert!(request.json().is_object()),
    }
}

/// The answers of the real services.
fn behaviour(kind: ProviderKind, told: Told) -> Then {
    let (accepted, rejected) = match kind {
        ProviderKind::Twilio => (
            answer("201 Created", "", r#"{"sid":"SM1","status":"queued"}"#),
            answer("400 Bad Request", "", r#"{"code":21612,"message":"cannot be routed","more_info":"","status":400}"#),
        ),
        ProviderKind::Fcm => (
            answer("200 OK", "", r#"{"name":"projects/shop-1/messages/1"}"#),
            answer("400 Bad Request", "", r#"{"error":{"code":400,"message":"too big","status":"INVALID_ARGUMENT"}}"#),
        ),
        ProviderKind::Slack => (answer("200 OK", "", "ok"), answer("400 Bad Request", "", "invalid_payload")),
        _ => (answer("202 Accepted", "", r#"{"id":"r-1"}"#), answer("422 Unprocessable Entity", "", "no")),
    };
    match told {
        Told::Accept | Told::RefuseConnections => accepted,
        Told::RejectForGood => rejected,
        Told::LimitTheRate => answer("429 Too Many Requests", "Retry-After: 7\r\n", ""),
        Told::AnswerUnavailable => answer("503 Service Unavailable", "", "<html>"),
        Told::Hang => Then::Hang,
        Told::CloseWithinTheAnswer => Then::Break("HTTP/1.1 200 O".into()),
        Told::AnswerGarbage => Then::Break("\u{0}\u{1}garbage\r\n\r\n".into()),
    }
}

#[tokio::test]
async fn the_same_trouble_has_the_same_class() {
    for kind in KINDS {
        for told in ALL {
            let Some(mut rig) = Rig::new(kind, told).await else { continue };
            let started = Instant::now();
            let outcome = rig.send(&rig.message).await;
            let expected = match (told, &outcome) {
                (Told::Accept, Ok(accepted)) => {
                    // Slack's webhooks are the only ones that name nothing.
                    (accepted.receipt.is_some() || kind == ProviderKind::Slack) && accepted.gone.is_empty()
                }
                (Told::RejectForGood, Err(SendError::Permanent(_)))
                | (Told::AnswerUnavailable | Told::RefuseConnections, Err(SendError::Transient(_)))
                | (Told::Hang | Told::CloseWithinTheAnswer | Told::AnswerGarbage, Err(SendError::Unknown(_))) => true,
                (Told::LimitTheRate, Err(SendError::RateLimited { retry_after, .. })) => retry_after.as_secs() == 7,
                _ => false,
            };
            assert!(expected, "{kind:?} {told:?}: {outcome:?}");
            assert!(started.elapsed() < Duration::from_secs(5), "{kind:?} {told:?}: {:?}", started.elapsed());
            let arrived = (rig.arrived)();
            assert!(arrived <= 1, "{kind:?} {told:?}: sent {arrived} times");
            assert!(arrived == 1 || told != Told::Accept, "{kind:?}: accepted and not there");
        }
    }
}

#[tokio::test]
async fn each_send_arrives_once_over_kept_connections() {
    for kind in KINDS {
        let mut rig = Rig::new(kind, Told::Accept).await.expect("every kind accepts");
        for n in 0..3 {
            rig.send(&Message { id: format!("n-{n}"), ..rig.message.clone() }).await.expect("accepted");
            assert_eq!((rig.arrived)(), 1, "{kind:?}");
        }
    }
}

/// Each field in turn with this text.
fn spoiled(message: &Message, text: &str) -> Vec<Message> {
    let text = || text.to_owned();
    let data = json!({"x": text()}).to_string();
    let device = Device { token: text(), platform: Platform::Web };
    vec![
        Message { id: text(), ..message.clone() },
        Message { recipient: Some(text()), ..message.clone() },
        Message { to: Some(text()), ..message.clone() },
        Message { subject: Some(text()), ..message.clone() },
        Message { body: text(), ..message.clone() },
        Message { html: Some(text()), ..message.clone() },
        Message { template: text(), ..message.clone() },
        Message { category: text(), ..message.clone() },
        Message { data: RawValue::from_string(data).expect("json"), ..message.clone() },
        Message { devices: vec![device], ..message.clone() },
        Message { unsubscribe_url: Some(text()), ..message.clone() },
    ]
}

#[tokio::test]
async fn no_content_breaks_the_protocol() {
    let hostile = [
        "a\r\nBcc: evil@example.com\r\n\r\n.\r\nMAIL FROM:<evil@example.com>\r\n".to_owned(),
        "a\nb\rc\u{2028}d\u{85}e".to_owned(),
        "a\0b".to_owned(),
        "\u{202e}txt.exe \u{202b}שלום مرحبا\u{202c}".to_owned(),
        "💌👩‍👩‍👧‍👦".to_owned(),
        "Jörg Müßig Øystein Łukasz".to_owned(),
        "\"';--<script>alert(1)</script>&amp;%00%0d%0a{{7*7}}${x}".to_owned(),
        "&To=+15550100666&Body=evil".to_owned(),
        String::new(),
        "x".repeat(100_000),
        "ü ".repeat(50_000),
    ];
    for kind in KINDS {
        let mut rig = Rig::new(kind, Told::Accept).await.expect("every kind accepts");
        for text in &hostile {
            for message in spoiled(&rig.message.clone(), text) {
                let outcome = rig.send(&message).await;
                let arrived = (rig.arrived)();
                let label: String = text.chars().take(40).collect();
                match outcome {
                    Ok(_) => assert_eq!(arrived, 1, "{kind:?} {label}"),
                    Err(SendError::Permanent(_)) => assert_eq!(arrived, 0, "{kind:?} {label}"),
                    other => panic!("{kind:?} {label}: {other:?}"),
                }
            }
        }
        rig.send(&rig.message).await.expect("the next one is not affected");
    }
}
