//! Tests the `smtp` provider against a small mail server that answers by script.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::test_support::settings;
use super::{ProviderKind, ProviderSettings, SmtpProvider, test_support};
use crate::domain::channel::Channel;
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// Instead of answering, the server says nothing more.
pub const HANG: &str = "HANG";
/// Instead of answering, the server closes the connection.
pub const CLOSE: &str = "CLOSE";
/// The steps of a session; those that are not scripted are answered well.
const GREETING: &str = "greeting";
pub const CONTENT: &str = "content";

type Script = Arc<HashMap<&'static str, &'static str>>;

pub struct Received {
    pub commands: Vec<String>,
    pub content: String,
    /// The content's bytes as they came, up to the line with the dot.
    pub raw: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Vec<String> {
        let head = self.content.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ");
        let prefix = format!("{name}: ");
        head.split("\r\n").filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
    }
}

pub struct Sink {
    port: u16,
    pub mails: mpsc::UnboundedReceiver<Received>,
    connections: Arc<AtomicUsize>,
}

impl Sink {
    pub async fn start(script: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let script: Script = Arc::new(script.into_iter().collect());
        let connections = Arc::new(AtomicUsize::new(0));
        let (seen, mails) = mpsc::unbounded_channel();
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&script), seen.clone()));
            }
        });
        Self { port, mails, connections }
    }

    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    pub fn mail(&mut self) -> Received {
        self.mails.try_recv().expect("a mail")
    }
}

