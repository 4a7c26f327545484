//! What is shown to those who need not know how people are reached.

use serde_json::json;

use crate::domain::envelope::raw_json;
use crate::domain::recipient::{Recipient, mask_addresses, masked};
use crate::ports::contacts::Suppression;
use crate::ports::inbox::Entry;
use crate::ports::ledger::NotificationView;

/// A recipient with its addresses masked.
pub fn recipient(shown: Recipient) -> Recipient {
    let mut devices = shown.devices;
    for device in &mut devices {
        device.token = device.token.chars().take(1).chain("***".chars()).collect();
    }
    Recipient { email: shown.email.as_deref().map(masked), phone: shown.phone.as_deref().map(masked), devices, ..shown }
}

/// A notification without addresses: a recipient may be one or contain one, and providers quote them.
pub fn notification(mut shown: NotificationView) -> NotificationView {
    let attempts = shown.attempts.iter_mut().flat_map(|attempt| [&mut attempt.error, &mut attempt.receipt]);
    for text in attempts.chain([&mut shown.recipient, &mut shown.reason, &mut shown.receipt]).flatten() {
        *text = mask_addresses(text);
    }
    shown
}

/// An inbox's entry as words alone: what the template had may be anything.
pub fn entry(shown: Entry) -> Entry {
    let words = |text: String| mask_addresses(&text);
    Entry { subject: shown.subject.map(words), body: words(shown.body), data: raw_json(&json!({})), ..shown }
}

/// A suppression with its address masked.
pub fn suppression(shown: Suppression) -> Suppression {
    Suppression { address: masked(&shown.address), reason: mask_addresses(&shown.reason), ..shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::channel::Channel;
    use crate::domain::recipient::{Device, Platform};
    use crate::ports::ledger::AttemptView;

    #[test]
    fn a_notification_shows_no_address_wherever_it_stands() {
        let attempt = AttemptView {
            number: 1,
            provider: "mail".into(),
            outcome: Some("permanent".into()),
            started_at: String::new(),
            duration_ms: Some(1),
            receipt: Some("queued for ada@example.com".into()),
            error: Some("550 <ada@example.com> unknown".into()),
            report: None,
            template_version: None,
        };
        let known = NotificationView {
            id: "n-1".into(),
            state: "failed".into(),
            channel: "email".into(),
            recipient: Some("mailto:ada@example.com".into()),
            template: "welcome".into(),
            category: "transactional".into(),
            created_at: String::new(),
            settled_at: None,
            receipt: Some("ada@example.com".into()),
            reason: Some("https://hooks.example/ada".into()),
            next_attempt_at: None,
            expires_at: None,
            digest_id: None,
            correlation_id: None,
            causation_id: None,
            attempts: vec![attempt],
        };
        let shown = notification(known);
        assert_eq!(shown.recipient.as_deref(), Some("mailto:a***@example.com"));
        let shown = serde_json::to_string(&shown).expect("JSON");
        assert!(!shown.contains("ada") && shown.matches("a***@example.com").count() == 4, "{shown}");
    }

    #[test]
    fn a_suppression_and_an_entry_show_no_address() {
        let address = "https://u:p@hooks.example/@me/secret".to_owned();
        let known = Suppression {
            channel: Channel::Webhook,
            address,
            reason: "said ada@example.com".into(),
            created_at: String::new(),
        };
        let shown = suppression(known);
        assert_eq!(
            (shown.address.as_str(), shown.reason.as_str()),
            ("https://hooks.example/***", "said a***@example.com")
        );
        let known = Entry {
            id: "n-1".into(),
            subject: Some("Welcome ada@example.com".into()),
            body: "Your address is ada@example.com.".into(),
            template: "welcome".into(),
            category: "transactional".into(),
            data: raw_json(&json!({"email": "ada@example.com"})),
            created_at: String::new(),
            read_at: None,
            seq: 1,
        };
        let shown = serde_json::to_string(&entry(known)).expect("JSON");
        assert!(!shown.contains("ada@") && shown.contains("Your address is a***@example.com."), "{shown}");
    }

    #[test]
    fn a_recipient_keeps_what_is_no_address() {
        let known = Recipient {
            id: "user-1".into(),
            email: Some("ada@example.com".into()),
            phone: Some("+15550100123".into()),
            locale: Some("de-AT".into()),
            time_zone: Some("Europe/Vienna".into()),
            devices: vec![Device { token: "token-1".into(), platform: Platform::Ios }],
        };
        let shown = recipient(known.clone());
        assert_eq!((shown.email.as_deref(), shown.phone.as_deref()), (Some("a***@example.com"), Some("+***23")));
        assert_eq!(shown.devices, [Device { token: "t***".into(), platform: Platform::Ios }]);
        let plain = |r: &Recipient| (r.id.clone(), r.locale.clone(), r.time_zone.clone());
        assert_eq!(plain(&shown), plain(&known));
    }
}
