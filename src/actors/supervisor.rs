//! The supervisor: builds every other actor from a factory and rebuilds it when it ends, with backoff, jitter and a
//! restart budget. actix's own Supervisor does not survive a panic, and restarts the same struct.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle, AsyncContext as _, Context, Handler};
use serde::Serialize;
use tokio::sync::watch;

use super::messages::{ChildEnded, StopSupervising, Supervise};
use crate::ports::clock::SharedClock;
use crate::resilience::retry::RetryPolicy;
use crate::telemetry::events;

/// Builds an actor on an arbiter of its own choice, and hands it its lifeline.
pub type Factory = Box<dyn Fn(Lifeline) -> Result<(), String> + Send>;

/// Held by a supervised actor: when the actor is dropped, however it ended, the supervisor learns of it.
pub struct Lifeline {
    name: String,
    generation: u64,
    supervisor: Addr<ServiceSupervisor>,
    why: Option<String>,
    arbiter: Option<ArbiterHandle>,
}

impl Lifeline {
    /// Says why the actor is about to end.
    pub fn because(&mut self, why: impl Into<String>) {
        self.why = Some(why.into());
    }

    /// The arbiter that ends with the actor.
    pub fn on(mut self, arbiter: ArbiterHandle) -> Self {
        self.arbiter = Some(arbiter);
        self
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let why = match self.why.take() {
            Some(why) => why,
            None if std::thread::panicking() => "panic".to_owned(),
            None => "it ended".to_owned(),
        };
        let ended = ChildEnded { name: std::mem::take(&mut self.name), generation: self.generation, why };
        // A control message, one per death: it must arrive whatever the mailbox holds.
        self.supervisor.do_send(ended);
        if let Some(arbiter) = self.arbiter.take() {
            arbiter.stop();
        }
    }
}

/// How much may go wrong before the service says so.
#[derive(Debug, Clone, Copy)]
pub struct RestartBudget {
    /// Restarts of one actor within the window.
    pub restarts: u32,
    /// The window.
    pub window: Duration,
    /// Waits between restarts.
    pub waits: RetryPolicy,
}

/// The state of a supervised actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ActorState {
    Running,
    BeingRebuilt,
    /// Past its restart budget.
    GivenUp,
}

/// A supervised actor as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ActorStatus {
    pub name: String,
    pub state: ActorState,
    pub restarts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
}

struct Child {
    factory: Factory,
    generation: u64,
    recent: VecDeque<Duration>,
    status: ActorStatus,
}

/// See the module.
pub struct ServiceSupervisor {
    clock: SharedClock,
    budget: RestartBudget,
    children: BTreeMap<String, Child>,
    status: watch::Sender<Vec<ActorStatus>>,
    stopping: bool,
}

impl ServiceSupervisor {
    /// A supervisor without children, and a watch on their states.
    pub fn new(clock: SharedClock, budget: RestartBudget) -> (Self, watch::Receiver<Vec<ActorStatus>>) {
        let (status, watch) = watch::channel(Vec::new());
        (Self { clock, budget, children: BTreeMap::new(), status, stopping: false }, watch)
    }

    fn build(&mut self, name: &str, supervisor: Addr<Self>) -> Result<(), String> {
        let Some(child) = self.children.get_mut(name) else { return Ok(()) };
        child.generation += 1;
        let lifeline =
            Lifeline { name: name.to_owned(), generation: child.generation, supervisor, why: None, arbiter: None };
        // A factory that fails drops its lifeline, which comes back as the end of the child.
        let built = (child.factory)(lifeline);
        if built.is_ok() {
            child.status.state = ActorState::Running;
        }
        self.publish();
        built
    }

    fn publish(&self) {
        self.status.send_replace(self.children.values().map(|c| c.status.clone()).collect());
    }
}

impl Actor for ServiceSupervisor {
    type Context = Context<Self>;
}

impl Handler<Supervise> for ServiceSupervisor {
    type Result = Result<(), String>;

    fn handle(&mut self, message: Supervise, context: &mut Self::Context) -> Self::Result {
        let Supervise { name, factory } = message;
        let status = ActorStatus { name: name.clone(), state: ActorState::BeingRebuilt, restarts: 0, last_end: None };
        self.children.insert(name.clone(), Child { factory, generation: 0, recent: VecDeque::new(), status });
        self.build(&name, context.address())
    }
}

impl Handler<StopSupervising> for ServiceSupervisor {
    type Result = ();

    fn handle(&mut self, _: StopSupervising, _: &mut Self::Context) {
        self.stopping = true;
    }
}

impl Handler<ChildEnded> for ServiceSupervisor {
    type Result = ();

    fn handle(&mut self, ended: ChildEnded, context: &mut Self::Context) {
        let now = self.clock.monotonic();
        let Some(child) = self.children.get_mut(&ended.name) else { return };
        if self.stopping || child.generation != ended.generation {
            return;
        }
        child.status.last_end = Some(ended.why.clone());
        child.recent.retain(|at| now.saturating_sub(*at) < self.budget.window);
        if child.recent.len() >= self.budget.restarts as usize {
            child.status.state = ActorState::GivenUp;
            tracing::error!(actor = ended.name, why = ended.why, "restart budget used up: the service is not ready");
            return self.publish();
        }
        child.recent.push_back(now);
        child.status.restarts += 1;
        child.status.state = ActorState::BeingRebuilt;
        let wait = self.budget.waits.wait_before(child.recent.len() as u32);
        events::actor_restarted(&ended.name, &ended.why, child.status.restarts);
        self.publish();
        context.run_later(wait, move |supervisor, context| {
            if supervisor.stopping {
                return;
            }
            if let Err(error) = supervisor.build(&ended.name, context.address()) {
                tracing::error!(actor = ended.name, error, "the actor could not be rebuilt");
            }
        });
    }
}
