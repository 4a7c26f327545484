//! What FCM's answers mean, for one device and for all of a recipient.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::excerpt;
use super::exchange::Answer;
use crate::ports::provider::{Accepted, SendError};

/// What Google asks to wait when a quota is exceeded and the answer does not say how long.
const QUOTA_WAIT: Duration = Duration::from_secs(60);

/// Messages that a receipt names.
const MOST_NAMES: usize = 10;

/// What became of one device.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken, under this name.
    Taken(Option<String>),
    /// The token is of no device, and never will be again.
    Gone(String),
    /// Not taken.
    Failed(SendError),
}

#[derive(Deserialize)]
struct Sent {
    name: String,
}

#[derive(Default, Deserialize)]
struct Failure {
    #[serde(default)]
    error: ApiError,
}

/// An error as Google's APIs write it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiError {
    message: String,
    status: String,
    details: Vec<Detail>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Detail {
    error_code: String,
    field_violations: Vec<Violation>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Violation {
    field: String,
}

impl ApiError {
    /// FCM's own code, or else the general one.
    fn code(&self) -> &str {
        let own = self.details.iter().map(|detail| detail.error_code.as_str()).find(|code| !code.is_empty());
        own.unwrap_or(&self.status)
    }

    /// `INVALID_ARGUMENT` stands for many mistakes; this one is about the device.
    fn is_about_the_token(&self) -> bool {
        let mut fields = self.details.iter().flat_map(|detail| &detail.field_violations).peekable();
        if fields.peek().is_some() {
            return fields.all(|violation| violation.field == "message.token");
        }
        self.message.contains("registration token")
    }
}

/// True when the access token is no longer good.
pub fn refuses_token(answer: &Answer) -> bool {
    answer.status == StatusCode::UNAUTHORIZED
}

/// Reads the decision about one device (<https://firebase.google.com/docs/cloud-messaging/error-codes>).
pub fn judge(answer: &Answer, endpoint: &Url) -> Verdict {
    if answer.status.is_success() {
        return match answer.json::<Sent>() {
            Some(sent) => Verdict::Taken(Some(excerpt(&sent.name))),
            // The status had said it before the connection broke.
            None if !answer.whole => Verdict::Taken(None),
            None => Verdict::Failed(SendError::Unknown(format!("an answer without a name: {}", answer.reason()))),
        };
    }
    if answer.status.is_redirection() {
        return Verdict::Failed(SendError::Transient(answer.redirection(endpoint)));
    }
    let error = answer.json::<Failure>().unwrap_or_default().error;
    let reason = match error.code() {
        "" => answer.reason(),
        code => format!("{}: {} {}", answer.status, excerpt(code), excerpt(&error.message)),
    };
    Verdict::Failed(match (error.code(), answer.status) {
        ("UNREGISTERED", _) => return Verdict::Gone(reason),
        ("INVALID_ARGUMENT", _) if error.is_about_the_token() => return Verdict::Gone(reason),
        // The token belongs to another project: perhaps all of them do, after a mistake in the configuration, so that
        // none is forgotten for it.
        ("INVALID_ARGUMENT" | "SENDER_ID_MISMATCH", _) => SendError::Permanent(reason),
        ("QUOTA_EXCEEDED" | "RESOURCE_EXHAUSTED", _) | (_, StatusCode::TOO_MANY_REQUESTS) => {
            answer.rate_limited_or(QUOTA_WAIT, reason)
        }
        // Credentials, rights or the project: an operator has to put them right, and no notification is to blame.
        (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::REQUEST_TIMEOUT) => {
            SendError::Transient(reason)
        }
        (_, status) if status.is_server_error() => SendError::Transient(reason),
        (_, status) if status.is_client_error() => SendError::Permanent(reason),
        _ => SendError::Unknown(reason),
    })
}

/// One decision for all devices of a recipient.
///
/// As soon as one device took it the recipient is notified: it is accepted, and nothing is sent again. If none did, the
/// error that promises most counts: an unknown outcome (a device may show it already), a rate limit, a passing trouble;
/// then tokens that are gone, and refusals for good.
pub fn combine(verdicts: Vec<(String, Verdict)>) -> Result<Accepted, SendError> {
    let (mut names, mut gone, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    let (mut taken, mut worst) = (false, None);
    for (token, verdict) in verdicts {
        match verdict {
            Verdict::Taken(name) => {
                taken = true;
                names.extend(name);
            }
            Verdict::Gone(reason) => {
                gone.push(token);
                reasons.push(reason);
            }
            Verdict::Failed(error) => worst = Some(graver(worst, error)),
        }
    }
    if taken {
        names.truncate(MOST_NAMES);
        let receipt = (!names.is_empty()).then(|| names.join(" "));
        return Ok(Accepted { receipt, gone });
    }
    match worst {
        Some(error) if gone.is_empty() || !matches!(error, SendError::Permanent(_)) => Err(error),
        permanent => {
            // Also beside a refusal for good: no device will ever take it, and the dead ones can be forgotten.
            reasons.extend(permanent.map(|error| error.to_string()));
            reasons.dedup();
            Err(SendError::Gone { addresses: gone, reason: excerpt(&reasons.join("; ")) })
        }
    }
}

fn graver(known: Option<SendError>, new: SendError) -> SendError {
    let rank = |error: &SendError| match error {
        SendError::Unknown(_) => 4,
        SendError::RateLimited { .. } => 3,
        SendError::Transient(_) | SendError::Deferred(_) => 2,
        SendError::Permanent(_) | SendError::Gone { .. } | SendError::Suppressed(_) => 1,
    };
    match known {
        Some(SendError::RateLimited { retry_after: wait, reason }) => match new {
            SendError::RateLimited { retry_after, .. } => {
                SendError::RateLimited { retry_after: wait.max(retry_after), reason }
            }
            SendError::Unknown(_) => new,
            _ => SendError::RateLimited { retry_after: wait, reason },
        },
        Some(known) if rank(&known) >= rank(&new) => known,
        _ => new,
    }
}
