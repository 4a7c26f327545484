//! The channels over which a notification can reach somebody.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A way of reaching somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Channel {
    Email,
    Sms,
    Push,
    Webhook,
    InApp,
    AdminAlert,
}

impl Channel {
    /// Every channel, in the order in which they are documented.
    pub const ALL: [Self; 6] = [Self::Email, Self::Sms, Self::Push, Self::Webhook, Self::InApp, Self::AdminAlert];

    /// The name used in JSON, configuration, metrics and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
            Self::Push => "push",
            Self::Webhook => "webhook",
            Self::InApp => "in_app",
            Self::AdminAlert => "admin_alert",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Channel {
    type Err = UnknownChannel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|c| c.as_str() == text).ok_or_else(|| UnknownChannel(text.to_owned()))
    }
}

/// A channel name that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("unknown channel `{0}`, expected one of email, sms, push, webhook, in_app, admin_alert")]
pub struct UnknownChannel(String);
