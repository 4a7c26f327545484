//! Reports that providers send by calling back, as one vocabulary.

use jiff::Timestamp;

use super::mail_events::{MailEvent, MailEventError, MailEventKind, MailEvents, SignedHeaders};
use super::mailgun_events::MailgunEvents;
use super::sendgrid_events::{self, SendGridEvents};
use super::twilio::NOTIFICATION_PARAMETER;
use super::twilio_callback::{self, MessageStatus};
use super::{ProviderKind, ProviderSettings, ProviderSetupError, ReportFormat};
use crate::domain::channel::Channel;
use crate::ports::reports::{Callback, Consequence, Report, ReportError, ReportReader};

/// Reads the reports of a provider, if it is of a kind that sends some and has what it takes to believe them.
///
/// # Errors
/// What is wrong with its secret or key.
pub fn report_reader(
    settings: &ProviderSettings,
    channel: Channel,
) -> Result<Option<Box<dyn ReportReader>>, ProviderSetupError> {
    match (settings.kind, &settings.status_callback_url) {
        (ProviderKind::Twilio, Some(url)) => {
            let auth_token = twilio_callback::auth_token(&settings.url).unwrap_or_default();
            Ok(Some(Box::new(TwilioReports { url: url.clone(), auth_token })))
        }
        (ProviderKind::Smtp | ProviderKind::Http, _) if channel == Channel::Email => mail_reader(settings),
        _ => Ok(None),
    }
}

