//! A provider of the kind `http` that answers as the test says and remembers all that it was sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::listener::Listener;
use super::wait;

/// What the provider does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// 200 with a receipt.
    Accept,
    /// This status, with no more words.
    Status(u16),
    /// 429 with `Retry-After` in seconds.
    RetryAfter(u64),
    /// Never.
    Hang,
    /// These bytes, HTTP or not, and the end of the connection; it may have taken the notification all the same.
    Broken { bytes: &'static str, taken: bool },
    /// Thinks first.
    After(Duration, Box<Answer>),
}

/// A request as it arrived.
#[derive(Debug)]
pub struct Arrival {
    pub at: Instant,
    /// `/email` of `POST /email`.
    pub path: String,
    /// The `Idempotency-Key`.
    pub key: String,
    /// Counts the requests of this key, from 1.
    pub nth: usize,
    pub body: Vec<u8>,
    /// Whether the provider takes it (it does so on arrival, whoever is there to hear the answer).
    pub accepted: bool,
}

/// The posted document.
#[derive(Debug, Deserialize)]
pub struct Document {
    pub id: String,
    pub channel: String,
    // Null where there is none, and never left out.
    #[serde(deserialize_with = "Option::deserialize")]
    pub recipient: Option<String>,
    #[serde(deserialize_with = "Option::deserialize")]
    pub to: Option<String>,
    pub body: String,
    pub template: String,
    pub data: Box<RawValue>,
    pub attempt: u32,
}

impl Arrival {
    #[track_caller]
    pub fn document(&self) -> Document {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no notification ({e}): {}", String::from_utf8_lossy(&self.body)))
    }
}

type Script = Box<dyn Fn(&Arrival) -> Answer + Send + Sync>;

#[derive(Default)]
struct Memory {
    arrivals: Vec<Arc<Arrival>>,
    /// Requests of each key.
    requests: HashMap<String, usize>,
    accepted: HashSet<String>,
}

struct Shared {
    script: Script,
    memory: Mutex<Memory>,
}

pub struct FakeProvider {
    listener: Listener,
    shared: Arc<Shared>,
}

impl FakeProvider {
    pub fn accepting() -> Self {
        Self::answering(|_| Answer::Accept)
    }

