//! Puts each actor under supervision: a factory that builds it on an arbiter and publishes its address.

use std::sync::Arc;

use actix::{Actor, Addr, Arbiter, ArbiterHandle, Context};
use tokio::runtime::Handle;

use super::groups::GroupPlan;
use super::service::StartError;
use crate::actors::circuit_breaker::{BreakerDuty, CircuitBreakerActor};
use crate::actors::consumer_group::ConsumerGroupActor;
use crate::actors::dead_letter::{DeadLetterActor, DeadLetterDuty};
use crate::actors::dispatch::{DispatchActor, DispatchDuty};
use crate::actors::messages::Supervise;
use crate::actors::monitor::{MonitorActor, MonitorDuty};
use crate::actors::outbox::{OutboxActor, OutboxDuty};
use crate::actors::slot::Slot;
use crate::actors::supervisor::{Lifeline, ServiceSupervisor};
use crate::telemetry::metric_definitions::ACTOR_RESTARTS;
use crate::telemetry::metrics_server::expose;

/// Requests that wait for the dead letter actor; more of them wait at their senders.
const DEAD_LETTER_MAILBOX: usize = 64;

/// Control messages are few.
const DEFAULT_MAILBOX: usize = 16;

/// The supervisor and what every actor needs.
pub struct Wiring {
    /// Watches every other actor.
    pub supervisor: Addr<ServiceSupervisor>,
    /// Runs all I/O.
    pub io: Handle,
    /// For actors that only keep time: they share an arbiter.
    pub shared: ArbiterHandle,
}

impl Wiring {
    /// A wiring with its shared arbiter.
    pub fn new(supervisor: Addr<ServiceSupervisor>, io: Handle) -> Self {
        Self { supervisor, io, shared: Arbiter::new().handle() }
    }

    /// A consumer group, on an arbiter of its own.
    pub async fn group(&self, plan: GroupPlan) -> Result<Slot<ConsumerGroupActor>, StartError> {
        let (io, GroupPlan { id, start, breakers }) = (self.io.clone(), plan);
        self.supervised(format!("group:{id}"), None, move |lifeline| {
            ConsumerGroupActor::new(Arc::clone(&start), breakers.clone(), io.clone(), lifeline)
        })
        .await
    }

    /// A channel's dispatcher, on an arbiter of its own.
    pub async fn dispatcher(&self, duty: DispatchDuty) -> Result<Slot<DispatchActor>, StartError> {
        let io = self.io.clone();
        let name = format!("dispatch:{}", duty.channel);
        self.supervised(name, None, move |lifeline| DispatchActor::new(duty.clone(), io.clone(), lifeline)).await
    }

    /// A dependency's breaker.
    pub async fn breaker(&self, duty: BreakerDuty) -> Result<(), StartError> {
        let (io, name) = (self.io.clone(), format!("breaker:{}", duty.cell.name()));
        let build = move |lifeline| CircuitBreakerActor::new(duty.clone(), io.clone(), lifeline);
        self.supervised(name, Some(self.shared.clone()), build).await.map(drop)
    }

    /// The outbox relay, and what else goes on beside the lanes.
    pub async fn outbox(&self, duty: OutboxDuty) -> Result<Slot<OutboxActor>, StartError> {
        let io = self.io.clone();
        let build = move |lifeline| OutboxActor::new(duty.clone(), io.clone(), lifeline);
        self.supervised("outbox".to_owned(), Some(self.shared.clone()), build).await
    }

    /// The monitor.
    pub async fn monitor(&self, duty: MonitorDuty) -> Result<(), StartError> {
        let io = self.io.clone();
        let build = move |lifeline| MonitorActor::new(duty.clone(), io.clone(), lifeline);
        self.supervised("monitor".to_owned(), Some(self.shared.clone()), build).await.map(drop)
    }

    /// The dead letter actor, at an address that others know already; its mailbox is bounded.
    pub async fn dead_letters(&self, slot: Slot<DeadLetterActor>, duty: DeadLetterDuty) -> Result<(), StartError> {
        let io = self.io.clone();
        let build = move |lifeline| DeadLetterActor::new(duty.clone(), io.clone(), lifeline);
        self.supervised_at("dead-letters".to_owned(), None, DEAD_LETTER_MAILBOX, slot, build).await
    }

    async fn supervised<A: Actor<Context = Context<A>>>(
        &self,
        name: String,
        arbiter: Option<ArbiterHandle>,
        build: impl Fn(Lifeline) -> A + Clone + Send + 'static,
    ) -> Result<Slot<A>, StartError> {
        let slot = Slot::default();
        self.supervised_at(name, arbiter, DEFAULT_MAILBOX, slot.clone(), build).await?;
        Ok(slot)
    }

    async fn supervised_at<A: Actor<Context = Context<A>>>(
        &self,
        name: String,
        arbiter: Option<ArbiterHandle>,
        mailbox: usize,
        slot: Slot<A>,
        build: impl Fn(Lifeline) -> A + Clone + Send + 'static,
    ) -> Result<(), StartError> {
        expose(ACTOR_RESTARTS, &[("actor", name.clone())]);
        let factory = move |lifeline: Lifeline| {
            let (arbiter, lifeline) = match &arbiter {
                Some(shared) => (shared.clone(), lifeline),
                None => {
                    let own = Arbiter::new().handle();
                    (own.clone(), lifeline.on(own))
                }
            };
            let build = build.clone();
            let address = A::start_in_arbiter(&arbiter, move |context| {
                context.set_mailbox_capacity(mailbox);
                build(lifeline)
            });
            slot.publish(address);
            Ok(())
        };
        let supervise = Supervise { name: name.clone(), factory: Box::new(factory) };
        match self.supervisor.send(supervise).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StartError(format!("{name}: {error}"))),
            Err(error) => Err(StartError(format!("{name}: the supervisor is gone: {error}"))),
        }
    }
}
