//! Blocking HTTP requests.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::runtime;

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    pub took: Duration,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text()))
    }
}

pub fn get(url: &str) -> Result<Answer, String> {
    send(reqwest::Method::GET, url, &[], "")
}

/// Without a body.
pub fn post(url: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    send(reqwest::Method::POST, url, headers, "")
}

pub fn post_text(url: &str, body: &str) -> Result<Answer, String> {
    send(reqwest::Method::POST, url, &[], body)
}

/// Each request has a connection of its own, so that an outage of one says nothing about the next.
pub fn send(method: reqwest::Method, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer, String> {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        let builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_secs(10));
        builder.build().expect("a client")
    });
    let began = Instant::now();
    let asked = async {
        let request = CLIENT.request(method, url).body(body.to_owned());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, response.bytes().await?.to_vec()))
    };
    let answered: Result<_, reqwest::Error> = runtime().block_on(asked);
    let (status, body) = answered.map_err(|error| format!("{url}: {error:?}"))?;
    Ok(Answer { status, body, took: began.elapsed() })
}