    /// Asks the script about each arrival (whose `accepted` is not known yet).
    pub fn answering(script: impl Fn(&Arrival) -> Answer + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { script: Box::new(script), memory: Mutex::default() });
        let theirs = Arc::clone(&shared);
        let listener = Listener::start(move |stream| serve(stream, Arc::clone(&theirs)));
        Self { listener, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// A `[[delivery.providers]]` with this name, which is also its path.
    pub fn named(&self, name: &str, channel: &str, timeout: Duration) -> String {
        format!(
            "[[delivery.providers]]\nname = \"{name}\"\nchannel = \"{channel}\"\nkind = \"http\"\n\
             url = \"http://{}/{name}\"\ntimeout_ms = {}\n",
            self.listener.address,
            timeout.as_millis()
        )
    }

    /// Two for e-mail, `first` and `second`.
    pub fn first_and_second(&self, timeout: Duration) -> String {
        ["first", "second"].map(|name| self.named(name, "email", timeout)).concat()
    }

    /// The same for text messages over Twilio's API.
    pub fn twilio(&self, name: &str) -> String {
        let url = format!("http://AC1:token@{}/{name}", self.listener.address);
        format!(
            "[[delivery.providers]]\nname = \"{name}\"\nchannel = \"sms\"\nkind = \"twilio\"\nurl = \"{url}\"\n\
             from = \"+15550100000\"\ntimeout_ms = 1000\n"
        )
    }

    /// One for each channel.
    pub fn for_all_channels(&self, timeout: Duration) -> String {
        let channels = ["email", "sms", "push", "webhook", "in_app", "admin_alert"];
        channels.map(|channel| self.named(channel, channel, timeout)).concat()
    }

    /// All requests in their order.
    pub fn arrivals(&self) -> Vec<Arc<Arrival>> {
        self.shared.memory.lock().expect("no panic").arrivals.clone()
    }

    /// The requests of one notification.
    pub fn arrivals_of(&self, id: &str) -> Vec<Arc<Arrival>> {
        self.arrivals().into_iter().filter(|arrival| arrival.key == id).collect()
    }

    /// What was accepted, by idempotency key.
    pub fn accepted(&self) -> BTreeMap<String, Vec<Arc<Arrival>>> {
        let mut accepted: BTreeMap<String, Vec<Arc<Arrival>>> = BTreeMap::new();
        for arrival in self.arrivals().into_iter().filter(|arrival| arrival.accepted) {
            accepted.entry(arrival.key.clone()).or_default().push(arrival);
        }
        accepted
    }

    /// How many different notifications were accepted.
    pub fn accepted_count(&self) -> usize {
        self.shared.memory.lock().expect("no panic").accepted.len()
    }

    /// Waits until so many different notifications are accepted.
    #[track_caller]
    pub fn wait_for_accepted(&self, count: usize, within: Duration) {
        let enough = wait::until_or_end(within, || (self.accepted_count() >= count).then_some(()));
        assert!(enough.is_some(), "{} of {count} notifications accepted within {within:?}", self.accepted_count());
    }

    /// Waits for the nth request of a notification.
    #[track_caller]
    pub fn wait_for_arrival(&self, id: &str, nth: usize, within: Duration) -> Arc<Arrival> {
        let what = format!("request {nth} for {id}");
        wait::until(&what, within, || self.arrivals_of(id).into_iter().find(|arrival| arrival.nth == nth))
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut received = Vec::new();
    while let Some(arrival) = read_request(&mut stream, &mut received).await {
        let answer = remember(arrival, &shared);
        let Some((text, goes_on)) = self::answer(answer).await else { return std::future::pending().await };
        if stream.write_all(text.as_bytes()).await.is_err() || !goes_on {
            return;
        }
    }
}

fn remember(mut arrival: Arrival, shared: &Shared) -> Answer {
    let mut memory = shared.memory.lock().expect("no panic");
    let requests = memory.requests.entry(arrival.key.clone()).or_default();
    *requests += 1;
    arrival.nth = *requests;
    let answer = (shared.script)(&arrival);
    arrival.accepted = accepts(&answer);
    if arrival.accepted {
        memory.accepted.insert(arrival.key.clone());
    }
    memory.arrivals.push(Arc::new(arrival));
    answer
}

fn accepts(answer: &Answer) -> bool {
    match answer {
        Answer::Accept => true,
        Answer::After(_, then) => accepts(then),
        Answer::Broken { taken, .. } => *taken,
        Answer::Status(_) | Answer::RetryAfter(_) | Answer::Hang => false,
    }
}

/// What it says, and whether the connection goes on.
async fn answer(answer: Answer) -> Option<(String, bool)> {
    let (status, headers, body) = match answer {
        Answer::Accept => (200, String::new(), format!("{{\"id\":\"receipt-{}\"}}", super::unique())),
        Answer::Status(status) => (status, String::new(), String::new()),
        Answer::RetryAfter(seconds) => (429, format!("Retry-After: {seconds}\r\n"), String::new()),
        Answer::Hang => return None,
        Answer::Broken { bytes, .. } => return Some((bytes.to_owned(), false)),
        Answer::After(time, then) => {
            tokio::time::sleep(time).await;
            return Box::pin(self::answer(*then)).await;
        }
    };
    let head = format!("HTTP/1.1 {status} As Told\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    Some((head + &body, true))
}

async fn read_request(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<Arrival> {
    loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).into_owned();
            let header = |name: &str| {
                let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
                fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()).next()
            };
            let whole = end + 4 + header("content-length")?.parse::<usize>().ok()?;
            if received.len() >= whole {
                let body = received[end + 4..whole].to_vec();
                received.drain(..whole);
                let path = head.split(' ').nth(1)?.to_owned();
                let key = header("idempotency-key").unwrap_or_default();
                return Some(Arrival { at: Instant::now(), path, key, nth: 0, body, accepted: false });
            }
        }
        if stream.read_buf(received).await.ok()? == 0 {
            return None;
        }
    }
}
