//! HTTP with a provider's API: one client for each provider, what an answer holds, and what it means to get none.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::retry_after::{UNSAID, retry_after_or};
use super::{ProviderSettings, ProviderSetupError, excerpt, explain};
use crate::ports::provider::SendError;

const USER_AGENT: &str = concat!("notification-service/", env!("CARGO_PKG_VERSION"));
/// No connection takes longer to open, however much time the answer gets.
const LONGEST_CONNECT: Duration = Duration::from_secs(3);
/// How much of an answer is read: it only serves as a receipt or an explanation.
const ANSWER_BYTES: usize = 64 * 1024;
/// Shorter than what servers commonly keep idle connections for: a connection that the server closes just as it is
/// used again costs an unknown outcome. However many they are: no more are opened than sends are under way at once, and
/// those come in batches, so that a smaller number would be closed after each batch and opened again for the next.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);

/// Talks HTTP for one provider. It follows no redirection and uses no proxy.
#[derive(Clone)]
pub struct Exchange {
    client: Client,
}

impl Exchange {
    /// A client with the provider's time-out.
    ///
    /// # Errors
    /// A [`ProviderSetupError`] when TLS cannot be set up.
    pub fn new(settings: &ProviderSettings) -> Result<Self, ProviderSetupError> {
        // Connecting ends a little before the whole attempt does, so that a server that cannot be reached in time is
        // told apart from one that has the request and does not answer.
        let connect_timeout = LONGEST_CONNECT.min(settings.timeout.mul_f64(0.9));
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(settings.timeout)
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(IDLE_CONNECTION)
            .build()
            .map_err(|error| settings.at_fault("url", format!("cannot be used: {}", explain(&error.without_url()))))?;
        Ok(Self { client })
    }

    /// A POST to be completed.
    pub fn post(&self, url: Url) -> RequestBuilder {
        self.client.post(url)
    }

    /// Sends the request and reads its answer.
    ///
    /// # Errors
    /// `Transient` when it never left, `Unknown` when it may have arrived.
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer, SendError> {
        let response = request.send().await.map_err(|error| unanswered(&error.without_url()))?;
        Ok(Answer::read(response).await)
    }
}

/// What it means that there is no answer: only a request that never left is certain not to have been taken.
fn unanswered(error: &reqwest::Error) -> SendError {
    let reason = explain(error);
    if error.is_connect() || error.is_builder() {
        SendError::Transient(format!("not connected: {reason}"))
    } else if error.is_timeout() {
        SendError::Unknown(format!("no answer in time: {reason}"))
    } else {
        SendError::Unknown(format!("no answer that makes sense: {reason}"))
    }
}

/// A provider's answer.
pub struct Answer {
    pub status: StatusCode,
    /// The body, or as much of it as arrived and fits.
    pub body: Vec<u8>,
    /// False when it broke off or was too long.
    pub whole: bool,
    retry_after: Option<String>,
    location: Option<String>,
}

impl Answer {
    /// An answer that breaks off still has its status, and the status decides.
    async fn read(mut response: Response) -> Self {
        let status = response.status();
        let retry_after = header(response.headers(), RETRY_AFTER.as_str());
        let location = header(response.headers(), LOCATION.as_str());
        let (body, whole) = read_some(&mut response).await;
        Self { status, body, whole, retry_after, location }
    }

    /// The body as JSON, if it is that.
    pub fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Status and beginning of the body, for people.
    pub fn reason(&self) -> String {
        match excerpt(&String::from_utf8_lossy(&self.body)) {
            text if text.is_empty() => self.status.to_string(),
            text => format!("{}: {text}", self.status),
        }
    }

    /// That the provider wants to be left alone, for as long as it says or else half a minute.
    pub fn rate_limited(&self, reason: String) -> SendError {
        self.rate_limited_or(UNSAID, reason)
    }

    /// The same with another wait for an answer that does not say how long.
    pub fn rate_limited_or(&self, unsaid: Duration, reason: String) -> SendError {
        let retry_after = retry_after_or(unsaid, self.retry_after.as_deref(), Timestamp::now());
        SendError::RateLimited { retry_after, reason }
    }

    /// In words where a redirection leads. Only the host of the target: the rest of it may hold secrets.
    pub fn redirection(&self, from: &Url) -> String {
        let target = self.location.as_deref().and_then(|location| from.join(location).ok());
        match target.as_ref().and_then(Url::host_str) {
            Some(host) => format!("{}: redirected to `{}`, which is not followed", self.status, excerpt(host)),
            None => format!("{}: a redirection, which is not followed", self.status),
        }
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

async fn read_some(response: &mut Response) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = ANSWER_BYTES - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() >= room {
                    return (body, false);
                }
            }
            Ok(None) => return (body, true),
            Err(_) => return (body, false),
        }
    }
}

/// An http or https URL with a host.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub fn web_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err("must be an http or https URL with a host".into())
    }
}

/// Undoes the percent-encoding of a URL's user or password.
pub fn decoded(text: &str) -> String {
    // The form decoder gives these three a meaning that they do not have here.
    let escaped = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes()).next().map(|(key, _)| key.into_owned()).unwrap_or_default()
}
