//! A breaker that many tasks share: permits that give themselves back, and a watch on the position.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::breaker::{Breaker, BreakerPolicy, CallOutcome, Order, Position, Ticket};
use crate::ports::clock::SharedClock;

/// The breaker in front of one dependency.
pub struct BreakerCell {
    name: String,
    clock: SharedClock,
    breaker: Mutex<Breaker>,
    position: watch::Sender<Position>,
}

impl BreakerCell {
    /// A closed breaker. The name goes into logs, metrics and pause reasons.
    pub fn new(name: impl Into<String>, policy: BreakerPolicy, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            clock,
            breaker: Mutex::new(Breaker::new(policy)),
            position: watch::Sender::new(Position::Closed),
        })
    }

    /// The dependency's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the breaker stands.
    pub fn position(&self) -> Position {
        *self.position.borrow()
    }

    /// Follows the position.
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    /// Asks for the right to call; `None` when refused.
    pub fn acquire(self: &Arc<Self>) -> Option<Permit> {
        let ticket = self.change(Breaker::acquire)?;
        Some(Permit { cell: Arc::clone(self), ticket: Some(ticket) })
    }

    /// True while nobody gets the right to call: it is open, or a probe is under way.
    pub fn turns_away(&self) -> bool {
        self.lock().turns_away()
    }

    /// Waits for the right to call, however long.
    pub async fn granted(self: &Arc<Self>) -> Permit {
        loop {
            self.closed().await;
            if let Some(permit) = self.acquire() {
                return permit;
            }
        }
    }

    /// Asks for the right to call unless the breaker is half-open: then the only place belongs to the probe.
    pub fn acquire_closed(self: &Arc<Self>) -> Option<Permit> {
        (self.position() == Position::Closed).then(|| self.acquire()).flatten()
    }

    /// Lets time pass. Called by a timer, never by the next call alone.
    pub fn tick(&self) {
        let now = self.clock.monotonic();
        self.change(|breaker| breaker.tick(now));
    }

    /// Takes an operator's order.
    pub fn obey(&self, order: Order) {
        self.change(|breaker| breaker.obey(order));
    }

    /// True while an operator's order holds.
    pub fn is_held(&self) -> bool {
        self.lock().is_held()
    }

    /// How long until [`Self::tick`] changes something.
    pub fn until_tick(&self) -> Option<Duration> {
        self.lock().until_tick(self.clock.monotonic())
    }

    /// Waits until calls pass.
    pub async fn closed(&self) {
        let mut position = self.watch();
        // The sender lives in self, so the watch cannot end before this future.
        let _ = position.wait_for(|p| *p == Position::Closed).await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.lock();
        let result = change(&mut breaker);
        let now = breaker.position();
        self.position.send_if_modified(|p| std::mem::replace(p, now) != now);
        result
    }

    /// The state machine stays whole whatever panics around it.
    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to call a dependency. Dropped without an outcome, it gives itself back.
pub struct Permit {
    cell: Arc<BreakerCell>,
    ticket: Option<Ticket>,
}

impl Permit {
    /// True when the call decides whether the breaker closes.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_some_and(Ticket::is_probe)
    }

    /// Reports the outcome and ends the permit.
    pub fn report(mut self, outcome: CallOutcome) {
        if let Some(ticket) = self.ticket.take() {
            let now = self.cell.clock.monotonic();
            self.cell.change(|breaker| breaker.report(ticket, outcome, now));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.cell.change(|breaker| breaker.release(ticket));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::clock::SystemClock;

    #[tokio::test]
    async fn a_dropped_probe_does_not_leak() {
        let policy = BreakerPolicy::strict(1);
        let cell = BreakerCell::new("test", policy, Arc::new(SystemClock::default()));
        cell.acquire().expect("closed").report(CallOutcome::Failure(1));
        assert_eq!((cell.position(), cell.turns_away()), (Position::Open, true));
        cell.tick();
        assert_eq!((cell.position(), cell.turns_away()), (Position::HalfOpen, false));
        let probe = cell.acquire().expect("a probe");
        assert!(cell.turns_away());
        let panicked = tokio::spawn(async move {
            let _held = probe;
            panic!("the probe dies");
        });
        assert!(panicked.await.is_err());
        cell.acquire().expect("the permit came back").report(CallOutcome::Success);
        cell.closed().await;
    }
}
