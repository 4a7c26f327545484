//! The `twilio` provider: SMS over Twilio's Messages API, or over one that is compatible with it.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::exchange::{Answer, Exchange, decoded, web_url};
use super::{ProviderSettings, ProviderSetupError, excerpt};
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// The longest text that Twilio takes, in characters.
const LONGEST_TEXT: usize = 1600;
/// Twilio holds four hours' worth of a sender's messages; a full queue does not empty in seconds.
const QUEUE_FULL_WAIT: Duration = Duration::from_secs(60);
/// A daily limit is over at midnight somewhere; to ask once an hour is enough.
const DAILY_LIMIT_WAIT: Duration = Duration::from_secs(3600);

/// Names the notification in the URL that Twilio calls back.
pub(super) const NOTIFICATION_PARAMETER: &str = "notification";

/// Sends SMS for one account.
pub struct TwilioProvider {
    exchange: Exchange,
    endpoint: Url,
    user: String,
    password: String,
    from: String,
    status_callback_url: Option<Url>,
}

impl TwilioProvider {
    /// A provider for the account in the settings' URL; nothing is sent yet.
    ///
    /// # Errors
    /// A [`ProviderSetupError`] for a URL without credentials, or no sender.
    pub fn new(settings: &ProviderSettings) -> Result<Self, ProviderSetupError> {
        let mut endpoint = web_url(&settings.url).map_err(|problem| settings.at_fault("url", problem))?;
        let user = decoded(endpoint.username());
        let password = decoded(endpoint.password().unwrap_or_default());
        let unusable = || settings.at_fault("url", "must be like https://ACCOUNT_SID:AUTH_TOKEN@api.twilio.com");
        if user.is_empty() || password.is_empty() {
            return Err(unusable());
        }
        endpoint.set_username("").and_then(|()| endpoint.set_password(None)).map_err(|()| unusable())?;
        endpoint.set_query(None);
        endpoint.path_segments_mut().map_err(|()| unusable())?.pop_if_empty().extend([
            "2010-04-01",
            "Accounts",
            &user,
            "Messages.json",
        ]);
        let from = settings.from.as_deref().unwrap_or_default().trim().to_owned();
        if from.is_empty() {
            return Err(settings.at_fault("from", "is missing: a number or a messaging service (MG…)"));
        }
        let callback = settings.status_callback_url.as_deref().map(web_url).transpose();
        let status_callback_url = callback.map_err(|problem| settings.at_fault("status_callback_url", problem))?;
        Ok(Self { exchange: Exchange::new(settings)?, endpoint, user, password, from, status_callback_url })
    }

    fn form(&self, id: &str, to: &str, text: &str) -> String {
        let sender = if self.from.starts_with("MG") { "MessagingServiceSid" } else { "From" };
        let mut form = Serializer::new(String::new());
        form.append_pair("To", to).append_pair(sender, &self.from).append_pair("Body", text);
        if let Some(callback) = &self.status_callback_url {
            let mut callback = callback.clone();
            callback.query_pairs_mut().append_pair(NOTIFICATION_PARAMETER, id);
            form.append_pair("StatusCallback", callback.as_str());
        }
        form.finish()
    }
}

#[async_trait]
impl Provider for TwilioProvider {
    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        let to = message.to.as_deref().ok_or_else(|| SendError::Permanent("the notification has no number".into()))?;
        let length = message.body.chars().count();
        if length > LONGEST_TEXT {
            let reason = format!("the text has {length} characters, an SMS over Twilio has at most {LONGEST_TEXT}");
            return Err(SendError::Permanent(reason));
        }
        if length == 0 {
            return Err(SendError::Permanent("the text is empty, which Twilio does not take".into()));
        }
        let request = self
            .exchange
            .post(self.endpoint.clone())
            .basic_auth(&self.user, Some(&self.password))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body(self.form(&message.id, to, &message.body));
        let answer = self.exchange.send(request).await?;
        if answer.status.is_success() {
            return accepted(&answer);
        }
        Err(refused(&answer, to, &self.endpoint))
    }
}

#[derive(Deserialize)]
struct Created {
    sid: String,
}

fn accepted(answer: &Answer) -> Result<Accepted, SendError> {
    match answer.json::<Created>() {
        Some(created) => Ok(Accepted { receipt: Some(excerpt(&created.sid)), ..Accepted::default() }),
        // The status had said it before the connection broke.
        None if !answer.whole => Ok(Accepted::default()),
        // A proxy's page, perhaps: nobody knows who answered.
        None => Err(SendError::Unknown(format!("an answer without a message's sid: {}", answer.reason()))),
    }
}

/// An error as Twilio's REST API writes it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiError {
    code: u32,
    message: String,
}

/// What an error code of Twilio means for the notification (<https://www.twilio.com/docs/api/errors>).
fn refused(answer: &Answer, to: &str, endpoint: &Url) -> SendError {
    if answer.status.is_redirection() {
        return SendError::Transient(answer.redirection(endpoint));
    }
    let error: ApiError = answer.json().unwrap_or_default();
    let reason = match error.code {
        0 => answer.reason(),
        code => format!("{}: {code} {}", answer.status, excerpt(&error.message)),
    };
    match error.code {
        // The recipient answered STOP.
        21610 => SendError::Suppressed(reason),
        // No valid number; no mobile one; a landline; a short code.
        21211 | 21614 | 21635 | 21265 => SendError::Gone { addresses: vec![to.to_owned()], reason },
        21611 => answer.rate_limited_or(QUEUE_FULL_WAIT, reason),
        63038 => answer.rate_limited_or(DAILY_LIMIT_WAIT, reason),
        14107 | 20429 => answer.rate_limited(reason),
        code if is_about_the_account(code) => SendError::Transient(reason),
        _ => by_status(answer, reason),
    }
}

/// True for what an operator has to put right: credentials, a suspended account, a sender that is none of the account's,
/// a callback that is no URL. No notification is to blame, so none may be lost for it: the breaker opens, and they wait.
fn is_about_the_account(code: u32) -> bool {
    matches!(
        code,
        20003 | 20005 | 20006 | 20404 | 21212 | 21603 | 21606 | 21609 | 21659 | 21660 | 21661 | 21701..=21705 | 30002
    )
}

fn by_status(answer: &Answer, reason: String) -> SendError {
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => answer.rate_limited(reason),
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::UNAUTHORIZED
        | StatusCode::PAYMENT_REQUIRED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED => SendError::Transient(reason),
        status if status.is_server_error() => SendError::Transient(reason),
        status if status.is_client_error() => SendError::Permanent(reason),
        _ => SendError::Unknown(reason),
    }
}
