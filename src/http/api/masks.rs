//! What is shown to those who need not know how people are reached.

use crate::domain::recipient::{Recipient, is_email, is_phone, is_web_url, mask_addresses, masked};
use crate::ports::contacts::Suppression;
use crate::ports::ledger::NotificationView;

/// A recipient with its addresses masked.
pub fn recipient(shown: Recipient) -> Recipient {
    let mut devices = shown.devices;
    for device in &mut devices {
        device.token = masked(&device.token);
    }
    Recipient { email: shown.email.as_deref().map(masked), phone: shown.phone.as_deref().map(masked), devices, ..shown }
}

/// A notification without addresses: a recipient may be one, and providers quote them.
pub fn notification(mut shown: NotificationView) -> NotificationView {
    if let Some(recipient) = &mut shown.recipient
        && (is_email(recipient) || is_phone(recipient) || is_web_url(recipient))
    {
        *recipient = masked(recipient);
    }
    let words = shown.attempts.iter_mut().map(|attempt| &mut attempt.error);
    for text in words.chain([&mut shown.reason]).flatten() {
        *text = mask_addresses(text);
    }
    shown
}

/// A suppression with its address masked.
pub fn suppression(shown: Suppression) -> Suppression {
    Suppression { address: masked(&shown.address), reason: mask_addresses(&shown.reason), ..shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::recipient::{Device, Platform};

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
