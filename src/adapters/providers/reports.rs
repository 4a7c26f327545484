//! Reports that providers send by calling back, as one vocabulary.

use jiff::Timestamp;

use super::mail_events::{MailEventError, MailEventKind, MailEvents, SignedHeaders};
use super::twilio::NOTIFICATION_PARAMETER;
use super::twilio_callback::{self, MessageStatus};
use super::{ProviderKind, ProviderSettings, ProviderSetupError};
use crate::domain::channel::Channel;
use crate::ports::reports::{Callback, Report, ReportError, ReportReader};

/// Reads the reports of a provider, if it is of a kind that sends some and has what it takes to believe them.
///
/// # Errors
/// What is wrong with its secret.
pub fn report_reader(
    settings: &ProviderSettings,
    channel: Channel,
) -> Result<Option<Box<dyn ReportReader>>, ProviderSetupError> {
    match (settings.kind, &settings.status_callback_url, &settings.secret) {
        (ProviderKind::Twilio, Some(url), _) => {
            let auth_token = twilio_callback::auth_token(&settings.url).unwrap_or_default();
            Ok(Some(Box::new(TwilioReports { url: url.clone(), auth_token })))
        }
        (ProviderKind::Smtp | ProviderKind::Http, _, Some(secret)) if channel == Channel::Email => {
            let events = MailEvents::new(secret).map_err(|problem| settings.at_fault("secret", problem))?;
            Ok(Some(Box::new(MailReports(events))))
        }
        _ => Ok(None),
    }
}

struct TwilioReports {
    /// As it was told to Twilio: what it signs.
    url: String,
    auth_token: String,
}

impl ReportReader for TwilioReports {
    fn read(&self, callback: &Callback, _: Timestamp) -> Result<Vec<Report>, ReportError> {
        let invalid = |error: twilio_callback::CallbackError| ReportError::Invalid(error.to_string());
        let fields = twilio_callback::fields(callback.body()).map_err(invalid)?;
        let signature = callback.header("x-twilio-signature").unwrap_or_default();
        // The query is the caller's word for what it was told, and signed as it stands there.
        let base = self.url.split_once('?').map_or(self.url.as_str(), |(base, _)| base);
        let url = if callback.query.is_empty() { base.to_owned() } else { format!("{base}?{}", callback.query) };
        if !twilio_callback::is_genuine(&self.auth_token, &url, &fields, signature) {
            return Err(ReportError::Stranger("the X-Twilio-Signature is missing or wrong".into()));
        }
        let status = twilio_callback::parse(&fields).map_err(invalid)?;
        let (outcome, suppress) = match status.status {
            MessageStatus::InProgress => return Ok(Vec::new()),
            MessageStatus::Delivered => ("delivered".to_owned(), false),
            MessageStatus::Failed { code, suppress } => {
                (code.map_or_else(|| "failed".to_owned(), |code| format!("failed: {code}")), suppress)
            }
        };
        let query = url::form_urlencoded::parse(callback.query.as_bytes());
        let notification = query.into_iter().find(|(name, _)| name == NOTIFICATION_PARAMETER);
        let suppress = status.to.filter(|_| suppress).map(|to| (to, outcome.clone()));
        Ok(vec![Report { notification: notification.map(|(_, id)| id.into_owned()), outcome, suppress }])
    }
}

struct MailReports(MailEvents);

impl ReportReader for MailReports {
    fn read(&self, callback: &Callback, now: Timestamp) -> Result<Vec<Report>, ReportError> {
        let header = |name| callback.header(name).unwrap_or_default();
        let signed = SignedHeaders {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
        };
        let events = self.0.read(signed, callback.body(), now).map_err(|error| match error {
            MailEventError::Signature(_) => ReportError::Stranger(error.to_string()),
            MailEventError::Malformed(_) => ReportError::Invalid(error.to_string()),
        })?;
        let report = |event: super::mail_events::MailEvent| {
            let outcome = match event.kind {
                MailEventKind::BouncedForGood => "bounced",
                MailEventKind::BouncedForNow => "bounced for now",
                MailEventKind::Complaint => "complaint",
                MailEventKind::Delivered => "delivered",
                MailEventKind::Unsubscribed => "unsubscribed",
            };
            let id = event.message_id.as_deref().map(|id| id.split_once('@').map_or(id, |(id, _)| id).to_owned());
            let suppress = event.kind.suppresses().then(|| (event.address, outcome.to_owned()));
            Report { notification: id, outcome: outcome.to_owned(), suppress }
        };
        Ok(events.into_iter().map(report).collect())
    }
}
