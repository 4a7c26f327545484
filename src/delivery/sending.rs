//! One send: the provider's answer, or what its absence means.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use super::context::{DispatchContext, LaneSettings};
use super::corrections::{Lesson, lesson};
use super::prepare::Ready;
use crate::domain::error::panic_message;
use crate::ports::ledger::Claimed;
use crate::ports::provider::{Accepted, SendError};
use crate::resilience::breaker::CallOutcome;
use crate::resilience::breaker_cell::Permit;

/// A provider that does not keep its time-out is given up so much later.
const OVERTIME: Duration = Duration::from_secs(2);

/// What became of a send.
pub struct Answer {
    /// What was sent.
    pub claimed: Claimed,
    /// What travelled with it.
    pub followers: Vec<Claimed>,
    /// Where to.
    pub to: String,
    /// Number of the attempt.
    pub number: u32,
    /// Whether it was the breaker's probe.
    pub probe: bool,
    /// How long it took.
    pub took: Duration,
    /// What it teaches the directory.
    pub lesson: Option<Lesson>,
    /// What the provider said.
    pub result: Result<Accepted, SendError>,
}

/// Sends, and tells the provider's breaker how it went.
pub async fn send(settings: Arc<LaneSettings>, context: Arc<DispatchContext>, ready: Ready, permit: Permit) -> Answer {
    let Ready { message, claimed, followers, .. } = ready;
    let started = context.clock.monotonic();
    let provider = Arc::clone(&settings.provider);
    let (to, number, probe) = (message.to.clone(), message.attempt, permit.is_probe());
    // A provider that panics loses its answer, not the notification.
    let sending = AssertUnwindSafe(provider.send(&message)).catch_unwind();
    // Providers keep their own time-out, and say what it means; this one is for those that hang all the same.
    let patience = settings.timeout + OVERTIME;
    let result = match tokio::time::timeout(patience, sending).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let problem = panic_message(&*panic);
            Err(SendError::Unknown(format!("the provider's code panicked: {problem}")))
        }
        Err(_) => Err(SendError::Unknown(format!("no answer within {} ms", patience.as_millis()))),
    };
    let took = context.clock.monotonic().saturating_sub(started);
    permit.report(match &result {
        Err(SendError::Transient(_) | SendError::Unknown(_)) => CallOutcome::Failure(1),
        // A refusal or a rate limit shows that the provider is there.
        Ok(_)
        | Err(
            SendError::Deferred(_)
            | SendError::Permanent(_)
            | SendError::Gone { .. }
            | SendError::Suppressed(_)
            | SendError::RateLimited { .. },
        ) => CallOutcome::Success,
    });
    let lesson = lesson(&claimed, to.as_deref(), &result);
    let to = to.unwrap_or_else(|| "administrators".to_owned());
    Answer { claimed, followers, to, number, probe, took, lesson, result }
}
