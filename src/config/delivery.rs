//! `[delivery]`: the stage that hands notifications to providers.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mistake::{MAX_MS, Mistake, is_faulty, rule, within};
use super::provider::ProviderConfig;
use super::recipients::RecipientsConfig;
use crate::domain::channel::Channel;
use crate::domain::locale::Locale;
use crate::domain::recipient::is_email;

/// A lease must outlast the slowest send by this much, or a second instance could send the same notification.
const LEASE_MARGIN_MS: u64 = 5000;
/// The lease when nobody sets it, unless the providers' timeouts ask for a longer one.
const DEFAULT_LEASE_MS: u64 = 15_000;

/// `[delivery]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[allow(missing_docs)]
pub struct DeliveryConfig {
    /// False when another instance does this stage.
    pub enabled: bool,
    /// The sender of e-mails: `Name <address>` or an address.
    pub email_from: String,
    /// A folder whose templates replace the built-in ones of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templates_dir: Option<PathBuf>,
    /// The BCP 47 tag of recipients without a locale, and of template files without one.
    pub default_locale: String,
    /// See [`DeliveryConfig::lease`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Notifications claimed together.
    pub batch: usize,
    /// Sends under way at once, for each lane.
    pub max_in_flight: usize,
    pub poll_interval_ms: u64,
    pub retry: DeliveryRetryConfig,
    pub recipients: RecipientsConfig,
    /// Their order within a channel is the order of failover.
    pub providers: Vec<ProviderConfig>,
}

/// `[delivery.retry]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[allow(missing_docs)]
pub struct DeliveryRetryConfig {
    pub schedule_ms: Vec<u64>,
}

impl DeliveryRetryConfig {
    /// The waits between rounds of sends; n waits mean n + 1 rounds.
    pub fn schedule(&self) -> Vec<Duration> {
        self.schedule_ms.iter().copied().map(Duration::from_millis).collect()
    }
}

impl DeliveryConfig {
    /// How long a claimed notification belongs to the instance that claimed it: where nobody says so, long enough for
    /// the slowest provider.
    pub fn lease(&self) -> Duration {
        let longest = self.providers.iter().map(|provider| provider.timeout_ms).max().unwrap_or_default();
        let enough = longest.saturating_add(LEASE_MARGIN_MS + 1);
        Duration::from_millis(self.lease_ms.unwrap_or(enough.max(DEFAULT_LEASE_MS)))
    }

    /// Between two looks for notifications that came due.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }

    /// The providers of a channel, in the order of failover.
    pub fn providers_of(&self, channel: Channel) -> impl Iterator<Item = &ProviderConfig> {
        self.providers.iter().filter(move |provider| provider.channel == channel)
    }

    pub(super) fn hide_secrets(&mut self) {
        self.providers.iter_mut().for_each(ProviderConfig::hide_secrets);
    }

    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        let problem = "must be an e-mail address, or `Name <address>`";
        rule(mistakes, is_sender(&self.email_from), "delivery.email_from", problem);
        if let Some(folder) = &self.templates_dir {
            let problem = format!("the folder `{}` does not exist", folder.display());
            rule(mistakes, folder.is_dir(), "delivery.templates_dir", problem);
        }
        let problem = format!("`{}` is no BCP 47 tag, such as `en` or `de-AT`", self.default_locale);
        rule(mistakes, Locale::parse(&self.default_locale).is_some(), "delivery.default_locale", problem);
        within(mistakes, "delivery.batch", self.batch as u64, 1..=5000);
        rule(mistakes, self.max_in_flight >= 1, "delivery.max_in_flight", "must be at least 1, not 0");
        within(mistakes, "delivery.poll_interval_ms", self.poll_interval_ms, 1..=MAX_MS);
        for (index, wait) in self.retry.schedule_ms.iter().enumerate() {
            within(mistakes, &format!("delivery.retry.schedule_ms[{index}]"), *wait, 1..=MAX_MS);
        }
        self.recipients.validate(mistakes);
        self.validate_providers(mistakes);
        self.validate_lease(mistakes);
    }

    fn validate_providers(&self, mistakes: &mut Vec<Mistake>) {
        let mut names: Vec<&str> = Vec::new();
        for (index, provider) in self.providers.iter().enumerate() {
            let key = format!("delivery.providers[{index}]");
            provider.validate(&key, mistakes);
            let key = format!("{key}.name");
            if !is_faulty(mistakes, &key) {
                let problem = format!("`{}` is the name of another provider already", provider.name);
                rule(mistakes, !names.contains(&provider.name.as_str()), &key, problem);
                names.push(&provider.name);
            }
        }
    }

    fn validate_lease(&self, mistakes: &mut Vec<Mistake>) {
        let Some(lease_ms) = self.lease_ms else { return };
        within(mistakes, "delivery.lease_ms", lease_ms, 1..=MAX_MS);
        let sound = |index: usize| !is_faulty(mistakes, &format!("delivery.providers[{index}].timeout_ms"));
        let timeouts = self.providers.iter().enumerate().filter(|(index, _)| sound(*index)).map(|(_, p)| p.timeout_ms);
        if let Some(longest) = timeouts.max() {
            let needed = longest.saturating_add(LEASE_MARGIN_MS);
            let problem = format!("must be greater than {needed}, the longest timeout_ms of a provider plus 5000");
            rule(mistakes, lease_ms > needed, "delivery.lease_ms", problem);
        }
    }

    /// What deserves a look but keeps nothing from working.
    pub(super) fn warnings(&self) -> Vec<String> {
        if !self.enabled {
            return Vec::new();
        }
        let orphans = Channel::ALL.into_iter().filter(|channel| self.providers_of(*channel).next().is_none());
        let orphans = orphans.map(|channel| {
            format!("channel `{channel}` has no provider: its notifications become dead letters (no_provider)")
        });
        let idle = self.providers.iter().flat_map(|provider| provider.warnings(&self.email_from));
        orphans.chain(idle).chain(self.recipients.warning()).collect()
    }
}

/// An address, or a name with an address in angle brackets behind it.
fn is_sender(text: &str) -> bool {
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return false;
    }
    match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((_, address)) => is_email(address),
        None => is_email(text),
    }
}
