//! `[[delivery.providers]]`: who carries the notifications of a channel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{Mistake, is_faulty, rule, within};
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
    /// Where it is; every kind but `inbox` has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<SecretUrl>,
    /// See [`ProviderConfig::timeout`].
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Sends a second; `None` = as fast as it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_second: Option<u32>,
    /// See [`ProviderConfig::max_in_flight`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<usize>,
    /// See [`ProviderConfig::on_unknown`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,
    /// Signs the requests of kind `http`, and reports in the service's own format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Sender of kind `twilio`: a number, a short code, a name, or a messaging service (`MG…`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where kind `twilio` reports what became of a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_callback_url: Option<SecretUrl>,
    /// The service account of kind `fcm`, as Google's console exports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Signs the e-mails of kind `smtp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dkim: Option<DkimConfig>,
    /// How a mail service reports to kinds `smtp` and `http`, unless it does so in the service's own format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reports: Option<ReportsConfig>,
}

/// Of one instance to one mail server, unless `max_in_flight` says otherwise.
const SMTP_CONNECTIONS: usize = 20;

fn default_timeout_ms() -> u64 {
    5000
}

/// `dkim` of a provider of kind `smtp`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DkimConfig {
    /// The name under `_domainkey` at which the public key is published.
    #[serde(default)]
    pub selector: String,
    /// The domain that signs.
    #[serde(default)]
    pub domain: String,
    /// The private key, RSA or Ed25519, as PEM.
    #[serde(default)]
    pub private_key_file: PathBuf,
}

/// `reports` of a provider of e-mail.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ReportsConfig {
    /// Whose webhooks they are; needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ReportFormat>,
    /// What their signatures are verified with; needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
}

/// Whose webhooks are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportFormat {
    /// Mailgun's.
    Mailgun,
    /// SendGrid's signed Event Webhook.
    Sendgrid,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// A mail server.
    Smtp,
    /// One JSON document per notification, posted.
    Http,
    /// SMS through Twilio's API.
    Twilio,
    /// Push through Firebase Cloud Messaging.
    Fcm,
    /// An incoming webhook as Slack has them.
    Slack,
    /// The inbox in the service's own database.
    Inbox,
    /// One JSON line per notification, appended.
    File,
}

impl ProviderKind {
    /// The name used in configuration and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Http => "http",
            Self::Twilio => "twilio",
            Self::Fcm => "fcm",
            Self::Slack => "slack",
            Self::Inbox => "inbox",
            Self::File => "file",
        }
    }

    /// The channels that it can carry.
    fn channels(self) -> &'static [Channel] {
        match self {
            Self::Smtp => &[Channel::Email],
            Self::Twilio => &[Channel::Sms],
            Self::Fcm => &[Channel::Push],
            Self::Slack => &[Channel::AdminAlert, Channel::Webhook],
            Self::Inbox => &[Channel::InApp],
            Self::Http | Self::File => &Channel::ALL,
        }
    }
}

