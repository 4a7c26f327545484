//! Signs webhooks as <https://www.standardwebhooks.com/> describes, so that receivers can check them with any library.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Marks a secret that is base64 text.
const SECRET_PREFIX: &str = "whsec_";

/// Secrets are pasted with and without their padding.
const SECRET_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Makes `v1` signatures with one secret. It has no `Debug`, so that the key cannot reach a log.
#[derive(Clone)]
pub struct WebhookSigner {
    keyed: Hmac<Sha256>,
}

impl WebhookSigner {
    /// Takes `whsec_` and base64, or any other text for its bytes.
    ///
    /// # Errors
    /// What is wrong with the secret, without the secret.
    pub fn new(secret: &str) -> Result<Self, &'static str> {
        let key = match secret.strip_prefix(SECRET_PREFIX) {
            Some(encoded) => {
                SECRET_BASE64.decode(encoded).map_err(|_| "begins with `whsec_` but does not go on in base64")?
            }
            None => secret.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err("is empty");
        }
        let keyed = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| "cannot be used as a key")?;
        Ok(Self { keyed })
    }

    /// The value of `webhook-signature` for a body sent with this id and this time in Unix seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.keyed.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn signature(secret: &str) -> String {
        WebhookSigner::new(secret).map(|signer| signer.sign(ID, 1_614_265_330, BODY)).expect("a usable secret")
    }

    #[test]
    fn agrees_with_the_specification() {
        assert_eq!(signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), SIGNATURE);
    }

    #[test]
    fn takes_secrets_of_both_kinds() {
        assert_eq!(signature("whsec_a2V5"), signature("key"));
        assert_eq!(signature("whsec_a2V5cw"), signature("whsec_a2V5cw=="));
        assert_ne!(signature("key"), signature("keys"));
        for unusable in ["", "whsec_", "whsec_not base64", "whsec_a2V5!"] {
            assert!(WebhookSigner::new(unusable).is_err(), "{unusable}");
        }
    }
}
