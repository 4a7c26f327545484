//! `[delivery.recipients]`: what holds for all recipients, whatever they wish themselves; and how long is remembered
//! what they got.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, check_url_with_host, rule, within};
use super::secret::{Secret, SecretUrl};

/// A key that signs must not be guessed.
const MIN_SECRET_BYTES: usize = 16;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[delivery.recipients]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[allow(missing_docs)]
pub struct RecipientsConfig {
    /// IANA name, for recipients whose zone is not known.
    pub default_time_zone: String,
    /// Categories that a refusal of every category does not reach.
    pub exempt_categories: Vec<String>,
    pub awaiting_contact_ms: u64,
    /// Notifications that a recipient gets over one channel within the window; `None` = any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<u32>,
    pub throttle_window_ms: u64,
    /// Where the service is reached from outside; without it e-mails have no unsubscribe links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsubscribe_base_url: Option<SecretUrl>,
    /// Signs these links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsubscribe_secret: Option<Secret>,
    /// Days for which settled notifications and dead letters that were dealt with are kept; 0 = for ever.
    pub retention_days: u32,
}

impl RecipientsConfig {
    /// How long a notification waits for its recipient's contact.
    pub fn awaiting_contact(&self) -> Duration {
        Duration::from_millis(self.awaiting_contact_ms)
    }

    /// The time over which the throttle counts.
    pub fn throttle_window(&self) -> Duration {
        Duration::from_millis(self.throttle_window_ms)
    }

    /// For how long settled notifications are kept, unless it is for ever.
    pub fn retention(&self) -> Option<Duration> {
        (self.retention_days > 0).then(|| DAY * self.retention_days)
    }

    /// The zone of recipients who have none.
    pub fn time_zone(&self) -> TimeZone {
        // Validated: it is known.
        TimeZone::get(&self.default_time_zone).unwrap_or(TimeZone::UTC)
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        let key = |name: &str| format!("delivery.recipients.{name}");
        let problem = format!("`{}` is no IANA time zone, such as Europe/Berlin", self.default_time_zone);
        let known = TimeZone::get(&self.default_time_zone).is_ok();
        rule(mistakes, known, &key("default_time_zone"), problem);
        for (index, category) in self.exempt_categories.iter().enumerate() {
            let named = !category.is_empty() && category != "*";
            rule(mistakes, named, &key(&format!("exempt_categories[{index}]")), "must be the name of a category");
        }
        within(mistakes, &key("awaiting_contact_ms"), self.awaiting_contact_ms, 1000..=MAX_MS);
        rule(mistakes, self.throttle != Some(0), &key("throttle"), "must be at least 1, not 0");
        within(mistakes, &key("throttle_window_ms"), self.throttle_window_ms, 1000..=MAX_MS);
        within(mistakes, &key("retention_days"), u64::from(self.retention_days), 0..=36_500);
        if let Some(url) = &self.unsubscribe_base_url {
            check_url_with_host(mistakes, &key("unsubscribe_base_url"), url, &["http://", "https://"]);
            let problem = "is missing: it signs the links of unsubscribe_base_url";
            rule(mistakes, self.unsubscribe_secret.is_some(), &key("unsubscribe_secret"), problem);
        }
        let long = self.unsubscribe_secret.as_ref().is_none_or(|s| s.expose().len() >= MIN_SECRET_BYTES);
        let problem = format!("must have at least {MIN_SECRET_BYTES} bytes");
        rule(mistakes, long, &key("unsubscribe_secret"), problem);
    }

    /// A setting that has no effect, or not the one that is meant.
    pub(super) fn warning(&self) -> Option<String> {
        let idle = self.unsubscribe_secret.is_some() && self.unsubscribe_base_url.is_none();
        let plain = self.unsubscribe_base_url.as_ref().is_some_and(|url| url.expose().starts_with("http://"));
        let problem = match (idle, plain) {
            (true, _) => "unsubscribe_secret has no effect without unsubscribe_base_url",
            (_, true) => {
                "unsubscribe_base_url is not https://: mailbox providers offer no one-click link then (RFC 8058)"
            }
            _ => return None,
        };
        Some(format!("delivery.recipients.{problem}"))
    }
}
