//! What each kind of provider needs of its keys.

use std::path::Path;

use super::mistake::{Mistake, check_url_with_host, is_faulty, rule};
use super::provider::{DkimConfig, ProviderConfig, ProviderKind, ReportsConfig};
use super::secret::SecretUrl;

const WEB: [&str; 2] = ["http://", "https://"];

impl ProviderConfig {
    pub(super) fn validate_kind(&self, key: &str, mistakes: &mut Vec<Mistake>) {
        let url_key = format!("{key}.url");
        if self.kind == ProviderKind::Inbox {
            return;
        }
        let Some(url) = &self.url else {
            // A URL of the wrong type has its mistake already.
            rule(mistakes, false, &url_key, format!("is missing: `{}` needs it", self.kind.as_str()));
            return;
        };
        match self.kind {
            ProviderKind::Smtp => {
                check_url_with_host(mistakes, &url_key, url, &["smtp://", "smtps://"]);
                if let Some(dkim) = &self.dkim {
                    dkim.validate(&format!("{key}.dkim"), mistakes);
                }
            }
            ProviderKind::Http | ProviderKind::Slack => check_url_with_host(mistakes, &url_key, url, &WEB),
            ProviderKind::Twilio => self.validate_twilio(key, url, mistakes),
            ProviderKind::Fcm => {
                check_url_with_host(mistakes, &url_key, url, &WEB);
                let file = self.credentials_file.as_deref();
                needs_file(mistakes, &format!("{key}.credentials_file"), file.unwrap_or(Path::new("")));
            }
            ProviderKind::File => {
                let names_file = self.file().is_some_and(|path| path.file_name().is_some());
                rule(mistakes, names_file, &url_key, "must name a file, such as file:data/outbox.jsonl");
            }
            ProviderKind::Inbox => {}
        }
    }

    fn validate_twilio(&self, key: &str, url: &SecretUrl, mistakes: &mut Vec<Mistake>) {
        let url_key = format!("{key}.url");
        check_url_with_host(mistakes, &url_key, url, &WEB);
        if !is_faulty(mistakes, &url_key) {
            let parsed = url::Url::parse(url.expose()).ok();
            let login = parsed.is_some_and(|u| !u.username().is_empty() && u.password().is_some_and(|p| !p.is_empty()));
            rule(mistakes, login, &url_key, "must have account SID and token: https://SID:TOKEN@api.twilio.com");
        }
        let from = self.from.as_deref().unwrap_or_default().trim();
        let problem = "is missing: a number such as +15550100123 or a messaging service (MG…)";
        rule(mistakes, !from.is_empty(), &format!("{key}.from"), problem);
        if let Some(callback) = &self.status_callback_url {
            check_url_with_host(mistakes, &format!("{key}.status_callback_url"), callback, &WEB);
        }
    }
}

impl DkimConfig {
    fn validate(&self, key: &str, mistakes: &mut Vec<Mistake>) {
        let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        for (name, value) in [("selector", &self.selector), ("domain", &self.domain)] {
            let key = format!("{key}.{name}");
            rule(mistakes, !value.is_empty(), &key, "is missing");
            let well_formed = value.chars().all(label) && value.split('.').all(|part| !part.is_empty());
            rule(mistakes, well_formed, &key, "must be a DNS name in ASCII");
        }
        needs_file(mistakes, &format!("{key}.private_key_file"), &self.private_key_file);
    }
}

impl ReportsConfig {
    pub(super) fn validate(&self, key: &str, mistakes: &mut Vec<Mistake>) {
        rule(mistakes, self.format.is_some(), &format!("{key}.format"), "is missing: sendgrid or mailgun");
        let given = self.key.as_ref().is_some_and(|key| !key.expose().trim().is_empty());
        rule(mistakes, given, &format!("{key}.key"), "is missing: what the service's signatures are verified with");
    }
}

fn needs_file(mistakes: &mut Vec<Mistake>, key: &str, path: &Path) {
    rule(mistakes, !path.as_os_str().is_empty(), key, "is missing");
    rule(mistakes, path.is_file(), key, format!("the file `{}` does not exist", path.display()));
}
