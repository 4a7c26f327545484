//! The outbox actor: what is left to do for settled notifications. It publishes what they left in the outbox, and removes
//! them when their time is over.

use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::messages::Drain;
use super::supervisor::Lifeline;
use super::tasks::{Task, Tasks};
use crate::delivery::outbox_relay::OutboxRelay;
use crate::delivery::retention::Retention;

/// See the module.
pub struct OutboxActor {
    relay: Arc<OutboxRelay>,
    retention: Option<Arc<Retention>>,
    io: Handle,
    lifeline: Lifeline,
    tasks: Option<Tasks>,
}

impl OutboxActor {
    /// The actor over its relay; without a retention settled notifications stay.
    pub fn new(relay: Arc<OutboxRelay>, retention: Option<Arc<Retention>>, io: Handle, lifeline: Lifeline) -> Self {
        Self { relay, retention, io, lifeline, tasks: None }
    }
}

impl Actor for OutboxActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let stop = CancellationToken::new();
        let (relay, stopping) = (Arc::clone(&self.relay), stop.clone());
        let mut tasks: Vec<Task> = vec![Box::pin(async move {
            relay.run(stopping).await;
            Ok(())
        })];
        if let Some(retention) = self.retention.clone() {
            let stopping = stop.clone();
            tasks.push(Box::pin(async move {
                retention.run(stopping).await;
                Ok(())
            }));
        }
        self.tasks = Some(Tasks::of_actor(self, context, |a| &mut a.lifeline, &self.io, tasks, stop));
    }
}

impl Handler<Drain> for OutboxActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Drain(deadline): Drain, _: &mut Self::Context) -> Self::Result {
        Tasks::drained(self.tasks.as_ref(), deadline)
    }
}
