//! Tasks that an actor owns: they run on the I/O runtime, and none ends unnoticed.

use std::time::Duration;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, ResponseFuture, WrapFuture as _,
};
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::supervisor::Lifeline;
use crate::domain::error::panic_message;

/// What became of a set of tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Running,
    /// All ended after the stop.
    Done,
    /// One ended by itself or panicked; the others were ended.
    Failed(String),
}

/// A task that should run until it is told to stop; an error says why it could not.
pub type Task = BoxFuture<'static, Result<(), String>>;

/// Running tasks. Dropping this ends them.
pub struct Tasks {
    stop: CancellationToken,
    state: watch::Receiver<State>,
    end: CancellationToken,
}

impl Tasks {
    /// Starts tasks; they get a token that tells them to finish.
    pub fn start(io: &Handle, tasks: Vec<Task>, stop: CancellationToken) -> Self {
        let (report, state) = watch::channel(State::Running);
        let end = CancellationToken::new();
        let (stopping, ended) = (stop.clone(), end.clone());
        io.spawn(async move {
            let mut set = JoinSet::new();
            for task in tasks {
                set.spawn(task);
            }
            let outcome = tokio::select! {
                outcome = watch_over(&mut set, &stopping) => outcome,
                () = ended.cancelled() => State::Done,
            };
            set.shutdown().await;
            report.send_replace(outcome);
        });
        Self { stop, state, end }
    }

    /// Starts tasks that an actor lives by: when one fails, the actor ends and its lifeline says why.
    pub fn of_actor<A: Actor<Context = Context<A>>>(
        actor: &A,
        context: &mut Context<A>,
        lifeline: fn(&mut A) -> &mut Lifeline,
        io: &Handle,
        tasks: Vec<Task>,
        stop: CancellationToken,
    ) -> Self {
        let tasks = Self::start(io, tasks, stop);
        let failure = tasks.failure().into_actor(actor).map(move |why, actor, context| {
            lifeline(actor).because(why);
            context.stop();
        });
        context.spawn(failure);
        tasks
    }

    /// [`Self::drain`] as an actor's answer; without tasks there is nothing to wait for.
    pub fn drained(tasks: Option<&Self>, deadline: Duration) -> ResponseFuture<()> {
        match tasks {
            Some(tasks) => Box::pin(tasks.drain(deadline)),
            None => Box::pin(async {}),
        }
    }

    /// Resolves when the tasks failed, to the reason; never after a stop.
    fn failure(&self) -> impl Future<Output = String> + use<> {
        let mut state = self.state.clone();
        async move {
            loop {
                if let State::Failed(why) = &*state.borrow_and_update() {
                    return why.clone();
                }
                if state.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }

    /// Tells the tasks to finish and waits for them; what is not finished by the deadline is ended.
    pub fn drain(&self, deadline: Duration) -> impl Future<Output = ()> + Send + use<> {
        self.stop.cancel();
        let (mut state, end) = (self.state.clone(), self.end.clone());
        async move {
            if tokio::time::timeout(deadline, state.wait_for(|s| *s != State::Running)).await.is_err() {
                end.cancel();
                // Ending is prompt: tasks give way at their next await.
                let _ = tokio::time::timeout(Duration::from_secs(1), state.wait_for(|s| *s != State::Running)).await;
            }
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn watch_over(set: &mut JoinSet<Result<(), String>>, stopping: &CancellationToken) -> State {
    while let Some(ended) = set.join_next().await {
        match ended {
            Ok(Ok(())) if stopping.is_cancelled() => {}
            Ok(Ok(())) => return State::Failed("a task ended by itself".to_owned()),
            Ok(Err(why)) => return State::Failed(why),
            Err(error) => return State::Failed(describe(error)),
        }
    }
    State::Done
}

fn describe(error: JoinError) -> String {
    if !error.is_panic() {
        return error.to_string();
    }
    format!("panic: {}", panic_message(&*error.into_panic()))
}
