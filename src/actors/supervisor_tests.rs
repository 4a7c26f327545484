//! Supervision: actors that panic are rebuilt from their factory, up to their budget.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Context, Handler, Message};
use tokio::sync::watch;

use super::messages::Supervise;
use super::slot::Slot;
use super::supervisor::{ActorState, ActorStatus, Lifeline, RestartBudget, ServiceSupervisor};
use crate::ports::clock::SystemClock;
use crate::resilience::retry::RetryPolicy;

struct Fragile {
    answered: usize,
    _lifeline: Lifeline,
}

impl Actor for Fragile {
    type Context = Context<Self>;
}

/// Panics when true; otherwise says how many messages this incarnation has answered.
#[derive(Message)]
#[rtype(result = "usize")]
struct Poke(bool);

impl Handler<Poke> for Fragile {
    type Result = usize;

    fn handle(&mut self, Poke(fatal): Poke, _: &mut Self::Context) -> usize {
        assert!(!fatal, "told to");
        self.answered += 1;
        self.answered
    }
}

async fn supervised(restarts: u32) -> (Slot<Fragile>, watch::Receiver<Vec<ActorStatus>>, Addr<ServiceSupervisor>) {
    let millis = Duration::from_millis;
    let budget = RestartBudget {
        restarts,
        window: Duration::from_secs(60),
        waits: RetryPolicy { max_retries: u32::MAX, initial: millis(1), max: millis(5) },
    };
    let (supervisor, statuses) = ServiceSupervisor::new(Arc::new(SystemClock::default()), budget);
    let supervisor = supervisor.start();
    let slot = Slot::default();
    let published = slot.clone();
    let factory = Box::new(move |lifeline: Lifeline| {
        let arbiter = Arbiter::new().handle();
        let lifeline = lifeline.on(arbiter.clone());
        let build = |_: &mut Context<Fragile>| Fragile { answered: 0, _lifeline: lifeline };
        published.publish(Fragile::start_in_arbiter(&arbiter, build));
        Ok(())
    });
    let supervise = Supervise { name: "fragile".into(), factory };
    supervisor.send(supervise).await.expect("lives").expect("starts");
    (slot, statuses, supervisor)
}

async fn until(statuses: &mut watch::Receiver<Vec<ActorStatus>>, wanted: impl Fn(&ActorStatus) -> bool) {
    let found = statuses.wait_for(|all| all.iter().any(&wanted));
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("in time").expect("lives");
}

#[actix::test]
async fn an_actor_that_panics_is_built_anew() {
    let (slot, mut statuses, _supervisor) = supervised(5).await;
    assert_eq!(slot.send(Poke(false)).await, Some(1));
    assert_eq!(slot.send(Poke(false)).await, Some(2));
    assert_eq!(slot.send(Poke(true)).await, None, "the panic is seen by the sender");
    until(&mut statuses, |a| a.restarts == 1 && a.state == ActorState::Running).await;
    assert_eq!(slot.send(Poke(false)).await, Some(1), "a new incarnation answers, without old state");
    assert_eq!(statuses.borrow()[0].last_end.as_deref(), Some("panic"));
}

#[actix::test]
async fn past_its_budget_an_actor_is_given_up() {
    let (slot, mut statuses, _supervisor) = supervised(2).await;
    for restarts in 1..=2 {
        slot.send(Poke(true)).await;
        until(&mut statuses, |a| a.restarts == restarts && a.state == ActorState::Running).await;
    }
    slot.send(Poke(true)).await;
    until(&mut statuses, |a| a.state == ActorState::GivenUp).await;
    assert_eq!(slot.send(Poke(false)).await, None);
}
