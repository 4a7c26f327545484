//! One actor per channel: it owns the lanes of the channel's providers and keeps their leases.

use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::messages::Drain;
use super::supervisor::Lifeline;
use super::tasks::{Task, Tasks};
use crate::delivery::context::{DispatchContext, LaneSettings};
use crate::delivery::held::Held;
use crate::delivery::lane::Lane;
use crate::delivery::recovery::LeaseKeeper;
use crate::delivery::under_way::UnderWay;
use crate::domain::channel::Channel;

/// What the actor works with.
#[derive(Clone)]
pub struct DispatchDuty {
    /// The channel.
    pub channel: Channel,
    /// Names this instance; only the owner of a claim may settle it.
    pub instance: String,
    /// The channel's providers, in order.
    pub lanes: Vec<Arc<LaneSettings>>,
    /// What all lanes share.
    pub context: Arc<DispatchContext>,
}

/// See the module.
pub struct DispatchActor {
    duty: DispatchDuty,
    io: Handle,
    lifeline: Lifeline,
    tasks: Option<Tasks>,
}

impl DispatchActor {
    /// The dispatcher of a channel.
    pub fn new(duty: DispatchDuty, io: Handle, lifeline: Lifeline) -> Self {
        Self { duty, io, lifeline, tasks: None }
    }

    fn tasks(&self, stop: &CancellationToken) -> Vec<Task> {
        let DispatchDuty { channel, instance, lanes, context } = self.duty.clone();
        // Every incarnation has a name of its own: what a dead one holds is taken over when its lease expires.
        let owner = format!("{instance}/{channel}/{}", uuid::Uuid::new_v4().simple());
        let (held, under_way) = (Arc::new(Held::default()), Arc::new(UnderWay::default()));
        let mut tasks: Vec<Task> = Vec::new();
        for lane in &lanes {
            let (held, under_way) = (Arc::clone(&held), Arc::clone(&under_way));
            let lane = Lane::new(Arc::clone(&context), Arc::clone(lane), owner.clone(), held, under_way);
            let stop = stop.clone();
            tasks.push(Box::pin(lane.run(stop)));
        }
        let keeper = LeaseKeeper { context, channel, owner, held, lanes };
        let stop = stop.clone();
        tasks.push(Box::pin(async move {
            keeper.run(stop).await;
            Ok(())
        }));
        tasks
    }
}

impl Actor for DispatchActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let stop = CancellationToken::new();
        let tasks = self.tasks(&stop);
        self.tasks = Some(Tasks::of_actor(self, context, |a| &mut a.lifeline, &self.io, tasks, stop));
    }
}

impl Handler<Drain> for DispatchActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Drain(deadline): Drain, _: &mut Self::Context) -> Self::Result {
        Tasks::drained(self.tasks.as_ref(), deadline)
    }
}