fn mail_reader(settings: &ProviderSettings) -> Result<Option<Box<dyn ReportReader>>, ProviderSetupError> {
    let Some(reports) = &settings.reports else {
        let Some(secret) = &settings.secret else { return Ok(None) };
        let events = MailEvents::new(secret).map_err(|problem| settings.at_fault("secret", problem))?;
        return Ok(Some(Box::new(events)));
    };
    let unusable = |problem: &'static str| settings.at_fault("reports.key", problem);
    let reader: Box<dyn ReportReader> = match reports.format {
        ReportFormat::Mailgun => Box::new(MailgunEvents::new(&reports.key).map_err(unusable)?),
        ReportFormat::SendGrid => Box::new(SendGridEvents::new(&reports.key).map_err(unusable)?),
    };
    Ok(Some(reader))
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

impl ReportReader for MailEvents {
    fn read(&self, callback: &Callback, now: Timestamp) -> Result<Vec<Report>, ReportError> {
        let header = |name| callback.header(name).unwrap_or_default();
        let signed = SignedHeaders {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
        };
        reports(self.read(signed, callback.body(), now))
    }
}

impl ReportReader for SendGridEvents {
    fn read(&self, callback: &Callback, now: Timestamp) -> Result<Vec<Report>, ReportError> {
        let header = |name| callback.header(name).unwrap_or_default();
        let timestamp = header(sendgrid_events::TIMESTAMP_HEADER);
        reports(self.read(timestamp, header(sendgrid_events::SIGNATURE_HEADER), callback.body(), now))
    }
}

impl ReportReader for MailgunEvents {
    fn read(&self, callback: &Callback, now: Timestamp) -> Result<Vec<Report>, ReportError> {
        reports(self.read(callback.body(), now))
    }
}

fn reports(events: Result<Vec<MailEvent>, MailEventError>) -> Result<Vec<Report>, ReportError> {
    let mut events = events.map_err(|error| match error {
        MailEventError::Signature(_) | MailEventError::Stranger(_) => ReportError::Stranger(error.to_string()),
        MailEventError::Malformed(_) => ReportError::Invalid(error.to_string()),
    })?;
    // The last word about an e-mail stands, and a call need not have them in order.
    events.sort_by_key(|event| event.at);
    Ok(events.into_iter().map(report).collect())
}

fn report(event: MailEvent) -> Report {
    let outcome = match event.kind {
        MailEventKind::BouncedForGood => "bounced",
        MailEventKind::BouncedForNow => "bounced for now",
        MailEventKind::Complaint => "complaint",
        MailEventKind::Delivered => "delivered",
        MailEventKind::Dropped => "dropped",
        MailEventKind::Unsubscribed | MailEventKind::UnsubscribedFromAll => "unsubscribed",
    };
    let (kind, address) = (event.kind, event.address);
    let consequence = match kind {
        MailEventKind::BouncedForGood | MailEventKind::Complaint => {
            address.map(|address| Consequence::Suppress { address, reason: outcome.to_owned() })
        }
        MailEventKind::Unsubscribed | MailEventKind::UnsubscribedFromAll => {
            Some(Consequence::Unsubscribe { all: kind == MailEventKind::UnsubscribedFromAll, address })
        }
        MailEventKind::BouncedForNow | MailEventKind::Delivered | MailEventKind::Dropped => None,
    };
    Report { notification: event.notification, outcome: outcome.to_owned(), consequence }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha1::Sha1;

    use super::*;
    use crate::adapters::providers::ReportSettings;
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
        let unsubscribe = Some(Consequence::Unsubscribe { all: false, address: Some(address()) });
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

    #[test]
    fn a_mail_service_is_read_in_its_own_format_and_no_other() {
        let with = |format, key: &str| ProviderSettings {
            secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()),
            reports: Some(ReportSettings { format, key: key.into() }),
            ..settings(ProviderKind::Smtp, "smtp://localhost")
        };
        let mailgun = reader(&with(ReportFormat::Mailgun, "key-1"), Channel::Email);
        let call = |token: &str, event: &str| {
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"key-1").expect("any key");
            mac.update(format!("0{token}").as_bytes());
            let signature = crate::domain::bytes::hex(&mac.finalize().into_bytes());
            let body = format!(
                r#"{{"signature":{{"timestamp":"0","token":"{token}","signature":"{signature}"}},"event-data":{{{event}}}}}"#
            );
            mailgun.read(&Callback::new("", Vec::new(), body.into_bytes()), NOW)
        };
        let about = r#""recipient":"a@b.example","message":{"headers":{"message-id":"n-1@b.example"}}"#;
        let report = |outcome: &str, consequence| {
            Ok(vec![Report { notification: Some("n-1".into()), outcome: outcome.into(), consequence }])
        };
        let address = || "a@b.example".to_owned();
        let complaint = Consequence::Suppress { address: address(), reason: "complaint".into() };
        assert_eq!(call("t1", &format!(r#""event":"complained",{about}"#)), report("complaint", Some(complaint)));
        let unsubscribe = Consequence::Unsubscribe { all: false, address: None };
        let unsubscribed = call("t2", &format!(r#""event":"unsubscribed",{about}"#));
        assert_eq!(unsubscribed, report("unsubscribed", Some(unsubscribe)));
        assert_eq!(call("t3", &format!(r#""event":"rejected",{about}"#)), report("dropped", None));
        assert_eq!(call("t4", &format!(r#""event":"opened",{about}"#)), Ok(Vec::new()));
        assert!(matches!(call("t4", &format!(r#""event":"complained",{about}"#)), Err(ReportError::Stranger(_))));
        assert!(matches!(call("t5", ""), Err(ReportError::Invalid(_))));

        let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaI\
            NXvVpiglSI8eNEc6wEA3F+g==";
        let sendgrid = reader(&with(ReportFormat::SendGrid, key), Channel::Email);
        let neutral = WebhookSigner::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
        let headers = [("webhook-id", "m-1"), ("webhook-timestamp", "0")];
        let mut headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        headers.push(("webhook-signature".into(), neutral.sign("m-1", 0, b"[]")));
        let read = sendgrid.read(&Callback::new("", headers, b"[]".to_vec()), NOW);
        assert!(matches!(read, Err(ReportError::Stranger(why)) if why.contains("X-Twilio-Email-Event-Webhook")));
        let no_key = report_reader(&with(ReportFormat::SendGrid, "s3cret"), Channel::Email).err().expect("an error");
        assert_eq!(no_key.to_string(), "provider `mail`: `reports.key` is no public key in base64 or PEM");
    }
}
