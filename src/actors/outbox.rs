//! The outbox actor: publishes what settled notifications left in the outbox.

use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::messages::Drain;
use super::supervisor::Lifeline;
use super::tasks::{Task, Tasks};
use crate::delivery::outbox_relay::OutboxRelay;

/// See the module.
pub struct OutboxActor {
    relay: Arc<OutboxRelay>,
    io: Handle,
    lifeline: Lifeline,
    tasks: Option<Tasks>,
}

impl OutboxActor {
    /// The actor over its relay.
    pub fn new(relay: Arc<OutboxRelay>, io: Handle, lifeline: Lifeline) -> Self {
        Self { relay, io, lifeline, tasks: None }
    }
}

impl Actor for OutboxActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let stop = CancellationToken::new();
        let (relay, stopping) = (Arc::clone(&self.relay), stop.clone());
        let task: Task = Box::pin(async move {
            relay.run(stopping).await;
            Ok(())
        });
        self.tasks = Some(Tasks::of_actor(self, context, |a| &mut a.lifeline, &self.io, vec![task], stop));
    }
}

impl Handler<Drain> for OutboxActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Drain(deadline): Drain, _: &mut Self::Context) -> Self::Result {
        Tasks::drained(self.tasks.as_ref(), deadline)
    }
}