/// None when the connection is over.
async fn serve(stream: TcpStream, script: Script, seen: mpsc::UnboundedSender<Received>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut commands = Vec::new();
    say(&mut stream, &script, GREETING, "220 sink ESMTP").await?;
    loop {
        let line = read_line(&mut stream).await?;
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_owned();
        match verb.as_str() {
            "EHLO" => say(&mut stream, &script, "EHLO", "250-sink\r\n250 8BITMIME").await?,
            "DATA" => {
                commands.push(line);
                say(&mut stream, &script, "DATA", "354 go on").await?;
                if script.contains_key("DATA") {
                    continue;
                }
                let (mut content, mut raw) = (String::new(), Vec::new());
                loop {
                    let line = read_raw(&mut stream).await?;
                    if line == b".\r\n" {
                        break;
                    }
                    content.push_str(&String::from_utf8_lossy(line.strip_prefix(b".").unwrap_or(&line)));
                    raw.extend(line);
                }
                let _ = seen.send(Received { commands: std::mem::take(&mut commands), content, raw });
                say(&mut stream, &script, CONTENT, "250 2.0.0 queued as 4F2A").await?;
            }
            "QUIT" => return None,
            known => {
                let step = ["MAIL", "RCPT", "RSET", "AUTH"].into_iter().find(|step| *step == known)?;
                // A refusal is for the first mail of a session only, so that the session's further use can be seen.
                let again = step == "RCPT" && commands.iter().any(|c: &String| c.starts_with("RSET"));
                commands.push(line);
                let step = if again { "second RCPT" } else { step };
                say(&mut stream, &script, step, "250 2.1.0 fine").await?;
            }
        }
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let line = read_raw(stream).await?;
    Some(String::from_utf8_lossy(&line).trim_end_matches("\r\n").to_owned())
}

async fn read_raw(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let length = stream.read_until(b'\n', &mut line).await.ok()?;
    (length > 0).then_some(line)
}

async fn say(stream: &mut BufReader<TcpStream>, script: &Script, step: &str, otherwise: &str) -> Option<()> {
    match script.get(step).copied().unwrap_or(otherwise) {
        HANG => std::future::pending().await,
        CLOSE => None,
        answer => stream.get_mut().write_all(format!("{answer}\r\n").as_bytes()).await.ok(),
    }
}

fn message() -> Message {
    test_support::message(Channel::Email, Some("ann@example.com"))
}

fn provider(url: String) -> SmtpProvider {
    with_timeout(url, Duration::from_secs(10))
}

fn with_timeout(url: String, timeout: Duration) -> SmtpProvider {
    SmtpProvider::new(&ProviderSettings { timeout, ..settings(ProviderKind::Smtp, &url) }).expect("a provider")
}

/// What the provider makes of a server that answers one step differently.
async fn outcome(step: &'static str, answer: &'static str) -> Result<Accepted, SendError> {
    let timeout = if answer == HANG { Duration::from_millis(300) } else { Duration::from_secs(10) };
    let sink = Sink::start([(step, answer)]).await;
    with_timeout(sink.url(), timeout).send(&message()).await
}

#[tokio::test]
async fn delivers_text_and_html() {
    let mut sink = Sink::start([]).await;
    let with_html = Message { html: Some("<p>Grüße</p>".into()), ..message() };
    let accepted = provider(sink.url()).send(&with_html).await.expect("accepted");
    assert_eq!(accepted.receipt.as_deref(), Some("2.0.0 queued as 4F2A"));

    let mail = sink.mail();
    assert_eq!(mail.commands, ["MAIL FROM:<no-reply@example.com>", "RCPT TO:<ann@example.com>", "DATA"]);
    assert_eq!(mail.header("To"), ["ann@example.com"]);
    assert_eq!(mail.header("Subject"), ["Your order"]);
    assert_eq!(mail.header("Message-ID"), ["<0b9f6f0e-7a36-5b1c-9d0a-2f6f3c1f9b11@example.com>"]);
    assert_eq!(mail.header("Auto-Submitted"), ["auto-generated"]);
    assert_eq!((mail.header("MIME-Version").concat().as_str(), mail.header("Date").len()), ("1.0", 1));
    // The name is not ASCII: it travels encoded, the address does not.
    let from = mail.header("From").concat();
    assert!(from.starts_with("=?utf-8?b?") && from.ends_with("<no-reply@example.com>"), "{from}");
    assert!(mail.content.is_ascii());
    assert!(mail.header("Content-Type").concat().starts_with("multipart/alternative"));
    assert!(mail.content.contains("text/plain; charset=utf-8") && mail.content.contains("text/html; charset=utf-8"));
    assert!(mail.content.contains("Hello Ann") && mail.content.contains("<p>Gr=C3=BC=C3=9Fe</p>"), "{}", mail.content);
}

#[tokio::test]
async fn dots_arrive_as_they_were() {
    let mut sink = Sink::start([]).await;
    provider(sink.url()).send(&message()).await.expect("accepted");
    let mail = sink.mail();
    assert!(mail.header("Content-Type").concat().starts_with("text/plain"));
    let body = mail.content.split_once("\r\n\r\n").expect("a body").1;
    assert_eq!(body.trim_end(), "Hello Ann\r\n.\r\n..two");
}

#[tokio::test]
async fn nothing_can_be_injected() {
    let mut sink = Sink::start([]).await;
    let hostile = Message {
        id: "x>\r\nBcc: evil@example.com\r\n".into(),
        subject: Some("Grüße\r\nBcc: evil@example.com\r\n\r\nbody".into()),
        body: "a\r.\rMAIL FROM:<evil@example.com>\n.\r\nRCPT TO:<evil@example.com>".into(),
        ..message()
    };
    provider(sink.url()).send(&hostile).await.expect("accepted");
    let mail = sink.mail();
    assert_eq!(mail.header("Bcc"), Vec::<String>::new());
    assert_eq!((mail.header("Subject").len(), mail.header("Message-ID").len()), (1, 1));
    assert_eq!(mail.commands.len(), 3);
    assert!(sink.mails.try_recv().is_err());

    for to in ["ann@example.com\r\nBcc: evil@example.com", "ann", "ann@example.com, evil@example.com"] {
        let refused = provider(sink.url()).send(&Message { to: Some(to.into()), ..message() }).await;
        assert!(matches!(&refused, Err(SendError::Permanent(reason)) if reason.contains("`ann")), "{refused:?}");
    }
}

#[tokio::test]
async fn international_addresses_need_the_servers_consent() {
    let to_joerg = Message { to: Some("jörg@bücher.example".into()), ..message() };
    let sink = Sink::start([]).await;
    let refused = provider(sink.url()).send(&to_joerg).await;
    assert!(matches!(&refused, Err(SendError::Permanent(reason)) if reason.contains("SMTPUTF8")), "{refused:?}");

    let mut sink = Sink::start([("EHLO", "250-sink\r\n250-8BITMIME\r\n250 SMTPUTF8")]).await;
    provider(sink.url()).send(&to_joerg).await.expect("accepted");
    let commands = sink.mail().commands;
    assert_eq!(commands[0], "MAIL FROM:<no-reply@example.com> SMTPUTF8 BODY=8BITMIME");
    assert_eq!(commands[1], "RCPT TO:<jörg@xn--bcher-kva.example>");
}

#[tokio::test]
async fn refusals_of_the_mail_keep_their_severity() {
    let policy = ("RCPT", "550-5.7.1 not for\r\n550 5.7.1 5.1.1");
    let bare = ("RCPT", "550 no such user");
    for (step, answer) in [("MAIL", "550 5.7.1 not from you"), policy, bare, ("DATA", "554 no"), (CONTENT, "554 spam")]
    {
        let outcome = outcome(step, answer).await;
        assert!(matches!(&outcome, Err(SendError::Permanent(reason)) if reason.contains(&answer[..3])), "{outcome:?}");
    }
    for (step, answer) in [
        ("MAIL", "451 4.3.0 later"),
        ("MAIL", "530 5.7.0 log in first"),
        ("RCPT", "451 4.3.2 overloaded"),
        ("RCPT", "450 4.1.8 there is no such sender's domain"),
        ("RCPT", "450 4.7.1 too many recipients"),
        ("MAIL", "451 4.7.1 greylisted"),
        (CONTENT, "451 4.7.1 service unavailable, try again later"),
        ("RCPT", "421 4.2.1 shutting down"),
        (CONTENT, "452 4.3.1 disk full"),
    ] {
        let outcome = outcome(step, answer).await;
        assert!(matches!(&outcome, Err(SendError::Transient(reason)) if reason.contains(&answer[..3])), "{outcome:?}");
    }
}

#[tokio::test]
async fn mailboxes_that_do_not_exist_are_gone() {
    let moved = ("RCPT", "551 5.1.6 moved");
    let null_mx = ("RCPT", "556 5.1.10 takes no mail");
    for (step, answer) in [("RCPT", "550-5.1.1 no such\r\n550 5.1.1 user"), moved, null_mx, (CONTENT, "550 5.1.1 who?")]
    {
        match outcome(step, answer).await {
            Err(SendError::Gone { addresses, reason }) => {
                assert_eq!(addresses, ["ann@example.com"]);
                assert!(reason.contains(&answer[..3]), "{reason}");
            }
            other => panic!("{answer}: {other:?}"),
        }
    }
    let soft = outcome("RCPT", "450 5.1.1 perhaps").await;
    assert!(matches!(soft, Err(SendError::Deferred(_))), "{soft:?}");
}

#[tokio::test]
async fn mailboxes_that_take_nothing_now_are_not_the_server_s_trouble() {
    for answer in ["451 4.7.1 Greylisted", "452 4.2.2 full", "450 4.1.1 who is that", "450 busy"] {
        let outcome = outcome("RCPT", answer).await;
        assert!(matches!(&outcome, Err(SendError::Deferred(reason)) if reason.contains(&answer[..3])), "{outcome:?}");
    }
}

#[tokio::test]
async fn trouble_before_the_content_is_transient() {
    let greetings = ["554 no service here", CLOSE, "HTTP/1.1 400 Bad Request", HANG].map(|answer| (GREETING, answer));
    for (step, answer) in greetings.into_iter().chain([("RCPT", CLOSE), ("DATA", HANG)]) {
        let outcome = outcome(step, answer).await;
        assert!(matches!(outcome, Err(SendError::Transient(_))), "{step} {answer}: {outcome:?}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let sink = Sink::start([]).await;
    let (login, encrypted) = (sink.url().replace("//", "//user:s3cret@"), format!("{}?tls=required", sink.url()));
    for url in [format!("smtp://127.0.0.1:{port}"), login, encrypted] {
        let refused = provider(url).send(&message()).await;
        assert!(matches!(&refused, Err(SendError::Transient(reason)) if !reason.contains("s3cret")), "{refused:?}");
    }
}

#[tokio::test]
async fn silence_after_the_content_is_unknown() {
    for answer in [HANG, CLOSE, "garbage"] {
        let outcome = outcome(CONTENT, answer).await;
        assert!(matches!(outcome, Err(SendError::Unknown(_))), "{answer}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_session_serves_many_mails_also_after_a_refusal() {
    let mut sink = Sink::start([("RCPT", "550 5.7.1 not you")]).await;
    let provider = provider(sink.url());
    assert!(matches!(provider.send(&message()).await, Err(SendError::Permanent(_))));
    for _ in 0..2 {
        provider.send(&message()).await.expect("accepted");
    }
    assert!(sink.mail().commands.iter().any(|command| command == "RSET"));
    assert_eq!(sink.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_session_that_ended_is_replaced() {
    let mut sink = Sink::start([("RSET", CLOSE)]).await;
    let provider = provider(sink.url());
    for _ in 0..2 {
        provider.send(&message()).await.expect("accepted");
        assert_eq!(sink.mail().commands.len(), 3);
    }
    assert_eq!(sink.connections.load(Ordering::SeqCst), 2);
}
