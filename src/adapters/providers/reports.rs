//! Reports that providers send by calling back, as one vocabulary.

use jiff::Timestamp;

use super::mail_events::{MailEventError, MailEventKind, MailEvents, SignedHeaders};
use super::twilio::NOTIFICATION_PARAMETER;
use super::twilio_callback::{self, MessageStatus};
use super::{ProviderKind, ProviderSettings, ProviderSetupError};
use crate::domain::channel::Channel;
use crate::ports::reports::{Callback, Consequence, Report, ReportError, ReportReader};

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
        let suppressed = |address| Consequence::Suppress { address, reason: outcome.clone() };
        let consequence = status.to.filter(|_| suppress).map(suppressed);
        Ok(vec![Report { notification: notification.map(|(_, id)| id.into_owned()), outcome, consequence }])
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
            let address = event.address;
            let consequence = match event.kind {
                MailEventKind::BouncedForGood | MailEventKind::Complaint => {
                    Some(Consequence::Suppress { address, reason: outcome.to_owned() })
                }
                MailEventKind::Unsubscribed => Some(Consequence::Unsubscribe { address }),
                MailEventKind::BouncedForNow | MailEventKind::Delivered => None,
            };
            Report { notification: id, outcome: outcome.to_owned(), consequence }
        };
        Ok(events.into_iter().map(report).collect())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha1::Sha1;

    use super::*;
    use crate::adapters::providers::test_support::settings;
    use crate::adapters::providers::webhook_signature::WebhookSigner;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn reader(settings: &ProviderSettings, channel: Channel) -> Box<dyn ReportReader> {
        report_reader(settings, channel).expect("sound").expect("it reports")
    }

    fn twilio(query: &str, body: &str, signed: &str) -> Callback {
        // As Twilio does it: the URL, then names and values of the fields in their order.
        let mut mac = Hmac::<Sha1>::new_from_slice(b"token").expect("any key");
        mac.update(format!("https://n.example/webhooks/sms?{signed}").as_bytes());
        for pair in body.split('&') {
            mac.update(pair.replace('=', "").as_bytes());
        }
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        Callback::new(query, vec![("x-twilio-signature".into(), signature)], body.as_bytes().to_vec())
    }

    #[test]
    fn a_status_of_twilio_names_the_notification_and_the_number() {
        let settings = ProviderSettings {
            status_callback_url: Some("https://n.example/webhooks/sms".into()),
            ..settings(ProviderKind::Twilio, "https://AC1:token@api.example")
        };
        let reader = reader(&settings, Channel::Sms);
        let read = |query, body, signed| reader.read(&twilio(query, body, signed), NOW);
        let query = "notification=n-1";
        let report = |outcome: &str, consequence| Report {
            notification: Some("n-1".into()),
            outcome: outcome.into(),
            consequence,
        };
        let delivered = read(query, "MessageSid=SM1&MessageStatus=delivered&To=15550100123", query);
        assert_eq!(delivered, Ok(vec![report("delivered", None)]));
        let stopped = read(query, "ErrorCode=21610&MessageSid=SM1&MessageStatus=failed&To=15550100123", query);
        let suppress = Consequence::Suppress { address: "15550100123".into(), reason: "failed: 21610".into() };
        assert_eq!(stopped, Ok(vec![report("failed: 21610", Some(suppress))]));
        assert_eq!(read(query, "MessageSid=SM1&MessageStatus=sent", query), Ok(Vec::new()));
        let forged = read("notification=n-2", "MessageSid=SM1&MessageStatus=delivered", query);
        assert!(matches!(forged, Err(ReportError::Stranger(_))), "the id is signed too: {forged:?}");
        let unsigned = Callback::new(query, Vec::new(), b"MessageSid=SM1&MessageStatus=delivered".to_vec());
        assert!(matches!(reader.read(&unsigned, NOW), Err(ReportError::Stranger(_))));
    }

    #[test]
    fn bounces_of_e_mail_are_believed_when_they_are_signed() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let settings =
            ProviderSettings { secret: Some(secret.into()), ..settings(ProviderKind::Smtp, "smtp://localhost") };
        let reader = reader(&settings, Channel::Email);
        let signer = WebhookSigner::new(secret).expect("a key");
        let call = |signature: String, body: &str| {
            let headers =
                [("webhook-id", "m-1".to_owned()), ("webhook-timestamp", "0".into()), ("webhook-signature", signature)];
            let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
            reader.read(&Callback::new("", headers, body.as_bytes().to_vec()), NOW)
        };
        let address = || "a@b.example".to_owned();
        let suppress = |reason: &str| Some(Consequence::Suppress { address: address(), reason: reason.into() });
        let unsubscribe = Some(Consequence::Unsubscribe { address: address() });
        for (event, outcome, consequence) in [
            (r#""type":"bounce","bounceType":"permanent""#, "bounced", suppress("bounced")),
            (r#""type":"complaint""#, "complaint", suppress("complaint")),
            (r#""type":"unsubscribe""#, "unsubscribed", unsubscribe),
            (r#""type":"bounce","bounceType":"transient""#, "bounced for now", None),
        ] {
            let body = format!(r#"{{{event},"recipient":"a@b.example","messageId":"<n-1@b.example>"}}"#);
            let report = Report { notification: Some("n-1".into()), outcome: outcome.into(), consequence };
            assert_eq!(call(signer.sign("m-1", 0, body.as_bytes()), &body), Ok(vec![report]));
            assert!(matches!(call("v1,AAAA".into(), &body), Err(ReportError::Stranger(_))));
        }
        assert!(report_reader(&settings, Channel::Sms).expect("sound").is_none(), "no reports of SMS over mail");
    }
}
