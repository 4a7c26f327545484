//! A provider's HTTP server on loopback, on a thread of its own: keeps connections, takes every POST, gives it an id.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::machine::progress;
use crate::sinks::Acceptances;

/// When an answer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    AtOnce,
    /// After a time that is uniform between nothing and this.
    Within(Duration),
}

pub struct Server {
    port: u16,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(answers: Answers, accepted: Arc<Acceptances>) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("provider".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    ended = serve(listener, answers, accepted) => {
                        if let Err(error) = ended {
                            progress(&format!("the provider's server ended: {error:#}"));
                        }
                    }
                }
            });
        })?;
        Ok(Self { port, stop, thread: Some(thread) })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/send", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, answers: Answers, accepted: Arc<Acceptances>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let delays = Arc::new(Delays::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let (accepted, delays) = (Arc::clone(&accepted), Arc::clone(&delays));
        tokio::spawn(async move {
            if let Err(error) = converse(stream, answers, &accepted, &delays).await {
                progress(&format!("a connection of the provider's server ended: {error:#}"));
            }
        });
    }
}

/// The same uniform times in every run.
#[derive(Default)]
struct Delays(AtomicU64);

impl Delays {
    fn next(&self, most: Duration) -> Duration {
        // SplitMix64 of a counter.
        let mut z = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        most.mul_f64(((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64)
    }
}

async fn converse(mut stream: TcpStream, answers: Answers, accepted: &Acceptances, delays: &Delays) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let Some(request) = read_request(&mut stream, &mut buffer).await? else { return Ok(()) };
        if let Answers::Within(most) = answers {
            tokio::time::sleep(delays.next(most)).await;
        }
        accepted.add(&request.id, request.order)?;
        let body = format!(r#"{{"id":"r-{}"}}"#, request.order);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    }
}

struct Request {
    id: String,
    /// The order that the notification is about, by its data.
    order: u64,
}

/// The next request; `None` when the client has closed between two of them.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Request>> {
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end])?;
            let length: usize = header(head, "content-length").context("no content-length")?.parse()?;
            let id = header(head, "idempotency-key").context("no idempotency-key")?.to_owned();
            let whole = end + 4 + length;
            if buffer.len() >= whole {
                let order = order_of(&buffer[end + 4..whole])?;
                buffer.drain(..whole);
                return Ok(Some(Request { id, order }));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(anyhow!("the client closed amid a request")) };
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Without parsing the whole of it: the server must not be what is measured.
fn order_of(body: &[u8]) -> Result<u64> {
    let key = br#""orderId":""#;
    let start = find(body, key).context("no order in the notification's data")? + key.len();
    let digits = body[start..].iter().take_while(|byte| byte.is_ascii_digit());
    Ok(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
