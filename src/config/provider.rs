//! `[[delivery.providers]]`: who carries the notifications of a channel.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{Mistake, check_url_with_host, is_faulty, rule, within};
use super::secret::{Secret, SecretUrl};
use crate::domain::channel::Channel;

/// `[[delivery.providers]]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ProviderConfig {
    /// Unique; in logs, metrics and attempts.
    pub name: String,
    /// What it carries.
    pub channel: Channel,
    /// How it is spoken to.
    pub kind: ProviderKind,
    /// Where it is.
    pub url: SecretUrl,
    /// See [`ProviderConfig::timeout`].
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Sends a second; `None` = as fast as it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_second: Option<u32>,
    /// What to do when the outcome of a send is not known.
    #[serde(default)]
    pub on_unknown: OnUnknown,
    /// Signs the requests of kind `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

fn default_timeout_ms() -> u64 {
    5000
}

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub enum ProviderKind {
    /// A mail server.
    Smtp,
    /// One JSON document per notification, posted.
    Http,
    /// One JSON line per notification, appended.
    File,
}

impl ProviderKind {
    /// The name used in configuration and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Http => "http",
            Self::File => "file",
        }
    }
}

impl TryFrom<String> for ProviderKind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "smtp" => Ok(Self::Smtp),
            "http" => Ok(Self::Http),
            "file" => Ok(Self::File),
            "twilio" | "fcm" | "slack" | "inbox" => Err(format!("`{text}` is not available in this version")),
            _ => Err(format!("`{text}` is none of smtp, http, file")),
        }
    }
}

/// What to do when a send may or may not have reached its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Send again with the same idempotency key, as often as the schedule allows.
    #[default]
    Retry,
    /// Send again once.
    RetryOnce,
    /// Leave it to an operator.
    Hold,
}

impl ProviderConfig {
    /// Of one send, from connecting to the end of the answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The file of a provider of kind `file`, which `file:` or `file://` stands in front of.
    pub fn file(&self) -> Option<&Path> {
        let path = self.url.expose().strip_prefix("file:")?;
        Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
    }

    pub(super) fn validate(&self, key: &str, mistakes: &mut Vec<Mistake>) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let named = !self.name.is_empty() && self.name.chars().all(plain);
        let problem = "must be a name of lower-case letters, digits, `_` and `-`";
        rule(mistakes, named, &format!("{key}.name"), problem);
        if !is_faulty(mistakes, &format!("{key}.kind")) {
            self.validate_kind(key, mistakes);
        }
        within(mistakes, &format!("{key}.timeout_ms"), self.timeout_ms, 1..=60_000);
        let rate = self.max_per_second.is_none_or(|rate| rate >= 1);
        rule(mistakes, rate, &format!("{key}.max_per_second"), "must be at least 1, not 0");
        let secret = self.secret.as_ref().is_none_or(|secret| !secret.expose().is_empty());
        rule(mistakes, secret, &format!("{key}.secret"), "must not be empty");
    }

    fn validate_kind(&self, key: &str, mistakes: &mut Vec<Mistake>) {
        let url = format!("{key}.url");
        match self.kind {
            ProviderKind::Smtp => {
                check_url_with_host(mistakes, &url, &self.url, &["smtp://", "smtps://"]);
                if !is_faulty(mistakes, &format!("{key}.channel")) {
                    let problem = format!("`smtp` carries only the channel email, not {}", self.channel);
                    rule(mistakes, self.channel == Channel::Email, &format!("{key}.kind"), problem);
                }
            }
            ProviderKind::Http => check_url_with_host(mistakes, &url, &self.url, &["http://", "https://"]),
            ProviderKind::File => {
                let names_file = self.file().is_some_and(|path| path.file_name().is_some());
                rule(mistakes, names_file, &url, "must name a file, such as file:data/outbox.jsonl");
            }
        }
    }

    /// A setting that has no effect.
    pub(super) fn warning(&self) -> Option<String> {
        let idle = self.secret.is_some() && self.kind != ProviderKind::Http;
        idle.then(|| format!("provider `{}`: `secret` has no effect for kind `{}`", self.name, self.kind.as_str()))
    }
}
