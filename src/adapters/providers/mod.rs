//! The providers that can be configured: each carries notifications out of the service in its own way.

mod file;
mod http;
#[cfg(test)]
mod http_tests;
mod retry_after;
mod smtp;
mod smtp_mail;
mod smtp_server;
#[cfg(test)]
mod smtp_tests;
mod webhook_signature;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::ports::provider::Provider;

pub use file::FileProvider;
pub use http::HttpProvider;
pub use smtp::SmtpProvider;

/// The longest piece of a provider's answer that goes into messages and receipts, in characters.
const EXCERPT_CHARS: usize = 200;

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Appends JSON lines to a file.
    File,
    /// Posts JSON to a URL.
    Http,
    /// Sends e-mail.
    Smtp,
}

/// What one provider is built from.
#[derive(Clone)]
pub struct ProviderSettings {
    /// The name in the configuration, in metrics and in attempts.
    pub name: String,
    /// How it is spoken to.
    pub kind: ProviderKind,
    /// Where it is; the schemes depend on the kind.
    pub url: String,
    /// The most that one attempt may take.
    pub timeout: Duration,
    /// Signs what the `http` kind posts.
    pub secret: Option<String>,
    /// The sender of e-mail.
    pub email_from: String,
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

/// Builds the provider that the settings describe.
///
/// # Errors
/// A [`ProviderSetupError`] that names the provider and the key at fault.
pub fn build(settings: &ProviderSettings) -> Result<Arc<dyn Provider>, ProviderSetupError> {
    if settings.timeout.is_zero() {
        return Err(settings.at_fault("timeout_ms", "must be greater than 0"));
    }
    Ok(match settings.kind {
        ProviderKind::File => Arc::new(FileProvider::new(settings)?),
        ProviderKind::Http => Arc::new(HttpProvider::new(settings)?),
        ProviderKind::Smtp => Arc::new(SmtpProvider::new(settings)?),
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
    use super::*;

    fn settings(kind: ProviderKind, url: &str) -> ProviderSettings {
        ProviderSettings {
            name: "mail".into(),
            kind,
            url: url.into(),
            timeout: Duration::from_secs(1),
            secret: None,
            email_from: "Shop <no-reply@example.com>".into(),
        }
    }

    fn problem(settings: &ProviderSettings) -> String {
        build(settings).err().expect("a setup error").to_string()
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
        ] {
            build(&settings(kind, url)).map(drop).unwrap_or_else(|error| panic!("{url}: {error}"));
        }
    }

    #[test]
    fn excerpts_are_short_and_on_one_line() {
        assert_eq!(excerpt(" a\r\nb\u{1b}[0m \n"), "a  b [0m");
        assert_eq!(excerpt(&"ä".repeat(500)).chars().count(), EXCERPT_CHARS);
    }
}
