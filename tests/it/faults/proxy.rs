//! The network between the service and its brokers: a toxiproxy, which can spoil it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
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
    _process: Process,
    api: String,
    ports: Vec<u16>,
}

impl Proxies {
    #[track_caller]
    pub fn start(folder: &Path, brokers: &[Broker]) -> Self {
        let port = free_port();
        let mut command = Command::new(required("TEST_TOXIPROXY"));
        command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
        let file = |kind: &str| folder.join(format!("toxiproxy.{kind}"));
        let process = Process::spawn(command, file("log"), file("stderr"));
        let ports = brokers.iter().map(|broker| broker.advertised).collect();
        let proxies = Self { _process: process, api: format!("http://127.0.0.1:{port}"), ports };
        let version = format!("{}/version", proxies.api);
        wait::until("toxiproxy answers", secs(20), || http_client::get(&version).ok());
        for broker in brokers {
            let (from, to) = (broker.advertised, broker.proxied);
            let proxy = json!({"name": name(from), "listen": local(from), "upstream": local(to), "enabled": true});
            proxies.post("/proxies", &proxy);
        }
        proxies
    }

    /// The brokers' addresses as the service shall know them.
    pub fn addresses(&self) -> String {
        self.ports.iter().map(|port| local(*port)).collect::<Vec<_>>().join(",")
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
        for port in &self.ports {
            self.post(&format!("/proxies/{}/toxics", name(*port)), &toxic);
        }
    }

    /// Takes everything back.
    #[track_caller]
    pub fn heal(&self) {
        self.post("/reset", &Value::Null);
    }

    /// Asks a broker something through its proxy; how long the answer took.
    pub fn round_trip(&self, victim: usize) -> io::Result<Duration> {
        let began = Instant::now();
        let mut connection = TcpStream::connect(local(self.ports[victim % self.ports.len()]))?;
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

fn name(port: u16) -> String {
    format!("broker-at-{port}")
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
