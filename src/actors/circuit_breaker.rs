//! One actor per dependency: it lets time pass for the breaker, probes the dependency while half-open, and reports
//! every move. Permits are granted by the shared cell, so that they survive a rebuilt actor.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::supervisor::Lifeline;
use super::tasks::{Task, Tasks};
use crate::ports::probe::Probe;
use crate::resilience::breaker::{CallOutcome, Position};
use crate::resilience::breaker_cell::BreakerCell;
use crate::telemetry::events;

/// A probe is given up after this time.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// Between two successful probes.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// What the actor works with.
#[derive(Clone)]
pub struct BreakerDuty {
    /// The breaker.
    pub cell: Arc<BreakerCell>,
    /// A harmless question; without one, the next real call is the probe.
    pub probe: Option<Arc<dyn Probe>>,
    /// The consumer groups that pause while it is open.
    pub groups: Vec<String>,
}

/// See the module.
pub struct CircuitBreakerActor {
    duty: BreakerDuty,
    io: Handle,
    lifeline: Lifeline,
    tasks: Option<Tasks>,
}

impl CircuitBreakerActor {
    /// The actor of one breaker.
    pub fn new(duty: BreakerDuty, io: Handle, lifeline: Lifeline) -> Self {
        Self { duty, io, lifeline, tasks: None }
    }
}

impl Actor for CircuitBreakerActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let duty = self.duty.clone();
        let task: Task = Box::pin(async move {
            drive(&duty).await;
            Ok(())
        });
        self.tasks =
            Some(Tasks::of_actor(self, context, |a| &mut a.lifeline, &self.io, vec![task], CancellationToken::new()));
    }
}

async fn drive(duty: &BreakerDuty) {
    let mut position = duty.cell.watch();
    let mut reported = Position::Closed;
    loop {
        let now = *position.borrow_and_update();
        if now != reported {
            events::breaker_moved(duty.cell.name(), reported.as_str(), now.as_str(), now.as_gauge(), &duty.groups);
            reported = now;
        }
        match now {
            Position::Closed => drop(position.changed().await),
            Position::Open => {
                let time_is_over = async {
                    match duty.cell.until_tick() {
                        Some(wait) => tokio::time::sleep(wait).await,
                        // By an operator's order: only the next order ends it.
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = time_is_over => duty.cell.tick(),
                    _ = position.changed() => {}
                }
            }
            Position::HalfOpen => match &duty.probe {
                Some(probe) => ask(&duty.cell, &**probe).await,
                None => drop(position.changed().await),
            },
        }
    }
}

/// One probe. Its permit gives itself back when the probe is cancelled.
async fn ask(cell: &Arc<BreakerCell>, probe: &dyn Probe) {
    if let Some(permit) = cell.acquire() {
        match probe.check(PROBE_DEADLINE).await {
            Ok(()) => permit.report(CallOutcome::Success),
            Err(why) => {
                tracing::info!(breaker = cell.name(), why, "probe failed");
                permit.report(CallOutcome::Failure(1));
            }
        }
    }
    tokio::time::sleep(PROBE_PAUSE).await;
}
