//! `[auth]`: who may call the API.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;
use super::mistake::{Mistake, rule};

/// Shorter secrets can be guessed (RFC 7518, 3.2).
const SOUND_SECRET_BYTES: usize = 32;

/// `[auth]`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct AuthConfig {
    /// Proves HS256 tokens. Without it and a public key, the API answers loopback clients only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_secret: Option<Secret>,
    /// A PEM file with an RSA public key: proves RS256 tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_public_key_file: Option<PathBuf>,
    /// What the claim `iss` of every token must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What the claim `aud` of every token must be or contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

impl AuthConfig {
    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        let secret = self.jwt_secret.as_ref().map(Secret::expose);
        rule(mistakes, secret != Some(""), "auth.jwt_secret", "must not be empty");
        // Taken for a secret, a public key would let everybody make tokens.
        let is_pem = secret.is_some_and(|secret| secret.trim_start().starts_with("-----BEGIN"));
        rule(mistakes, !is_pem, "auth.jwt_secret", "is a key in PEM form: name its file in auth.jwt_public_key_file");
        let one = secret.is_none() || self.jwt_public_key_file.is_none();
        rule(mistakes, one, "auth.jwt_public_key_file", "must not be set beside auth.jwt_secret");
        let has_key = secret.is_some() || self.jwt_public_key_file.is_some();
        for (key, value) in [("auth.issuer", &self.issuer), ("auth.audience", &self.audience)] {
            rule(mistakes, value.as_deref() != Some(""), key, "must not be empty");
            let problem = "has no effect without auth.jwt_secret or auth.jwt_public_key_file";
            rule(mistakes, has_key || value.is_none(), key, problem);
        }
    }

    pub(super) fn warnings(&self) -> Option<String> {
        if self.jwt_public_key_file.is_some() && self.audience.is_none() {
            let warning = "auth.audience is not set: tokens that were made for other applications count here as well";
            return Some(warning.to_owned());
        }
        let secret = self.jwt_secret.as_ref().map(Secret::expose)?;
        let short = secret.len() < SOUND_SECRET_BYTES;
        short.then(|| format!("auth.jwt_secret has fewer than {SOUND_SECRET_BYTES} bytes and may be guessed"))
    }
}
