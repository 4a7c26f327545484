//! What can be wrong with an event: every error has a class that decides the reaction and a stable code.

use std::any::Any;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How the service reacts to a failure (see docs/architecture.md, "Errors").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Will fail again however often it is tried: dead letter at once.
    Permanent,
    /// May pass: bounded retries, then a dead letter.
    Transient,
    /// The effect may or may not have happened.
    Ambiguous,
    /// A defect of the service, such as a caught panic.
    Bug,
}

impl ErrorClass {
    /// Every class, for pre-registering metrics.
    pub const ALL: [Self; 4] = [Self::Permanent, Self::Transient, Self::Ambiguous, Self::Bug];

    /// The name used in dead letters and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Ambiguous => "ambiguous",
            Self::Bug => "bug",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The words of a panic, where it has any.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// An event that cannot be understood. Always permanent; the message names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DecodeError {
    #[error("the record has no value (a tombstone), expected a JSON envelope")]
    NullValue,
    #[error("the record's value is empty, expected a JSON envelope")]
    EmptyValue,
    #[error("the value is not UTF-8: invalid byte at position {0}")]
    InvalidUtf8(usize),
    #[error("the value is not valid JSON: {0}")]
    InvalidJson(String),
    #[error("`{field}` is missing")]
    MissingField { field: String },
    #[error("`{field}` appears twice")]
    DuplicateField { field: String },
    #[error("`{field}` is invalid: {reason}")]
    InvalidField { field: String, reason: String },
    #[error("`version` {version} of {event_type} is unknown, expected {expected}")]
    UnknownVersion { event_type: String, version: i64, expected: u32 },
}

impl DecodeError {
    /// Always permanent: the same bytes will never decode.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }

    /// Stable, snake_case, for dead letters and alerts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NullValue => "null_value",
            Self::EmptyValue => "empty_value",
            Self::InvalidUtf8(_) => "invalid_utf8",
            Self::InvalidJson(_) => "invalid_json",
            Self::MissingField { .. } => "missing_field",
            Self::DuplicateField { .. } => "duplicate_field",
            Self::InvalidField { .. } => "invalid_field",
            Self::UnknownVersion { .. } => "unknown_version",
        }
    }

    /// An [`DecodeError::InvalidField`] from anything printable.
    pub fn invalid(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::InvalidField { field: field.into(), reason: reason.to_string() }
    }
}
