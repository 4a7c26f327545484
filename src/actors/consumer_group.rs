//! One actor per consumer group: it owns the group's source, runs the stage's loop, and pauses while a dependency that
//! the stage needs is away.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, Context, Handler, ResponseFuture};
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::messages::{Drain, GroupStatus, Rebuild};
use super::supervisor::Lifeline;
use super::tasks::{Task, Tasks};
use crate::ports::source::{EventSource, PauseReason, SourceEnded, SourceStatus};
use crate::resilience::breaker::Position;
use crate::resilience::breaker_cell::BreakerCell;

/// A source and the loop over it.
pub struct Running {
    /// Where records come from.
    pub source: Arc<dyn EventSource>,
    /// The loop; it ends after the stop.
    pub engine: BoxFuture<'static, Result<(), SourceEnded>>,
}

/// Starts the source and builds the loop.
pub type StartGroup = Arc<dyn Fn(CancellationToken) -> Result<Running, SourceEnded> + Send + Sync>;

/// See the module.
pub struct ConsumerGroupActor {
    start: StartGroup,
    breakers: Vec<Arc<BreakerCell>>,
    io: Handle,
    lifeline: Lifeline,
    running: Option<(Arc<dyn EventSource>, Tasks)>,
}

impl ConsumerGroupActor {
    /// A group that starts with its actor.
    pub fn new(start: StartGroup, breakers: Vec<Arc<BreakerCell>>, io: Handle, lifeline: Lifeline) -> Self {
        Self { start, breakers, io, lifeline, running: None }
    }

    fn begin(&mut self, context: &mut Context<Self>) -> Result<(), SourceEnded> {
        let stop = CancellationToken::new();
        // Creating the client may spawn threads but does not block on the network.
        let Running { source, engine } = (self.start)(stop.clone())?;
        let mut tasks: Vec<Task> = vec![Box::pin(async move { engine.await.map_err(|e| e.to_string()) })];
        for breaker in &self.breakers {
            tasks.push(Box::pin(follow(Arc::clone(breaker), Arc::clone(&source), stop.clone())));
        }
        let tasks = Tasks::of_actor(self, context, |a| &mut a.lifeline, &self.io, tasks, stop);
        self.running = Some((source, tasks));
        Ok(())
    }
}

/// Keeps the pause reason of one breaker true, whatever happens between a transition and its reader.
async fn follow(
    breaker: Arc<BreakerCell>,
    source: Arc<dyn EventSource>,
    stop: CancellationToken,
) -> Result<(), String> {
    let reason = PauseReason::Breaker(breaker.name().to_owned());
    let mut position = breaker.watch();
    loop {
        if *position.borrow_and_update() == Position::Closed {
            source.resume(&reason);
        } else {
            source.pause(reason.clone());
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = position.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

impl Actor for ConsumerGroupActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if let Err(error) = self.begin(context) {
            self.lifeline.because(error.to_string());
            context.stop();
        }
    }
}

impl Handler<GroupStatus> for ConsumerGroupActor {
    type Result = Option<SourceStatus>;

    fn handle(&mut self, _: GroupStatus, _: &mut Self::Context) -> Self::Result {
        self.running.as_ref().map(|(source, _)| source.status())
    }
}

impl Handler<Rebuild> for ConsumerGroupActor {
    type Result = ();

    fn handle(&mut self, Rebuild(why): Rebuild, context: &mut Self::Context) {
        self.lifeline.because(why);
        context.stop();
    }
}

impl Handler<Drain> for ConsumerGroupActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Drain(deadline): Drain, _: &mut Self::Context) -> Self::Result {
        let Some((source, tasks)) = &self.running else { return Box::pin(async {}) };
        let (source, drained) = (Arc::clone(source), tasks.drain(deadline));
        let io = self.io.clone();
        Box::pin(async move {
            let close = io.spawn(async move {
                drained.await;
                // Leaving the group is quick while the broker is there, and hopeless while it is not.
                source.close(Duration::from_secs(5).min(deadline)).await;
            });
            if let Err(error) = close.await {
                tracing::error!(%error, "a group did not close");
            }
        })
    }
}
