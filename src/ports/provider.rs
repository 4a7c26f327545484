//! Who carries a notification to its recipient.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::channel::Channel;
use crate::domain::recipient::Device;

/// A notification as a provider gets it, and as the `http` and `file` providers write it.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct Message {
    /// The notification's id: the idempotency key.
    pub id: String,
    pub channel: Channel,
    /// This one, `to` and `subject` are written as null where there is none: whoever reads the document finds them.
    pub recipient: Option<String>,
    /// The address; alerts have none.
    pub to: Option<String>,
    pub subject: Option<String>,
    /// The text.
    pub body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    pub template: String,
    pub category: String,
    pub data: Box<RawValue>,
    /// Push only: all devices of the recipient that are not suppressed, `to` being the first one's token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Where a recipient refuses further ones of this category, with one POST (RFC 8058). E-mail only.
    #[serde(rename = "unsubscribeUrl", skip_serializing_if = "Option::is_none")]
    pub unsubscribe_url: Option<String>,
    /// 1 for the first.
    pub attempt: u32,
}

/// The provider took the notification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The provider's own id of it, if it gave one.
    pub receipt: Option<String>,
    /// Tokens of devices that no longer exist, though another one took it.
    pub gone: Vec<String>,
}

/// The provider did not take it. The error carries the decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too many requests: the lane waits, no step of the schedule is used.
    #[error("rate limited: {reason}")]
    RateLimited {
        /// How long the provider asked to wait.
        retry_after: Duration,
        /// What it said.
        reason: String,
    },
    /// Not taken, and may be taken later.
    #[error("{0}")]
    Transient(String),
    /// Not taken for this recipient at the moment; the provider is well.
    #[error("{0}")]
    Deferred(String),
    /// Not taken, and never will be.
    #[error("{0}")]
    Permanent(String),
    /// Not taken, and never will be at these addresses: no such device, mailbox or number. They are forgotten.
    #[error("{reason}")]
    Gone {
        /// The addresses or tokens.
        addresses: Vec<String>,
        /// What the provider said.
        reason: String,
    },
    /// The recipient has told the provider to send nothing.
    #[error("{0}")]
    Suppressed(String),
    /// Perhaps taken: the answer did not arrive or made no sense.
    #[error("{0}")]
    Unknown(String),
}

/// Carries notifications of one channel.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Hands one notification over.
    ///
    /// # Errors
    /// A [`SendError`] that says what to do.
    async fn send(&self, message: &Message) -> Result<Accepted, SendError>;
}
