//! The `http` provider: posts each notification as one JSON document and reads the decision from the status.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use serde_json::value::RawValue;

use super::exchange::{Answer, Exchange, web_url};
use super::webhook_signature::WebhookSigner;
use super::{ProviderSettings, ProviderSetupError, excerpt};
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// Posts notifications to one URL.
pub struct HttpProvider {
    exchange: Exchange,
    url: Url,
    signer: Option<WebhookSigner>,
}

impl HttpProvider {
    /// A provider for the settings' URL; nothing is sent yet.
    ///
    /// # Errors
    /// A [`ProviderSetupError`] for a URL that is not http(s) or a secret that is not a key.
    pub fn new(settings: &ProviderSettings) -> Result<Self, ProviderSetupError> {
        let url = web_url(&settings.url).map_err(|problem| settings.at_fault("url", problem))?;
        let signer = settings
            .secret
            .as_deref()
            .map(WebhookSigner::new)
            .transpose()
            .map_err(|problem| settings.at_fault("secret", problem))?;
        Ok(Self { exchange: Exchange::new(settings)?, url, signer })
    }

    /// Reads the decision from an answer.
    fn judge(&self, answer: &Answer) -> Result<Accepted, SendError> {
        let status = answer.status;
        if status.is_success() {
            return Ok(Accepted { receipt: receipt(&answer.body), ..Accepted::default() });
        }
        if status.is_redirection() {
            return Err(SendError::Permanent(answer.redirection(&self.url)));
        }
        let reason = answer.reason();
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => answer.rate_limited(reason),
            StatusCode::REQUEST_TIMEOUT => SendError::Transient(reason),
            _ if status.is_server_error() => SendError::Transient(reason),
            _ if status.is_client_error() => SendError::Permanent(reason),
            _ => SendError::Unknown(reason),
        })
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
            .exchange
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
        self.judge(&self.exchange.send(request.body(body)).await?)
    }
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
