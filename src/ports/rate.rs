//! A rate that several instances keep together.

use std::time::Duration;

use async_trait::async_trait;

/// Whoever keeps the rate cannot be asked now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the shared rate is unknown: {0}")]
pub struct RateUnknown(pub String);

/// Tokens of one rate, shared by all instances.
#[async_trait]
pub trait SharedRate: Send + Sync {
    /// Takes up to so many tokens. Says how many there were, and how long it is until there is one more.
    ///
    /// # Errors
    /// When it is not known how many were taken.
    async fn take(&self, wanted: usize) -> Result<(usize, Duration), RateUnknown>;

    /// Gives unused tokens back.
    ///
    /// # Errors
    /// When it is not known whether they were; they come back with time anyway.
    async fn give_back(&self, tokens: usize) -> Result<(), RateUnknown>;
}
