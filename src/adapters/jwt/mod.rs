//! Bearer tokens: JSON Web Tokens (RFC 7519) that a shared secret (HS256) or somebody's private key (RS256) signed.

mod openssl_crypto;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use openssl::rsa::Rsa;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::role::{Role, UnknownRole};
use crate::ports::authority::{Authority, Identity, TokenError};

/// Clocks of two machines differ by no more.
const LEEWAY_SECONDS: u64 = 5;
/// Shorter RSA keys can be broken (NIST SP 800-131A).
const LEAST_RSA_BITS: u32 = 2048;
/// Subjects are remembered for their rates.
const MAX_SUBJECT_BYTES: usize = 256;

/// What proves that a token is genuine.
pub enum TokenKey<'a> {
    /// Whoever has it makes tokens.
    Secret(&'a str),
    /// A PEM file with an RSA public key.
    PublicKeyFile(&'a Path),
}

/// What tokens must say beside.
#[derive(Clone, Default)]
pub struct Expected {
    /// Who made them.
    pub issuer: Option<String>,
    /// Whom they are for.
    pub audience: Option<String>,
}

/// Reads tokens made with one key.
pub struct JwtAuthority {
    key: DecodingKey,
    validation: Validation,
}

/// What is read of a token beside what the library checks.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    role: Value,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    role: &'a str,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

impl JwtAuthority {
    /// An authority over one key.
    ///
    /// # Errors
    /// What is wrong with the key, after its name.
    pub fn new(key: &TokenKey<'_>, expected: &Expected) -> Result<Self, String> {
        openssl_crypto::install();
        let (algorithm, key) = match *key {
            TokenKey::Secret(secret) => (Algorithm::HS256, DecodingKey::from_secret(secret.as_bytes())),
            TokenKey::PublicKeyFile(file) => (Algorithm::RS256, DecodingKey::from_rsa_der(&public_key(file)?)),
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        // Where no audience is expected, any will do.
        validation.validate_aud = expected.audience.is_some();
        if let Some(audience) = &expected.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = &expected.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Ok(Self { key, validation })
    }
}

impl Authority for JwtAuthority {
    fn identify(&self, token: &str) -> Result<Identity, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| invalid(error.kind()))?;
        if header.crit.is_some() {
            // What must be understood is not (RFC 7515, 4.1.11).
            return Err(TokenError::Invalid("it has critical extensions".to_owned()));
        }
        let known = jsonwebtoken::decode::<Known>(token, &self.key, &self.validation)
            .map_err(|error| invalid(error.kind()))?
            .claims;
        let role: Result<Role, UnknownRole> = known.role.as_str().unwrap_or_default().parse();
        let role = role.map_err(|error| TokenError::NoRole(error.to_string()))?;
        let subject = known.sub.unwrap_or_default();
        if subject.len() > MAX_SUBJECT_BYTES {
            return Err(TokenError::Invalid(format!("its claim `sub` is longer than {MAX_SUBJECT_BYTES} bytes")));
        }
        Ok(Identity { subject, role })
    }
}

/// Makes a token that ends after this time.
///
/// # Errors
/// When it cannot be signed.
pub fn issue(
    secret: &str,
    subject: &str,
    role: Role,
    lifetime: Duration,
    expected: &Expected,
) -> Result<String, String> {
    openssl_crypto::install();
    let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    let claims = Claims {
        sub: subject,
        role: role.as_str(),
        exp: Timestamp::now().as_second().saturating_add(lifetime),
        iss: expected.issuer.as_deref(),
        aud: expected.audience.as_deref(),
    };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|error| error.to_string())
}

/// The key in a PEM file, as the library takes it.
fn public_key(file: &Path) -> Result<Vec<u8>, String> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| format!("names `{shown}`, which cannot be read: {error}");
    let pem = std::fs::read(file).map_err(unreadable)?;
    let none = |_| format!("names `{shown}`, which holds no RSA public key in PEM form");
    let key = Rsa::public_key_from_pem(&pem).or_else(|_| Rsa::public_key_from_pem_pkcs1(&pem)).map_err(none)?;
    if key.n().num_bits() < LEAST_RSA_BITS as i32 {
        return Err(format!("names `{shown}`, whose key has fewer than {LEAST_RSA_BITS} bits"));
    }
    // With its algorithm's name around it, as OpenSSL reads it.
    key.public_key_to_der().map_err(none)
}

fn invalid(kind: &ErrorKind) -> TokenError {
    TokenError::Invalid(explained(kind))
}

/// For whoever holds the token; nothing of it is repeated.
fn explained(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it is not valid yet".to_owned(),
        ErrorKind::InvalidSignature => "its signature is wrong".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it lacks the claim `{claim}`"),
        ErrorKind::InvalidIssuer => "its claim `iss` is not the expected one".to_owned(),
        ErrorKind::InvalidAudience => "its claim `aud` is not the expected one".to_owned(),
        ErrorKind::InvalidAlgorithm => "its algorithm is another one".to_owned(),
        _ => "it is no JSON Web Token with the claims that are needed".to_owned(),
    }
}
