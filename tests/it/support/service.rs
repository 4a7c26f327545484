//! The service as a running process.

use std::fs;
use std::net::TcpListener;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::command::{Invocation, Process};
use super::http_client::{self, Answer};
use super::metrics_text::Metrics;
use super::wait::{self, secs};

/// Bytes of memory; the contract's bound.
pub const MOST_RESIDENT: u64 = 300_000_000;

pub struct Service {
    process: Process,
    base: String,
}

impl Service {
    /// Starts `serve` on a port of its own and does not wait for anything.
    pub fn spawn(serve: Invocation) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let process = serve.env("HTTP_ADDRESS", &address).env("RUST_LOG", "info").spawn();
        Self { process, base: format!("http://{address}") }
    }

    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        wait::until("the service is ready", secs(60), || {
            assert!(self.is_running(), "the service ended while starting");
            self.try_get("/health/ready").ok().filter(|answer| answer.status == 200).map(drop)
        });
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Bytes of memory that it has.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kilobytes * 1024
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    pub fn try_get(&self, path: &str) -> Result<Answer, String> {
        http_client::get(&format!("{}{path}", self.base))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    pub fn post(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        http_client::post(&format!("{}{path}", self.base), headers).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let method = method.parse().expect("a method");
        let answer = http_client::send(method, &format!("{}{path}", self.base), headers, body);
        answer.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Asks for a notification over the API; returns its id.
    #[track_caller]
    pub fn submit(&self, request: &Value) -> String {
        let answer = self.send("POST", "/api/v1/notifications", &[], &request.to_string());
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Puts something that the API takes.
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) {
        let answer = self.send("PUT", path, &[], &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").text())
    }

    /// A notification by its id; `None` while it is not known.
    #[track_caller]
    pub fn notification(&self, id: &str) -> Option<Value> {
        let answer = self.get(&format!("/api/v1/notifications/{id}"));
        assert!(matches!(answer.status, 200 | 404), "{}: {}", answer.status, answer.text());
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until a notification is in this state.
    #[track_caller]
    pub fn wait_for_state(&self, id: &str, state: &str, within: Duration) -> Value {
        let mut last = None;
        let found = wait::until_or_end(within, || {
            last = self.notification(id);
            last.clone().filter(|notification| notification["state"] == state)
        });
        found.unwrap_or_else(|| panic!("{id} is not {state} within {within:?}: {last:?}"))
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// SIGKILL.
    pub fn kill(mut self) -> ExitStatus {
        self.process.kill()
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        self.process.wait(within).unwrap_or_else(|| panic!("the service still runs after {within:?}"))
    }

    pub fn log(&self) -> String {
        self.process.standard_error()
    }
}

/// Outcomes of a notification's attempts, in their order.
pub fn outcomes(notification: &Value) -> Vec<&str> {
    attempts(notification, "outcome")
}

/// A text of each attempt, in their order.
#[track_caller]
pub fn attempts<'a>(notification: &'a Value, field: &str) -> Vec<&'a str> {
    let attempts = notification["attempts"].as_array().unwrap_or_else(|| panic!("no attempts: {notification}"));
    assert!(attempts.iter().zip(1..).all(|(attempt, number)| attempt["number"] == number), "{notification}");
    attempts.iter().map(|attempt| attempt[field].as_str().unwrap_or_default()).collect()
}

/// A port below the range that outgoing connections use.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 9000) as u16;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed) % 9000) % 9000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
