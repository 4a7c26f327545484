//! Where a notification goes: from the directory, from the recipient itself, or from what the event carried.

use serde::Deserialize;

use crate::domain::channel::Channel;
use crate::domain::recipient::{Recipient, is_address_for};

/// The answer to "where to?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// Send it there; `None` for channels that need no address.
    Found(Option<String>),
    /// Nothing is known yet: the notification waits.
    Missing,
    /// There is only something that is no address.
    Invalid(String),
}

/// Finds the address of a notification.
pub fn resolve(channel: Channel, recipient: Option<&str>, known: Option<&Recipient>, data: &str) -> Contact {
    match channel {
        Channel::AdminAlert => return Contact::Found(None),
        // The inbox belongs to the recipient's id.
        Channel::InApp => return recipient.map_or(Contact::Missing, |id| Contact::Found(Some(id.to_owned()))),
        Channel::Email | Channel::Sms | Channel::Push | Channel::Webhook => {}
    }
    let directory = known.and_then(|r| match channel {
        Channel::Email => r.email.clone(),
        Channel::Sms => r.phone.clone(),
        Channel::Push => r.devices.first().map(|device| device.token.clone()),
        _ => None,
    });
    if channel == Channel::Push {
        // Tokens have no shape that could be checked, and an id could be taken for one.
        return directory.map_or(Contact::Missing, |token| Contact::Found(Some(token)));
    }
    let carried = carried(channel, data);
    let itself = recipient.filter(|r| is_address_for(channel, r)).map(str::to_owned);
    let candidates = [directory, itself, carried];
    let mut invalid = None;
    for candidate in candidates.into_iter().flatten() {
        if is_address_for(channel, &candidate) {
            return Contact::Found(Some(candidate));
        }
        invalid.get_or_insert(candidate);
    }
    match invalid {
        Some(text) => Contact::Invalid(format!("the address for {channel} is none: {:?}", shorten(&text))),
        // The directory has none, so waiting would be for nothing.
        None if channel == Channel::Webhook => Contact::Invalid("the recipient of a webhook must be a URL".to_owned()),
        None => Contact::Missing,
    }
}

fn carried(channel: Channel, data: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Carried {
        #[serde(default)]
        email: serde_json::Value,
        #[serde(default)]
        phone: serde_json::Value,
    }
    let carried: Carried = serde_json::from_str(data).ok()?;
    let value = match channel {
        Channel::Email => carried.email,
        Channel::Sms => carried.phone,
        _ => return None,
    };
    value.as_str().map(str::to_owned)
}

/// Enough to recognise it in a dead letter, not enough to fill one.
fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Channel::{AdminAlert, Email, InApp, Push, Sms, Webhook};

    fn known(email: &str) -> Recipient {
        Recipient { id: "c".into(), email: Some(email.into()), ..Recipient::default() }
    }

    fn found(address: &str) -> Contact {
        Contact::Found(Some(address.into()))
    }

    #[test]
    fn the_directory_comes_first_then_the_recipient_then_the_data() {
        let data = r#"{"email":"data@x.example","phone":"+15550100100"}"#;
        assert_eq!(resolve(Email, Some("c"), Some(&known("dir@x.example")), data), found("dir@x.example"));
        assert_eq!(resolve(Email, Some("self@x.example"), None, data), found("self@x.example"));
        assert_eq!(resolve(Email, Some("c"), None, data), found("data@x.example"));
        assert_eq!(resolve(Sms, Some("c"), Some(&known("dir@x.example")), data), found("+15550100100"));
        assert_eq!(resolve(Sms, Some("+15550100199"), None, "{}"), found("+15550100199"));
        assert_eq!(resolve(Webhook, Some("https://hook.example/x"), None, "{}"), found("https://hook.example/x"));
    }

    #[test]
    fn without_an_address_it_waits_and_a_wrong_one_is_told() {
        assert_eq!(resolve(Email, Some("customer-1"), None, "{}"), Contact::Missing);
        assert_eq!(resolve(Sms, Some("someone@x.example"), None, "{}"), Contact::Missing);
        assert_eq!(resolve(Push, Some("c"), None, "{}"), Contact::Missing);
        assert!(matches!(resolve(Email, Some("c"), Some(&known("nonsense")), "{}"), Contact::Invalid(_)));
        assert!(matches!(resolve(Email, Some("c"), None, r#"{"email":"nonsense"}"#), Contact::Invalid(_)));
        assert_eq!(
            resolve(Email, Some("c"), Some(&known("nonsense")), r#"{"email":"ok@x.example"}"#),
            found("ok@x.example")
        );
    }

    #[test]
    fn nothing_waits_for_an_address_that_cannot_come() {
        for recipient in [Some("customer-1"), Some("ftp://hook.example"), None] {
            let answer = resolve(Webhook, recipient, Some(&known("c@x.example")), "{}");
            assert!(matches!(answer, Contact::Invalid(_)), "{recipient:?}: {answer:?}");
        }
        assert_eq!(resolve(Email, Some("@ada"), None, "{}"), Contact::Missing, "it may be an id");
    }

    #[test]
    fn alerts_need_no_address_and_inboxes_only_an_id() {
        assert_eq!(resolve(AdminAlert, None, None, "{}"), Contact::Found(None));
        assert_eq!(resolve(InApp, Some("c"), None, "{}"), found("c"));
    }
}
