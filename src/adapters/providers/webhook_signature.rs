//! Signs webhooks as <https://www.standardwebhooks.com/> describes, so that receivers can check them with any library.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
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

/// How far the sender's clock may be from this one, in seconds: the limit that the specification proposes.
const TOLERANCE_SECONDS: i64 = 300;
/// More signatures than a rotation of keys needs are not looked at.
const MOST_SIGNATURES: usize = 16;

/// Why a webhook is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header is missing or makes no sense.
    #[error("webhook-id, webhook-timestamp or webhook-signature is missing or malformed")]
    Malformed,
    /// It may be a repetition by somebody who listened, or a clock is wrong.
    #[error("webhook-timestamp is more than five minutes away from the time here")]
    OutOfTime,
    /// None of the signatures was made with the secret, over this content.
    #[error("no signature matches")]
    Mismatch,
}

impl WebhookSigner {
    /// Checks the three headers of a webhook against its body. Of several signatures one has to match.
    ///
    /// # Errors
    /// See [`SignatureError`]. The comparison takes the same time for every signature.
    pub fn verify(
        &self,
        id: &str,
        timestamp: &str,
        signatures: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        let sent: i64 = timestamp.trim().parse().map_err(|_| SignatureError::Malformed)?;
        if id.is_empty() || signatures.trim().is_empty() {
            return Err(SignatureError::Malformed);
        }
        if sent.abs_diff(now.as_second()) > TOLERANCE_SECONDS.unsigned_abs() {
            return Err(SignatureError::OutOfTime);
        }
        let mut mac = self.keyed.clone();
        mac.update(format!("{id}.{sent}.").as_bytes());
        mac.update(body);
        let matches = signatures.split_ascii_whitespace().take(MOST_SIGNATURES).any(|signature| {
            let given = signature.strip_prefix("v1,").and_then(|encoded| STANDARD.decode(encoded).ok());
            given.is_some_and(|given| mac.clone().verify_slice(&given).is_ok())
        });
        if matches { Ok(()) } else { Err(SignatureError::Mismatch) }
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
    fn believes_only_what_is_signed_and_recent() {
        let signer = WebhookSigner::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a usable secret");
        let verify = |id: &str, timestamp: &str, signatures: &str, body: &[u8], now: i64| {
            signer.verify(id, timestamp, signatures, body, Timestamp::from_second(now).expect("a time"))
        };
        const AT: i64 = 1_614_265_330;
        let at = AT.to_string();
        let several = format!("v1a,xyz v1,AAAA v2,{} {SIGNATURE}", &SIGNATURE[3..]);
        for (signatures, now) in [(SIGNATURE, AT), (several.as_str(), AT), (SIGNATURE, AT + 300), (SIGNATURE, AT - 300)]
        {
            assert_eq!(verify(ID, &at, signatures, BODY, now), Ok(()));
        }
        for now in [AT + 301, AT - 301] {
            assert_eq!(verify(ID, &at, SIGNATURE, BODY, now), Err(SignatureError::OutOfTime));
        }
        let other_time = (AT + 1).to_string();
        let prefix = &SIGNATURE[..20];
        for (id, timestamp, signatures, body) in [
            ("msg_other", at.as_str(), SIGNATURE, BODY),
            (ID, other_time.as_str(), SIGNATURE, BODY),
            (ID, at.as_str(), &SIGNATURE[3..], BODY),
            (ID, at.as_str(), prefix, BODY),
            (ID, at.as_str(), "v1,", BODY),
            (ID, at.as_str(), SIGNATURE, b"{}".as_slice()),
        ] {
            assert_eq!(verify(id, timestamp, signatures, body, AT), Err(SignatureError::Mismatch), "{signatures}");
        }
        for (id, timestamp, signatures) in
            [("", at.as_str(), SIGNATURE), (ID, "", SIGNATURE), (ID, "soon", SIGNATURE), (ID, at.as_str(), " ")]
        {
            assert_eq!(verify(id, timestamp, signatures, BODY, AT), Err(SignatureError::Malformed));
        }
        assert_eq!(verify(ID, "-9223372036854775808", SIGNATURE, BODY, AT), Err(SignatureError::OutOfTime));
        let crowd = format!("{} {SIGNATURE}", "v1,AAAA ".repeat(16));
        assert_eq!(verify(ID, &at, &crowd, BODY, AT), Err(SignatureError::Mismatch));
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
