//! What the providers' tests share: a message, settings, a small HTTP server that answers by script, inboxes in memory.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};

use super::{ProviderKind, ProviderSettings};
use crate::domain::channel::Channel;
use crate::ports::inbox::{Entry, Inbox, NewEntry};
use crate::ports::ledger::LedgerError;
use crate::ports::provider::Message;

pub const ID: &str = "0b9f6f0e-7a36-5b1c-9d0a-2f6f3c1f9b11";

pub fn settings(kind: ProviderKind, url: &str) -> ProviderSettings {
    ProviderSettings {
        name: "mail".into(),
        kind,
        url: url.into(),
        timeout: Duration::from_secs(10),
        secret: None,
        reports: None,
        email_from: "Müllers Läden <no-reply@example.com>".into(),
        from: Some("+15550100999".into()),
        status_callback_url: None,
        credentials_file: None,
        dkim: None,
    }
}

pub fn message(channel: Channel, to: Option<&str>) -> Message {
    Message {
        id: ID.into(),
        channel,
        recipient: Some("customer-789".into()),
        to: to.map(str::to_owned),
        subject: Some("Your order".into()),
        body: "Hello Ann\n.\n..two\n".into(),
        html: None,
        template: "order_confirmation".into(),
        category: "transactional".into(),
        data: RawValue::from_string(r#"{"amount":1e3}"#.into()).expect("json"),
        devices: Vec::new(),
        unsubscribe_url: None,
        attempt: 2,
    }
}

/// One key for all tests: it takes long to make.
pub fn rsa_key() -> PKey<Private> {
    static KEY: std::sync::OnceLock<PKey<Private>> = std::sync::OnceLock::new();
    let make = || PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    KEY.get_or_init(make).clone()
}

/// The file of a service account, as Google's console writes it.
pub fn service_account(folder: &Path, token_uri: &str) -> PathBuf {
    let key = rsa_key().private_key_to_pem_pkcs8().expect("pem");
    let account = serde_json::json!({
        "type": "service_account",
        "project_id": "shop-1",
        "private_key_id": "k1",
        "private_key": String::from_utf8(key).expect("pem"),
        "client_email": "push@shop-1.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    });
    let path = folder.join("account.json");
    std::fs::write(&path, account.to_string()).expect("written");
    path
}

/// What the server does once it has read a request.
#[derive(Clone)]
pub enum Then {
    Answer(String),
    /// Sends this and closes the connection.
    Break(String),
    Hang,
}

pub fn answer(status: &str, headers: &str, body: &str) -> Then {
    Then::Answer(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

pub struct Request {
    pub connection: usize,
    pub line: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The fields of a form, in their order.
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// Answers every request by a rule.
pub struct Server {
    pub address: SocketAddr,
    pub requests: mpsc::UnboundedReceiver<Request>,
}

type Rule = Arc<dyn Fn(&Request) -> Then + Send + Sync>;

impl Server {
    /// Answers in this order, and then no more.
    pub async fn start(script: impl IntoIterator<Item = Then>) -> Self {
        let script = Mutex::new(script.into_iter().collect::<VecDeque<_>>());
        Self::by_rule(move |_| script.lock().expect("script").pop_front().unwrap_or(Then::Hang)).await
    }

    pub async fn by_rule(rule: impl Fn(&Request) -> Then + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let rule: Rule = Arc::new(rule);
        let (seen, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, connection, Arc::clone(&rule), seen.clone()));
                connection += 1;
            }
        });
        Self { address, requests }
    }

    pub fn request(&mut self) -> Request {
        self.requests.try_recv().expect("a request")
    }

    /// All requests since the last look.
    pub fn all(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).collect()
    }
}

/// An address that refuses connections.
pub async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

async fn serve(mut stream: TcpStream, connection: usize, rule: Rule, seen: mpsc::UnboundedSender<Request>) {
    while let Some(request) = read_request(&mut stream, connection).await {
        let then = rule(&request);
        let _ = seen.send(request);
        match then {
            // The client may have gone away meanwhile.
            Then::Answer(text) => drop(stream.write_all(text.as_bytes()).await),
            Then::Break(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                return;
            }
            Then::Hang => std::future::pending().await,
        }
    }
}

async fn read_request(stream: &mut TcpStream, connection: usize) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let mut lines = head.lines();
            let line = lines.next()?.to_owned();
            let headers: HashMap<_, _> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers.get("content-length")?.parse().ok()?;
            if bytes.len() >= end + 4 + length {
                return Some(Request { connection, line, headers, body: bytes[end + 4..].to_vec() });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Inboxes in memory; told to fail, they do.
pub struct MemoryInbox {
    pub entries: Mutex<Vec<NewEntry>>,
    pub failure: Mutex<Option<LedgerError>>,
    changes: broadcast::Sender<String>,
}

impl Default for MemoryInbox {
    fn default() -> Self {
        Self { entries: Mutex::default(), failure: Mutex::default(), changes: broadcast::Sender::new(16) }
    }
}

#[async_trait]
impl Inbox for MemoryInbox {
    async fn put(&self, entry: NewEntry) -> Result<(), LedgerError> {
        if let Some(failure) = self.failure.lock().expect("failure").clone() {
            return Err(failure);
        }
        let mut entries = self.entries.lock().expect("entries");
        if !entries.iter().any(|known| known.id == entry.id) {
            let _ = self.changes.send(entry.recipient.clone());
            entries.push(entry);
        }
        Ok(())
    }

    async fn entries(&self, _: &str, _: Option<i64>, _: usize) -> Result<Vec<Entry>, LedgerError> {
        Ok(Vec::new())
    }

    async fn unread(&self, recipient: &str) -> Result<u64, LedgerError> {
        let entries = self.entries.lock().expect("entries");
        Ok(entries.iter().filter(|entry| entry.recipient == recipient).count() as u64)
    }

    async fn mark_read(&self, _: &str, _: Option<&str>) -> Result<u64, LedgerError> {
        Ok(0)
    }

    fn changes(&self) -> broadcast::Receiver<String> {
        self.changes.subscribe()
    }
}
