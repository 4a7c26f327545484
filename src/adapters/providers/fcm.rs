//! The `fcm` provider: push notifications through the HTTP v1 API of Firebase Cloud Messaging.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::exchange::{Exchange, web_url};
use super::fcm_answer::{self, Verdict};
use super::fcm_token::{ServiceAccount, Tokens};
use super::{ProviderSettings, ProviderSetupError};
use crate::domain::bytes::hex;
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// Google's limit for what an app gets, in bytes.
const PAYLOAD_BYTES: usize = 4096;
/// Requests for the devices of one recipient that are under way at once.
const AT_ONCE: usize = 8;
/// Devices of one recipient that are tried; nobody has more.
const MOST_DEVICES: usize = 100;

/// Sends to the apps of one Firebase project.
pub struct FcmProvider {
    exchange: Exchange,
    endpoint: Url,
    tokens: Tokens,
    timeout: Duration,
}

impl FcmProvider {
    /// A provider for the project of the service account; nothing is sent yet.
    ///
    /// # Errors
    /// A [`ProviderSetupError`] for a URL that is not http(s) or a file that holds no service account.
    pub fn new(settings: &ProviderSettings) -> Result<Self, ProviderSetupError> {
        let mut endpoint = web_url(&settings.url).map_err(|problem| settings.at_fault("url", problem))?;
        let file = settings.credentials_file.as_deref();
        let file = file.ok_or_else(|| settings.at_fault("credentials_file", "is missing"))?;
        let account = ServiceAccount::read(file).map_err(|problem| settings.at_fault("credentials_file", problem))?;
        endpoint.set_query(None);
        endpoint
            .path_segments_mut()
            .map_err(|()| settings.at_fault("url", "cannot be extended by a path"))?
            .pop_if_empty()
            .extend(["v1", "projects", &account.project, "messages:send"]);
        let exchange = Exchange::new(settings)?;
        let tokens = Tokens::new(account, exchange.clone());
        Ok(Self { exchange, endpoint, tokens, timeout: settings.timeout })
    }

    /// Sends to one device.
    async fn send_to(&self, token: &str, payload: &Value, deadline: Instant) -> Verdict {
        // As long as the request has not left, running out of time is certain to have sent nothing.
        let access = match timeout_at(deadline, self.tokens.token()).await {
            Ok(Ok(access)) => access,
            Ok(Err(error)) => return Verdict::Failed(error),
            Err(_) => return Verdict::Failed(SendError::Transient("no access token in time".into())),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Verdict::Failed(SendError::Transient("no time was left for this device".into()));
        }
        let mut body = payload.clone();
        body["message"]["token"] = Value::from(token);
        let request = self
            .exchange
            .post(self.endpoint.clone())
            .bearer_auth(&access)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .timeout(left)
            .body(body.to_string());
        match self.exchange.send(request).await {
            Ok(answer) => {
                if fcm_answer::refuses_token(&answer) {
                    self.tokens.refused(&access);
                }
                fcm_answer::judge(&answer, &self.endpoint)
            }
            Err(error) => Verdict::Failed(error),
        }
    }
}

#[async_trait]
impl Provider for FcmProvider {
    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        let devices = devices(message);
        if devices.is_empty() {
            return Err(SendError::Permanent("the recipient has no device".into()));
        }
        let payload = payload(message);
        let size = size(&payload);
        if size > PAYLOAD_BYTES {
            let reason = format!("the notification has {size} bytes, a push message has at most {PAYLOAD_BYTES}");
            return Err(SendError::Permanent(reason));
        }
        let deadline = Instant::now() + self.timeout;
        let verdicts: Vec<(String, Verdict)> = stream::iter(devices)
            .map(|token| {
                let payload = &payload;
                async move {
                    let verdict = self.send_to(&token, payload, deadline).await;
                    (token, verdict)
                }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        fcm_answer::combine(verdicts)
    }
}

/// Each device once; the address alone where the devices are not known.
fn devices(message: &Message) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let alone = message.to.as_ref().filter(|_| message.devices.is_empty());
    let known = message.devices.iter().map(|device| &device.token).chain(alone);
    for token in known.filter(|token| !token.is_empty()) {
        if tokens.len() < MOST_DEVICES && !tokens.contains(token) {
            tokens.push(token.clone());
        }
    }
    tokens
}

/// The request without the device. A repetition has the same keys, by which a device replaces what it shows.
fn payload(message: &Message) -> Value {
    let key = collapse_key(&message.id);
    json!({"message": {
        "notification": {"title": message.subject.as_deref().unwrap_or_default(), "body": message.body},
        // Values have to be texts: the variables are one JSON text.
        "data": {
            "notificationId": message.id,
            "template": message.template,
            "category": message.category,
            "variables": message.data.get(),
        },
        "android": {"collapse_key": key, "notification": {"tag": key}},
        "apns": {"headers": {"apns-collapse-id": key}},
        "webpush": {"headers": {"Topic": key}},
    }})
}

/// 32 characters of the alphabet that all three services take: Web Push allows no more of them (RFC 8030, 5.4).
fn collapse_key(id: &str) -> String {
    hex(&Sha256::digest(id.as_bytes())[..16])
}

/// Keys and values of what reaches the app, in bytes.
fn size(payload: &Value) -> usize {
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    let parts = ["notification", "data"].into_iter().filter_map(|part| payload["message"][part].as_object());
    parts.flatten().map(|(key, value)| key.len() + text(value)).sum()
}
