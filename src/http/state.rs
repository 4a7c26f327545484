//! What the HTTP handlers look at. They never ask anything that may be down: others keep this up to date.

use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::actors::monitor::Picture;
use crate::actors::supervisor::{ActorState, ActorStatus};
use crate::delivery::door::Door;
use crate::delivery::reports::ReportDesk;
use crate::delivery::unsubscribe::UnsubscribeLinks;
use crate::ports::clock::SharedClock;
use crate::ports::contacts::Contacts;
use crate::ports::dead_letters::PayloadStore;
use crate::ports::inbox::Inbox;
use crate::ports::ledger::NotificationLedger;
use crate::resilience::breaker_cell::BreakerCell;
use crate::telemetry::metrics_server::MetricsPage;

/// Where the service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Phase {
    Starting,
    Running,
    Draining,
}

/// What exists only once the service runs.
pub struct RunningParts {
    /// Keeps the notifications.
    pub ledger: Arc<dyn NotificationLedger>,
    /// Takes direct requests, and settles out of turn.
    pub door: Arc<Door>,
    /// The recipients directory.
    pub contacts: Arc<dyn Contacts>,
    /// What recipients read in the application itself.
    pub inbox: Arc<dyn Inbox>,
    /// Takes what providers report later.
    pub reports: Arc<ReportDesk>,
    /// Reads the links with which recipients refuse more.
    pub unsubscribe: Option<UnsubscribeLinks>,
    /// Time.
    pub clock: SharedClock,
    /// Payloads that the dead letter topic could not hold.
    pub payloads: Arc<dyn PayloadStore>,
    /// One per dependency.
    pub breakers: Vec<Arc<BreakerCell>>,
    /// The actors' states.
    pub actors: watch::Receiver<Vec<ActorStatus>>,
}

/// See the module.
pub struct SharedState {
    /// Where the service is in its life.
    pub phase: watch::Receiver<Phase>,
    /// The monitor's picture.
    pub picture: watch::Receiver<Picture>,
    /// Set when the service runs.
    pub running: Arc<OnceLock<RunningParts>>,
    /// The text that Prometheus scrapes.
    pub metrics: MetricsPage,
    /// Where database connections live.
    pub io: Handle,
}

impl SharedState {
    /// The actors' states; none before the service runs.
    pub fn actors(&self) -> Vec<ActorStatus> {
        self.running.get().map(|r| r.actors.borrow().clone()).unwrap_or_default()
    }

    /// True when a probe may send work: running, and nobody past the restart budget.
    pub fn is_ready(&self) -> Result<(), &'static str> {
        match *self.phase.borrow() {
            Phase::Starting => return Err("starting"),
            Phase::Draining => return Err("draining"),
            Phase::Running => {}
        }
        if self.actors().iter().any(|a| a.state == ActorState::GivenUp) {
            return Err("an actor is past its restart budget");
        }
        Ok(())
    }
}
