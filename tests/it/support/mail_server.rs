//! A mail server that wants a login, refuses what the test says, and remembers what it was given.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::MessageParser;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::listener::Listener;

const USER: &str = "shop";
const PASSWORD: &str = "s3cret+1";

/// What is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// RCPT.
    Recipient,
    /// The end of the content.
    Content,
}

/// A question that the test may answer.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub step: Step,
    pub to: &'a str,
    /// Counts this step for this address, from 1.
    pub nth: usize,
}

/// An e-mail as it came.
#[derive(Debug)]
pub struct Mail {
    /// The envelope's.
    pub from: String,
    pub to: String,
    /// Headers and body, without the dots that stand in for SMTP's.
    pub content: Vec<u8>,
    pub accepted: bool,
}

impl Mail {
    /// As a mail program reads it.
    #[track_caller]
    pub fn parsed(&self) -> mail_parser::Message<'_> {
        MessageParser::default().parse(&self.content).expect("an e-mail")
    }
}

type Script = Box<dyn Fn(Asked<'_>) -> Option<&'static str> + Send + Sync>;

struct Shared {
    script: Script,
    asked: Mutex<HashMap<(Step, String), usize>>,
    mails: Mutex<Vec<Arc<Mail>>>,
}

pub struct MailServer {
    listener: Listener,
    shared: Arc<Shared>,
}

impl MailServer {
    pub fn accepting() -> Self {
        Self::answering(|_| None)
    }

    /// Asks the script about recipients and contents; what it has no answer to goes well.
    pub fn answering(script: impl Fn(Asked<'_>) -> Option<&'static str> + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { script: Box::new(script), asked: Mutex::default(), mails: Mutex::default() });
        let theirs = Arc::clone(&shared);
        let listener = Listener::start(move |stream| serve(stream, Arc::clone(&theirs)));
        Self { listener, shared }
    }

    /// A `[[delivery.providers]]` for e-mail.
    pub fn provider(&self) -> String {
        let password = PASSWORD.replace('+', "%2B");
        format!(
            "[[delivery.providers]]\nname = \"mail\"\nchannel = \"email\"\nkind = \"smtp\"\n\
             url = \"smtp://{USER}:{password}@{}\"\ntimeout_ms = 5000\n",
            self.listener.address
        )
    }

    /// What came, in its order, accepted or not.
    pub fn mails(&self) -> Vec<Arc<Mail>> {
        self.shared.mails.lock().expect("no panic").clone()
    }

    /// What came for an address.
    pub fn mails_to(&self, to: &str) -> Vec<Arc<Mail>> {
        self.mails().into_iter().filter(|mail| mail.to == to).collect()
    }

    /// How often this was asked about an address.
    pub fn asked(&self, step: Step, to: &str) -> usize {
        self.shared.asked.lock().expect("no panic").get(&(step, to.to_owned())).copied().unwrap_or_default()
    }
}

impl Shared {
    /// The test's answer, if it has one.
    fn answer(&self, step: Step, to: &str) -> Option<&'static str> {
        let mut asked = self.asked.lock().expect("no panic");
        let nth = asked.entry((step, to.to_owned())).or_default();
        *nth += 1;
        (self.script)(Asked { step, to, nth: *nth })
    }

    fn take(&self, from: String, to: String, content: Vec<u8>) -> String {
        let refusal = self.answer(Step::Content, &to);
        let mut mails = self.mails.lock().expect("no panic");
        mails.push(Arc::new(Mail { from, to, content, accepted: refusal.is_none() }));
        refusal.map_or_else(|| format!("250 2.0.0 queued as {}", mails.len()), str::to_owned)
    }
}

/// A connection, until its end.
async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    say(&mut stream, "220 mail.example ESMTP").await?;
    let (mut logged_in, mut from, mut to) = (false, None, None);
    loop {
        let line = String::from_utf8(read_line(&mut stream).await?).ok()?;
        let line = line.trim_end_matches("\r\n");
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-mail.example\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN".to_owned(),
            "AUTH" => {
                logged_in = line == format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{USER}\0{PASSWORD}")));
                let answer = if logged_in { "235 2.7.0 welcome" } else { "535 5.7.8 who is that" };
                answer.to_owned()
            }
            "MAIL" if !logged_in => "530 5.7.0 log in first".to_owned(),
            "MAIL" => {
                (from, to) = (path(line), None);
                "250 2.1.0 fine".to_owned()
            }
            "RCPT" if from.is_some() && to.is_none() => {
                let wanted = path(line)?;
                let refusal = shared.answer(Step::Recipient, &wanted);
                to = refusal.is_none().then_some(wanted);
                refusal.unwrap_or("250 2.1.5 fine").to_owned()
            }
            "DATA" => match (from.take(), to.take()) {
                (Some(from), Some(to)) => {
                    say(&mut stream, "354 go on").await?;
                    let content = read_content(&mut stream).await?;
                    shared.take(from, to, content)
                }
                _ => "503 5.5.1 to whom?".to_owned(),
            },
            "RSET" => {
                (from, to) = (None, None);
                "250 2.0.0 fine".to_owned()
            }
            "QUIT" => return say(&mut stream, "221 2.0.0 bye").await,
            _ => "503 5.5.1 not now".to_owned(),
        };
        say(&mut stream, &answer).await?;
    }
}

/// `a@b.example` of `MAIL FROM:<a@b.example> BODY=8BITMIME`.
fn path(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('<')?;
    rest.split_once('>').map(|(path, _)| path.to_owned())
}

/// Up to the line with nothing but a dot. Another line that begins with a dot was given one more (RFC 5321, 4.5.2).
async fn read_content(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line = read_line(stream).await?;
        if line == b".\r\n" {
            return Some(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

/// A line with its end.
async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let length = stream.read_until(b'\n', &mut line).await.ok()?;
    (length > 0).then_some(line)
}

async fn say(stream: &mut BufReader<TcpStream>, answer: &str) -> Option<()> {
    stream.get_mut().write_all(format!("{answer}\r\n").as_bytes()).await.ok()
}
