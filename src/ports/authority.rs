//! Who tells callers of the API apart.

use crate::domain::role::Role;

/// A caller who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who it is, as the token says.
    pub subject: String,
    /// What it may do.
    pub role: Role,
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It proves nothing.
    #[error("the token is not accepted: {0}")]
    Invalid(String),
    /// It is genuine, and allows nothing.
    #[error("the token's claim `role` is invalid: {0}")]
    NoRole(String),
}

/// Reads bearer tokens.
pub trait Authority: Send + Sync {
    /// Whose the token is.
    ///
    /// # Errors
    /// See [`TokenError`].
    fn identify(&self, token: &str) -> Result<Identity, TokenError>;
}
