//! The providers that can be configured: each carries notifications out of the service in its own way.

#[cfg(test)]
mod conformance;
mod dkim;
mod exchange;
mod fcm;
mod fcm_answer;
#[cfg(test)]
mod fcm_tests;
mod fcm_token;
mod file;
mod http;
#[cfg(test)]
mod http_tests;
mod inbox;
pub mod mail_events;
#[cfg(test)]
mod mail_tests;
mod mailgun_events;
mod mailgun_tokens;
mod reports;
mod retry_after;
mod sendgrid_events;
mod slack;
#[cfg(test)]
mod slack_tests;
mod smtp;
mod smtp_mail;
mod smtp_server;
#[cfg(test)]
mod smtp_tests;
#[cfg(test)]
mod test_support;
mod twilio;
pub mod twilio_callback;
#[cfg(test)]
mod twilio_tests;
mod webhook_signature;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::ports::inbox::Inbox;
use crate::ports::provider::Provider;

pub use fcm::FcmProvider;
pub use file::FileProvider;
pub use http::HttpProvider;
pub use inbox::InboxProvider;
pub use reports::report_reader;
pub use slack::SlackProvider;
pub use smtp::SmtpProvider;
pub use twilio::TwilioProvider;

/// The longest piece of a provider's answer that goes into messages and receipts, in characters.
const EXCERPT_CHARS: usize = 200;

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// Sends push notifications through Firebase Cloud Messaging.
    Fcm,
    /// Appends JSON lines to a file.
    File,
    /// Posts JSON to a URL.
    Http,
    /// Fills inboxes in the service's database.
    Inbox,
    /// Posts to an incoming webhook.
    Slack,
    /// Sends e-mail.
    Smtp,
    /// Sends SMS through Twilio's API.
    Twilio,
}

/// What one provider is built from.
#[derive(Clone)]
pub struct ProviderSettings {
    /// The name in the configuration, in metrics and in attempts.
    pub name: String,
    /// How it is spoken to.
    pub kind: ProviderKind,
    /// Where it is; the schemes depend on the kind, and an inbox has none.
    pub url: String,
    /// The most that one attempt may take.
    pub timeout: Duration,
    /// Signs what the `http` kind posts, and the reports in the service's own format.
    pub secret: Option<String>,
    /// Reports in a mail service's format.
    pub reports: Option<ReportSettings>,
    /// The sender of e-mail.
    pub email_from: String,
    /// The sender of the `twilio` kind.
    pub from: Option<String>,
    /// Where the `twilio` kind has the fate of messages reported.
    pub status_callback_url: Option<String>,
    /// The service account of the `fcm` kind.
    pub credentials_file: Option<PathBuf>,
    /// Signs the e-mails of the `smtp` kind.
    pub dkim: Option<DkimSettings>,
}

/// How e-mails are signed.
#[derive(Debug, Clone)]
pub struct DkimSettings {
    /// The name of the public key under `_domainkey`.
    pub selector: String,
    /// The domain that signs.
    pub domain: String,
    /// The private key as PEM.
    pub private_key_file: PathBuf,
}

/// How a mail service reports what became of e-mails. It has no `Debug`, so that the key cannot reach a log.
#[derive(Clone)]
pub struct ReportSettings {
    /// Whose webhooks they are.
    pub format: ReportFormat,
    /// What their signatures are verified with.
    pub key: String,
}

/// Whose webhooks are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    /// Mailgun's, verified with the HTTP webhook signing key.
    Mailgun,
    /// The signed Event Webhook of SendGrid, verified with its public key.
    SendGrid,
}

impl ProviderSettings {
    fn at_fault(&self, key: &'static str, problem: impl Into<String>) -> ProviderSetupError {
        ProviderSetupError { provider: self.name.clone(), key, problem: problem.into() }
    }
}

