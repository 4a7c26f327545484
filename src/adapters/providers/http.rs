//! The `http` provider: posts each notification as one JSON document and reads the decision from the status.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde_json::value::RawValue;

use super::retry_after::retry_after;
use super::webhook_signature::WebhookSigner;
use super::{ProviderSettings, ProviderSetupError, excerpt, explain};
use crate::ports::provider::{Accepted, Message, Provider, SendError};

const USER_AGENT: &str = concat!("notification-service/", env!("CARGO_PKG_VERSION"));
/// No connection takes longer to open, however much time the answer gets.
const LONGEST_CONNECT: Duration = Duration::from_secs(3);
/// How much of an answer is read: it only serves as a receipt or an explanation.
const ANSWER_BYTES: usize = 64 * 1024;
/// Shorter than what servers commonly keep idle connections for: a connection that the server closes just as it is
/// used again costs an unknown outcome.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);
const IDLE_CONNECTIONS: usize = 32;

/// Posts notifications to one URL.
pub struct HttpProvider {
    client: Client,
    url: Url,
    signer: Option<WebhookSigner>,
}

impl HttpProvider {
    /// A provider for the settings' URL; nothing is sent yet.
    ///
    /// # Errors
    /// A [`ProviderSetupError`] for a URL that is not http(s) or a secret that is not a key.
    pub fn new(settings: &ProviderSettings) -> Result<Self, ProviderSetupError> {
        let url =
            Url::parse(&settings.url).map_err(|error| settings.at_fault("url", format!("is not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(settings.at_fault("url", "must be an http or https URL with a host"));
        }
        let signer = settings
            .secret
            .as_deref()
            .map(WebhookSigner::new)
            .transpose()
            .map_err(|problem| settings.at_fault("secret", problem))?;
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
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build()
            .map_err(|error| settings.at_fault("url", format!("cannot be used: {}", explain(&error.without_url()))))?;
        Ok(Self { client, url, signer })
    }

    /// Reads the decision from an answer.
    async fn judge(&self, mut response: Response) -> Result<Accepted, SendError> {
        let status = response.status();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // An answer that breaks off still has its status, and the status decides.
        let body = read_some(&mut response).await;
        if status.is_success() {
            return Ok(Accepted { receipt: receipt(&body), ..Accepted::default() });
        }
        if status.is_redirection() {
            return Err(SendError::Permanent(self.redirected(status, target.as_deref())));
        }
        let reason = match excerpt(&String::from_utf8_lossy(&body)) {
            text if text.is_empty() => status.to_string(),
            text => format!("{status}: {text}"),
        };
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => {
                SendError::RateLimited { retry_after: retry_after(wait.as_deref(), Timestamp::now()), reason }
            }
            StatusCode::REQUEST_TIMEOUT => SendError::Transient(reason),
            _ if status.is_server_error() => SendError::Transient(reason),
            _ if status.is_client_error() => SendError::Permanent(reason),
            _ => SendError::Unknown(reason),
        })
    }

    /// Only the host of the target: the rest of it may hold secrets.
    fn redirected(&self, status: StatusCode, target: Option<&str>) -> String {
        let target = target.and_then(|location| self.url.join(location).ok());
        match target.as_ref().and_then(Url::host_str) {
            Some(host) => format!("{status}: redirected to `{}`, which is not followed", excerpt(host)),
            None => format!("{status}: a redirection, which is not followed"),
        }
    }
}

#[async_trait]
impl Provider for HttpProvider {
    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        let body = serde_json::to_vec(message)
            .map_err(|error| SendError::Permanent(format!("the notification cannot be written as JSON: {error}")))?;
        let id = HeaderValue::from_bytes(message.id.as_bytes())
            .map_err(|_| SendError::Permanent("the notification's id cannot be sent in a header".into()))?;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("idempotency-key", id.clone());
        if let Some(signer) = &self.signer {
            let timestamp = Timestamp::now().as_second();
            request = request
                .header("webhook-id", id)
                .header("webhook-timestamp", timestamp.to_string())
                .header("webhook-signature", signer.sign(&message.id, timestamp, &body));
        }
        let response = request.body(body).send().await.map_err(|error| unanswered(error.without_url()))?;
        self.judge(response).await
    }
}

/// What it means that there is no answer: only a request that never left is certain not to have been taken.
fn unanswered(error: reqwest::Error) -> SendError {
    let reason = explain(&error);
    if error.is_connect() || error.is_builder() {
        SendError::Transient(format!("not connected: {reason}"))
    } else if error.is_timeout() {
        SendError::Unknown(format!("no answer in time: {reason}"))
    } else {
        SendError::Unknown(format!("no answer that makes sense: {reason}"))
    }
}

/// The beginning of the body, or as much of it as arrives.
async fn read_some(response: &mut Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_BYTES.saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == ANSWER_BYTES {
            break;
        }
    }
    body
}

/// The `id` of a JSON object, when it is a string or a number; numbers keep their digits.
fn receipt(body: &[u8]) -> Option<String> {
    let answer: HashMap<String, Box<RawValue>> = serde_json::from_slice(body).ok()?;
    let id = answer.get("id")?.get();
    let id = match id.as_bytes().first()? {
        b'"' => excerpt(&serde_json::from_str::<String>(id).ok()?),
        b'-' | b'0'..=b'9' => excerpt(id),
        _ => return None,
    };
    (!id.is_empty()).then_some(id)
}
