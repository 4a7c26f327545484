//! Asks a dependency whether it works.

use std::time::Duration;

use async_trait::async_trait;

/// A harmless question to a dependency.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Asks once, waiting at most this long.
    ///
    /// # Errors
    /// Why the dependency does not work, in words.
    async fn check(&self, deadline: Duration) -> Result<(), String>;
}
