//! How the service stays well while others are not: breakers, retries, rate limits.

pub mod adaptive_limit;
pub mod breaker;
pub mod breaker_cell;
pub mod retry;
pub mod token_bucket;
pub mod window;
