//! The network between the service and its brokers: a toxiproxy, which can spoil it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::broker::Broker;
use crate::support::command::Process;
use crate::support::http_client;
use crate::support::servers::required;
use crate::support::service::free_port;
use crate::support::wait::{self, secs};

/// Kafka's request for metadata of no topics, version 1.
const QUESTION: &[u8] = b"\0\0\0\x0e\0\x03\0\x01\0\0\0\x07\xff\xff\0\0\0\0";

/// A way of spoiling connections.
#[derive(Debug, Clone, Copy)]
pub enum Toxic {
    /// Answers come so many milliseconds later.
    Latency(u64),
    /// Answers come with so many KB a second, on each connection.
    Bandwidth(u64),
    /// Requests do not arrive any more.
    LostRequests,
    /// Requests arrive and take effect; their answers do not come.
    LostAnswers,
    /// The connection is reset at its first answer.
    Reset,
}

/// One proxy for each broker.
pub struct Proxies {
    folder: PathBuf,
    process: Process,
    api: String,
    /// Where each listens, and where it leads.
    routes: Vec<(u16, u16)>,
}

impl Proxies {
    #[track_caller]
    pub fn start(folder: &Path, brokers: &[Broker]) -> Self {
        let routes = brokers.iter().map(|broker| (broker.advertised, broker.proxied)).collect();
        let (process, api) = spawn(folder);
        let proxies = Self { folder: folder.to_owned(), process, api, routes };
        proxies.open();
        proxies
    }

    fn open(&self) {
        let version = format!("{}/version", self.api);
        wait::until("toxiproxy answers", secs(20), || http_client::get(&version).ok());
        for (from, to) in &self.routes {
            let proxy = json!({"name": name(*from), "listen": local(*from), "upstream": local(*to), "enabled": true});
            self.post("/proxies", &proxy);
        }
    }

    /// The brokers' addresses as the service shall know them.
    pub fn addresses(&self) -> String {
        self.routes.iter().map(|(port, _)| local(*port)).collect::<Vec<_>>().join(",")
    }

    /// Spoils every connection.
    #[track_caller]
    pub fn spoil(&self, toxic: Toxic) {
        let (kind, stream, attributes) = match toxic {
            Toxic::Latency(ms) => ("latency", "downstream", json!({"latency": ms})),
            Toxic::Bandwidth(kb) => ("bandwidth", "downstream", json!({"rate": kb})),
            Toxic::LostRequests => ("timeout", "upstream", json!({"timeout": 0})),
            Toxic::LostAnswers => ("timeout", "downstream", json!({"timeout": 0})),
            Toxic::Reset => ("reset_peer", "downstream", json!({"timeout": 0})),
        };
        let toxic = json!({"name": kind, "type": kind, "stream": stream, "attributes": attributes});
        for (port, _) in &self.routes {
            self.post(&format!("/proxies/{}/toxics", name(*port)), &toxic);
        }
    }

    /// Takes everything back. A toxiproxy that hangs over it, as it does when connections end at the wrong moment, is
    /// started anew, which resets the connections.
    #[track_caller]
    pub fn heal(&mut self) {
        if let Err(error) = http_client::post_text(&format!("{}/reset", self.api), "") {
            eprintln!("toxiproxy is started anew: {error}");
            self.process.kill();
            (self.process, self.api) = spawn(&self.folder);
            self.open();
        }
    }

    /// Asks a broker something through its proxy; how long the answer took.
    pub fn round_trip(&self, victim: usize) -> io::Result<Duration> {
        let began = Instant::now();
        let mut connection = TcpStream::connect(local(self.routes[victim % self.routes.len()].0))?;
        connection.set_read_timeout(Some(secs(5)))?;
        connection.write_all(QUESTION)?;
        connection.read_exact(&mut [0; 4])?;
        Ok(began.elapsed())
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) {
        let answer = http_client::post_text(&format!("{}{path}", self.api), &body.to_string());
        let answer = answer.unwrap_or_else(|error| panic!("toxiproxy: {error}"));
        assert!(answer.status < 300, "toxiproxy {path}: {} {}", answer.status, answer.text());
    }
}

fn spawn(folder: &Path) -> (Process, String) {
    let port = free_port();
    let mut command = Command::new(required("TEST_TOXIPROXY"));
    command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
    let file = |kind: &str| folder.join(format!("toxiproxy-{port}.{kind}"));
    (Process::spawn(command, file("log"), file("stderr")), format!("http://127.0.0.1:{port}"))
}

fn name(port: u16) -> String {
    format!("broker-at-{port}")
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
