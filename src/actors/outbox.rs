//! The outbox actor: publishes what settled notifications left in the outbox.

use std::sync::Arc;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, ResponseFuture, WrapFuture as _,
};
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
        let tasks = Tasks::start(&self.io, vec![task], stop);
        let failure = tasks.failure().into_actor(self).map(|why, actor, context| {
            actor.lifeline.because(why);
            context.stop();
        });
        context.spawn(failure);
        self.tasks = Some(tasks);
    }
}

impl Handler<Drain> for OutboxActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Drain(deadline): Drain, _: &mut Self::Context) -> Self::Result {
        match &self.tasks {
            Some(tasks) => Box::pin(tasks.drain(deadline)),
            None => Box::pin(async {}),
        }
    }
}