/// What to do when a send may or may not have reached its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Send again with the same idempotency key, as often as the schedule allows.
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

    /// Sends under way at once, at most; `most` is that of every provider. Each send over SMTP has a connection for
    /// itself, and mail servers count those of a client: Postfix takes 50 of them by default.
    pub fn max_in_flight(&self, most: usize) -> usize {
        let usual = if self.kind == ProviderKind::Smtp { SMTP_CONNECTIONS } else { most };
        self.max_in_flight.unwrap_or(usual).min(most)
    }

    /// What to do when the outcome of a send is not known. Unless it is configured, a repetition is risked where it
    /// is recognised (`http`, `fcm`, `inbox`, by Message-ID `smtp`) or harms nobody (`file`), and once where an alert
    /// that comes twice is better than none (`slack`); a second SMS costs money and trust, and Twilio has no idempotency
    /// key.
    pub fn on_unknown(&self) -> OnUnknown {
        self.on_unknown.unwrap_or(match self.kind {
            ProviderKind::Twilio => OnUnknown::Hold,
            ProviderKind::Slack => OnUnknown::RetryOnce,
            ProviderKind::Smtp | ProviderKind::Http | ProviderKind::Fcm | ProviderKind::Inbox | ProviderKind::File => {
                OnUnknown::Retry
            }
        })
    }

    /// The file of a provider of kind `file`, which `file:` or `file://` stands in front of.
    pub fn file(&self) -> Option<&Path> {
        let path = self.url.as_ref()?.expose().strip_prefix("file:")?;
        Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
    }

    /// Hides what is secret only because of the kind: who knows the path of an incoming webhook may post there.
    pub(super) fn hide_secrets(&mut self) {
        if self.kind == ProviderKind::Slack
            && let Some(url) = &mut self.url
        {
            url.hide_path();
        }
    }

    pub(super) fn validate(&self, key: &str, mistakes: &mut Vec<Mistake>) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let named = !self.name.is_empty() && self.name.chars().all(plain);
        let problem = "must be a name of lower-case letters, digits, `_` and `-`";
        rule(mistakes, named, &format!("{key}.name"), problem);
        if !is_faulty(mistakes, &format!("{key}.kind")) {
            self.validate_channel(key, mistakes);
            self.validate_kind(key, mistakes);
        }
        within(mistakes, &format!("{key}.timeout_ms"), self.timeout_ms, 1..=60_000);
        let rate = self.max_per_second.is_none_or(|rate| rate >= 1);
        rule(mistakes, rate, &format!("{key}.max_per_second"), "must be at least 1, not 0");
        let some = self.max_in_flight.is_none_or(|most| most >= 1);
        rule(mistakes, some, &format!("{key}.max_in_flight"), "must be at least 1, not 0");
        let secret = self.secret.as_ref().is_none_or(|secret| !secret.expose().is_empty());
        rule(mistakes, secret, &format!("{key}.secret"), "must not be empty");
        if let Some(reports) = &self.reports {
            reports.validate(&format!("{key}.reports"), mistakes);
        }
    }

    fn validate_channel(&self, key: &str, mistakes: &mut Vec<Mistake>) {
        if is_faulty(mistakes, &format!("{key}.channel")) {
            return;
        }
        let carried = self.kind.channels();
        let names: Vec<&str> = carried.iter().map(|channel| channel.as_str()).collect();
        let noun = if names.len() == 1 { "channel" } else { "channels" };
        let names = names.join(" and ");
        let problem = format!("`{}` carries only the {noun} {names}, not {}", self.kind.as_str(), self.channel);
        rule(mistakes, carried.contains(&self.channel), &format!("{key}.kind"), problem);
    }

    /// Settings that have no effect.
    pub(super) fn warnings(&self, sender: &str) -> Vec<String> {
        let set = [
            ("url", self.url.is_some(), self.kind != ProviderKind::Inbox),
            ("secret", self.secret.is_some(), matches!(self.kind, ProviderKind::Http | ProviderKind::Smtp)),
            ("reports", self.reports.is_some(), matches!(self.kind, ProviderKind::Http | ProviderKind::Smtp)),
            ("from", self.from.is_some(), self.kind == ProviderKind::Twilio),
            ("status_callback_url", self.status_callback_url.is_some(), self.kind == ProviderKind::Twilio),
            ("credentials_file", self.credentials_file.is_some(), self.kind == ProviderKind::Fcm),
            ("dkim", self.dkim.is_some(), self.kind == ProviderKind::Smtp),
        ];
        let idle = set.into_iter().filter(|(_, set, used)| *set && !used).map(|(name, ..)| {
            format!("provider `{}`: `{name}` has no effect for kind `{}`", self.name, self.kind.as_str())
        });
        let unsigned = self.kind == ProviderKind::Smtp && self.secret.is_some() && self.reports.is_some();
        let unsigned = unsigned.then(|| format!("provider `{}`: `secret` has no effect beside `reports`", self.name));
        let unread = self.kind == ProviderKind::Http && self.channel != Channel::Email && self.reports.is_some();
        let unread =
            unread.then(|| format!("provider `{}`: `reports` has no effect for channel {}", self.name, self.channel));
        let dkim = self.dkim.as_ref().filter(|_| self.kind == ProviderKind::Smtp);
        let strange = dkim.filter(|dkim| !dkim.is_aligned(sender)).map(|dkim| {
            format!(
                "provider `{}`: `dkim.domain` {} is not the domain of delivery.email_from or above it: DMARC will not \
                 count the signature",
                self.name, dkim.domain
            )
        });
        idle.chain(unsigned).chain(unread).chain(strange).collect()
    }
}

impl DkimConfig {
    /// True when the sender's domain is the signing one or below it (DMARC's relaxed alignment).
    fn is_aligned(&self, sender: &str) -> bool {
        let domain = sender.trim().trim_end_matches('>').rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let signing = self.domain.to_ascii_lowercase();
        domain == signing || domain.ends_with(&format!(".{signing}"))
    }
}
