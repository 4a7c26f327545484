//! The outbox actor: what goes on beside the lanes. It publishes what settled notifications left in the outbox, removes
//! them when their time is over, counts those that wait, and keeps in touch with the other instances.

use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::messages::Drain;
use super::supervisor::Lifeline;
use super::tasks::{Task, Tasks};
use crate::delivery::backlog::Backlog;
use crate::delivery::follow::follow_others;
use crate::delivery::outbox_relay::OutboxRelay;
use crate::delivery::retention::Retention;
use crate::ports::ledger::NotificationLedger;

/// What the outbox actor works with.
#[derive(Clone)]
pub struct OutboxDuty {
    /// Publishes.
    pub relay: Arc<OutboxRelay>,
    /// Removes; without it settled notifications stay.
    pub retention: Option<Arc<Retention>>,
    /// Counts; only where notifications are delivered.
    pub backlog: Option<Arc<Backlog>>,
    /// Hears of the other instances.
    pub ledger: Arc<dyn NotificationLedger>,
}

/// See the module.
pub struct OutboxActor {
    duty: OutboxDuty,
    io: Handle,
    lifeline: Lifeline,
    tasks: Option<Tasks>,
}

impl OutboxActor {
    /// The actor over its duty.
    pub fn new(duty: OutboxDuty, io: Handle, lifeline: Lifeline) -> Self {
        Self { duty, io, lifeline, tasks: None }
    }
}

impl Actor for OutboxActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let stop = CancellationToken::new();
        let OutboxDuty { relay, retention, backlog, ledger } = self.duty.clone();
        let stopping = stop.clone();
        let mut tasks: Vec<Task> = vec![Box::pin(async move {
            relay.run(stopping).await;
            Ok(())
        })];
        if let Some(retention) = retention {
            let stopping = stop.clone();
            tasks.push(Box::pin(async move {
                retention.run(stopping).await;
                Ok(())
            }));
        }
        if let Some(backlog) = backlog {
            let stopping = stop.clone();
            tasks.push(Box::pin(async move {
                backlog.run(stopping).await;
                Ok(())
            }));
        }
        let stopping = stop.clone();
        tasks.push(Box::pin(async move {
            follow_others(ledger, stopping).await;
            Ok(())
        }));
        self.tasks = Some(Tasks::of_actor(self, context, |a| &mut a.lifeline, &self.io, tasks, stop));
    }
}

impl Handler<Drain> for OutboxActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Drain(deadline): Drain, _: &mut Self::Context) -> Self::Result {
        Tasks::drained(self.tasks.as_ref(), deadline)
    }
}
