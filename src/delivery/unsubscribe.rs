//! Links with which a recipient refuses more of a kind, without logging in: they carry what they do, and a signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::channel::Channel;
use crate::domain::preferences::MAX_CATEGORY_BYTES;

/// Bytes of the signature that a link carries: 128 bits cannot be guessed.
const SIGNATURE_BYTES: usize = 16;

/// Makes and reads links.
#[derive(Clone)]
pub struct UnsubscribeLinks {
    base_url: String,
    key: Vec<u8>,
}

/// What a link does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unsubscribe {
    pub recipient: String,
    pub channel: Channel,
    pub category: String,
}

impl UnsubscribeLinks {
    /// Links below this URL of the service, signed with this key.
    pub fn new(base_url: &str, key: &str) -> Self {
        Self { base_url: base_url.trim_end_matches('/').to_owned(), key: key.as_bytes().to_vec() }
    }

    /// The link that a notification carries, where it carries one: not for what must be sent anyway.
    pub fn offered(
        &self,
        recipient: Option<&str>,
        channel: Channel,
        category: &str,
        exempt_categories: &[String],
    ) -> Option<String> {
        let is_exempt = exempt_categories.iter().any(|exempt| exempt == category);
        // One that cannot be refused by a preference needs no link to do so.
        if channel != Channel::Email || is_exempt || category.len() > MAX_CATEGORY_BYTES {
            return None;
        }
        Some(self.link(recipient?, channel, category))
    }

    /// The link for a recipient, a channel and a category.
    pub fn link(&self, recipient: &str, channel: Channel, category: &str) -> String {
        format!("{}/unsubscribe/{}", self.base_url, self.token(recipient, channel, category))
    }

    fn token(&self, recipient: &str, channel: Channel, category: &str) -> String {
        // A list, so that no choice of the parts can be read as another one.
        let content = serde_json::json!([recipient, channel.as_str(), category]).to_string();
        let mut bytes = self.signature(content.as_bytes());
        bytes.extend_from_slice(content.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token does; `None` for one that this key did not sign.
    pub fn read(&self, token: &str) -> Option<Unsubscribe> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signature, content) = bytes.split_at_checked(SIGNATURE_BYTES)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(content);
        mac.verify_truncated_left(signature).ok()?;
        let (recipient, channel, category): (String, String, String) = serde_json::from_slice(content).ok()?;
        Some(Unsubscribe { recipient, channel: channel.parse().ok()?, category })
    }

    fn signature(&self, content: &[u8]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key)
            .unwrap_or_else(|_| unreachable!("a key of HMAC may have any length"));
        mac.update(content);
        mac.finalize().into_bytes()[..SIGNATURE_BYTES].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_link_is_offered_in_e_mails_that_can_be_refused() {
        let links = UnsubscribeLinks::new("https://n.example", "key");
        let exempt = ["receipts".to_owned()];
        let (ada, email) = (Some("ada"), Channel::Email);
        let expected = links.link("ada", email, "news");
        assert_eq!(links.offered(ada, email, "news", &exempt), Some(expected));
        assert_eq!(links.offered(ada, email, "receipts", &exempt), None);
        assert_eq!(links.offered(ada, Channel::Sms, "news", &exempt), None);
        assert_eq!(links.offered(None, email, "news", &exempt), None);
        assert_eq!(links.offered(ada, email, &"n".repeat(MAX_CATEGORY_BYTES + 1), &exempt), None);
    }

    proptest! {
        #[test]
        fn a_link_says_what_it_said_and_cannot_be_changed(recipient in "\\PC{1,20}", category in "[a-z]{1,9}", at in any::<prop::sample::Index>()) {
            let links = UnsubscribeLinks::new("https://n.example/", "key");
            let link = links.link(&recipient, Channel::Email, &category);
            let token = link.strip_prefix("https://n.example/unsubscribe/").expect("below the base");
            let expected = Unsubscribe { recipient, channel: Channel::Email, category };
            prop_assert_eq!(links.read(token), Some(expected));
            prop_assert_eq!(UnsubscribeLinks::new("https://n.example", "other").read(token), None);
            let mut bytes = URL_SAFE_NO_PAD.decode(token).expect("base64");
            let at = at.index(bytes.len());
            bytes[at] ^= 1;
            prop_assert_eq!(links.read(&URL_SAFE_NO_PAD.encode(bytes)), None);
            prop_assert_eq!(links.read("short"), None);
        }
    }
}
