//! Who tells the API's callers apart, as configured.

use std::sync::Arc;

use crate::adapters::jwt::{Expected, JwtAuthority, TokenKey};
use crate::config::AuthConfig;
use crate::ports::authority::Authority;

/// What tokens must say beside who and what.
pub fn expected_of_tokens(config: &AuthConfig) -> Expected {
    Expected { issuer: config.issuer.clone(), audience: config.audience.clone() }
}

/// `None` where nobody is asked.
///
/// # Errors
/// What is wrong with `jwt_public_key_file`: a secret is always a key.
pub fn authority(config: &AuthConfig) -> Result<Option<Arc<dyn Authority>>, String> {
    let key = match (&config.jwt_secret, &config.jwt_public_key_file) {
        (Some(secret), _) => TokenKey::Secret(secret.expose()),
        (None, Some(file)) => TokenKey::PublicKeyFile(file),
        (None, None) => return Ok(None),
    };
    let authority = JwtAuthority::new(&key, &expected_of_tokens(config))?;
    Ok(Some(Arc::new(authority)))
}