impl fmt::Debug for ProviderSettings {
    // By hand, because the secret and the URL (it may hold a password) belong into no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderSettings")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A provider cannot be built from its settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider `{provider}`: `{key}` {problem}")]
pub struct ProviderSetupError {
    /// The provider's name.
    pub provider: String,
    /// The key to change.
    pub key: &'static str,
    /// What is wrong with it; reads on after the key and never repeats a secret.
    pub problem: String,
}

/// Builds the provider that the settings describe. Only the `inbox` kind needs the inboxes.
///
/// # Errors
/// A [`ProviderSetupError`] that names the provider and the key at fault.
pub fn build(
    settings: &ProviderSettings,
    inbox: Option<Arc<dyn Inbox>>,
) -> Result<Arc<dyn Provider>, ProviderSetupError> {
    if settings.timeout.is_zero() {
        return Err(settings.at_fault("timeout_ms", "must be greater than 0"));
    }
    Ok(match settings.kind {
        ProviderKind::Fcm => Arc::new(FcmProvider::new(settings)?),
        ProviderKind::File => Arc::new(FileProvider::new(settings)?),
        ProviderKind::Http => Arc::new(HttpProvider::new(settings)?),
        ProviderKind::Inbox => {
            let inbox = inbox.ok_or_else(|| settings.at_fault("kind", "`inbox` needs a database with inboxes"))?;
            Arc::new(InboxProvider::new(inbox))
        }
        ProviderKind::Slack => Arc::new(SlackProvider::new(settings)?),
        ProviderKind::Smtp => Arc::new(SmtpProvider::new(settings)?),
        ProviderKind::Twilio => Arc::new(TwilioProvider::new(settings)?),
    })
}

/// The beginning of what a provider said, on one line and without control characters: safe in logs and terminals.
fn excerpt(text: &str) -> String {
    text.trim().chars().take(EXCERPT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error with its causes, each said once.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    excerpt(&text)
}

#[cfg(test)]
mod tests {
    use super::test_support::{MemoryInbox, service_account, settings};
    use super::*;

    fn problem(settings: &ProviderSettings) -> String {
        build(settings, None).err().expect("a setup error").to_string()
    }

    #[tokio::test]
    async fn setup_errors_name_the_provider_and_the_key_but_no_secret() {
        for (kind, url) in [
            (ProviderKind::Http, "not a url s3cret"),
            (ProviderKind::Http, "ftp://user:s3cret@host.example/"),
            (ProviderKind::Http, "https://"),
            (ProviderKind::Smtp, "smtp://"),
            (ProviderKind::Smtp, "https://user:s3cret@host.example/"),
            (ProviderKind::Smtp, "smtp://user:s3cret@host.example?tls=perhaps"),
            (ProviderKind::Slack, "ftp://hooks.example/s3cret"),
            (ProviderKind::Twilio, "https://api.example/s3cret"),
            (ProviderKind::Fcm, "fcm.example/s3cret"),
            (ProviderKind::File, "file:"),
            (ProviderKind::File, "file://host/path"),
        ] {
            let text = problem(&settings(kind, url));
            assert!(text.starts_with("provider `mail`: `url` "), "{url}: {text}");
            assert!(!text.contains("s3cret"), "{text}");
        }

        let bad_secret = ProviderSettings {
            secret: Some("whsec_s3cret!".into()),
            ..settings(ProviderKind::Http, "http://a.example/")
        };
        let text = problem(&bad_secret);
        assert!(text.starts_with("provider `mail`: `secret` ") && !text.contains("s3cret"), "{text}");

        let bad_sender =
            ProviderSettings { email_from: "Shop".into(), ..settings(ProviderKind::Smtp, "smtp://localhost") };
        assert!(problem(&bad_sender).starts_with("provider `mail`: `delivery.email_from` "));

        let no_time = ProviderSettings { timeout: Duration::ZERO, ..settings(ProviderKind::Smtp, "smtp://localhost") };
        assert!(problem(&no_time).starts_with("provider `mail`: `timeout_ms` "));
        let missing = |kind, url| problem(&ProviderSettings { from: None, ..settings(kind, url) });
        assert!(missing(ProviderKind::Twilio, "https://a:b@c.example").starts_with("provider `mail`: `from` "));
        assert!(missing(ProviderKind::Fcm, "https://a.example").starts_with("provider `mail`: `credentials_file` "));
        assert!(missing(ProviderKind::Inbox, "").starts_with("provider `mail`: `kind` "));
        assert!(!format!("{bad_secret:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn every_kind_can_be_built() {
        let folder = tempfile::tempdir().expect("folder");
        let outbox = folder.path().join("out.jsonl").display().to_string();
        for (kind, url) in [
            (ProviderKind::Http, "https://user:pass@hooks.example/notify?x=1"),
            (ProviderKind::Smtp, "smtp://localhost:1025"),
            (ProviderKind::Smtp, "smtp://user:p%40ss@mail.example?tls=required"),
            (ProviderKind::Smtp, "smtps://user:pass@mail.example/ehlo.example"),
            (ProviderKind::File, outbox.as_str()),
            (ProviderKind::Twilio, "https://AC1:token@api.twilio.example"),
            (ProviderKind::Fcm, "https://fcm.example"),
            (ProviderKind::Slack, "https://hooks.example/services/T0/B0/x"),
            (ProviderKind::Inbox, ""),
        ] {
            let account = service_account(folder.path(), "https://token.example/");
            let settings = ProviderSettings { credentials_file: Some(account), ..settings(kind, url) };
            build(&settings, Some(Arc::new(MemoryInbox::default())))
                .map(drop)
                .unwrap_or_else(|error| panic!("{url}: {error}"));
        }
    }

    #[test]
    fn excerpts_are_short_and_on_one_line() {
        assert_eq!(excerpt(" a\r\nb\u{1b}[0m \n"), "a  b [0m");
        assert_eq!(excerpt(&"ä".repeat(500)).chars().count(), EXCERPT_CHARS);
    }
}
