//! The circuit breaker as a pure state machine: state, event, now → state.
//!
//! Every transition starts a new generation. A permit belongs to the generation that granted it, and an outcome that
//! arrives later than that changes nothing: a slow call begun before an outage says nothing about the recovery.

use std::time::Duration;

use super::window::FailureWindow;

/// When a breaker opens and closes.
#[derive(Debug, Clone, Copy)]
pub struct BreakerPolicy {
    /// Consecutive failures that open it.
    pub failure_threshold: u32,
    /// The share of failed calls within the window that opens it as well: a dependency that fails every other call
    /// never fails many times in a row.
    pub failure_rate: f64,
    /// The share counts only among so many calls.
    pub minimum_calls: u32,
    /// The window.
    pub window: Duration,
    /// How long it stays open before a probe may run.
    pub recovery_timeout: Duration,
    /// Consecutive successes of probes that close it.
    pub success_threshold: u32,
}

#[cfg(test)]
impl BreakerPolicy {
    /// Opens by consecutive failures, recovers at once.
    pub fn strict(failure_threshold: u32) -> Self {
        Self {
            failure_threshold,
            failure_rate: 0.5,
            minimum_calls: u32::MAX,
            window: Duration::from_secs(10),
            recovery_timeout: Duration::ZERO,
            success_threshold: 1,
        }
    }
}

/// The three positions of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Calls pass.
    Closed,
    /// One probe at a time passes.
    HalfOpen,
    /// Nothing passes.
    Open,
}

impl Position {
    /// The value of the metric `circuit_breaker_state`.
    pub fn as_gauge(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::HalfOpen => 1.0,
            Self::Open => 2.0,
        }
    }

    /// The name used in logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// What a call showed about the dependency. Bad data is no failure of the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The dependency works.
    Success,
    /// So many calls failed because of the dependency.
    Failure(u32),
}

/// The right to call the dependency, bound to a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    generation: u64,
    probe: bool,
}

impl Ticket {
    /// True when the call decides whether the breaker closes.
    pub fn is_probe(self) -> bool {
        self.probe
    }
}

#[derive(Debug, Clone)]
enum State {
    Closed {
        failures: u32,
        window: Box<FailureWindow>,
    },
    Open {
        since: Duration,
    },
    HalfOpen {
        successes: u32,
        probing: bool,
    },
    /// An operator decided, until he decides otherwise.
    Held {
        open: bool,
    },
}

/// What an operator wants of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Let nothing pass.
    Open,
    /// Let everything pass, whatever fails.
    Close,
    /// Decide by the calls' outcomes again; one that was opened begins with a probe.
    Auto,
}

/// The state machine. `now` is monotonic time.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    generation: u64,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        let state = closed(&policy);
        Self { policy, state, generation: 0 }
    }

    /// Takes an operator's order.
    pub fn obey(&mut self, order: Order) {
        match (order, &self.state) {
            (Order::Open, _) => self.enter(State::Held { open: true }),
            (Order::Close, _) => self.enter(State::Held { open: false }),
            (Order::Auto, State::Held { open: true }) => self.enter(State::HalfOpen { successes: 0, probing: false }),
            (Order::Auto, State::Held { open: false }) => self.enter(closed(&self.policy)),
            (Order::Auto, _) => {}
        }
    }

    /// True while an operator's order holds.
    pub fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        match self.state {
            State::Closed { .. } | State::Held { open: false } => Position::Closed,
            State::Open { .. } | State::Held { open: true } => Position::Open,
            State::HalfOpen { .. } => Position::HalfOpen,
        }
    }

    /// Asks for the right to call; refused while open, and while a probe is under way.
    pub fn acquire(&mut self) -> Option<Ticket> {
        match &mut self.state {
            State::Closed { .. } | State::Held { open: false } => {
                Some(Ticket { generation: self.generation, probe: false })
            }
            State::HalfOpen { probing, .. } if !*probing => {
                *probing = true;
                Some(Ticket { generation: self.generation, probe: true })
            }
            _ => None,
        }
    }

    /// True while [`Self::acquire`] is refused.
    pub fn turns_away(&self) -> bool {
        match self.state {
            State::Closed { .. } | State::Held { open: false } => false,
            State::HalfOpen { probing, .. } => probing,
            State::Open { .. } | State::Held { open: true } => true,
        }
    }

    /// Gives a ticket back without an outcome: the call was never made, or says nothing.
    pub fn release(&mut self, ticket: Ticket) {
        if let State::HalfOpen { probing, .. } = &mut self.state
            && ticket.generation == self.generation
        {
            *probing = false;
        }
    }

    /// Takes the outcome of a call.
    pub fn report(&mut self, ticket: Ticket, outcome: CallOutcome, now: Duration) {
        if ticket.generation != self.generation {
            return;
        }
        match (&mut self.state, outcome) {
            (State::Closed { failures, window }, CallOutcome::Success) => {
                *failures = 0;
                window.record(false, now);
            }
            (State::Closed { failures, window }, CallOutcome::Failure(count)) => {
                *failures = failures.saturating_add(count);
                let recent = window.record(true, now);
                let often = recent.calls >= self.policy.minimum_calls
                    && f64::from(recent.failures) >= self.policy.failure_rate * f64::from(recent.calls);
                if *failures >= self.policy.failure_threshold || often {
                    self.enter(State::Open { since: now });
                }
            }
            (State::HalfOpen { successes, probing }, CallOutcome::Success) => {
                *successes += 1;
                *probing = false;
                if *successes >= self.policy.success_threshold {
                    self.enter(closed(&self.policy));
                }
            }
            (State::HalfOpen { .. }, CallOutcome::Failure(_)) => self.enter(State::Open { since: now }),
            (State::Open { .. } | State::Held { .. }, _) => {}
        }
    }

    /// Lets time pass: an open breaker becomes half-open when its time is over, whether or not anybody calls.
    pub fn tick(&mut self, now: Duration) {
        if let State::Open { since } = self.state
            && now >= since + self.policy.recovery_timeout
        {
            self.enter(State::HalfOpen { successes: 0, probing: false });
        }
    }

    /// How long until [`Self::tick`] changes something; `None` when it will not.
    pub fn until_tick(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Open { since } => Some((since + self.policy.recovery_timeout).saturating_sub(now)),
            _ => None,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

fn closed(policy: &BreakerPolicy) -> State {
    State::Closed { failures: 0, window: Box::new(FailureWindow::new(policy.window)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new(BreakerPolicy { recovery_timeout: 10 * SECOND, success_threshold: 2, ..BreakerPolicy::strict(3) })
    }

    #[test]
    fn opens_when_half_of_the_calls_of_the_window_fail() {
        let mut breaker = Breaker::new(BreakerPolicy { minimum_calls: 6, ..BreakerPolicy::strict(3) });
        let mut call = |outcome, now| {
            let ticket = breaker.acquire().expect("closed");
            breaker.report(ticket, outcome, now);
            breaker.position()
        };
        for second in 0..20 {
            // Three calls within the window are too few to judge by.
            assert_eq!(call(CallOutcome::Failure(1), 5 * second * SECOND), Position::Closed);
            assert_eq!(call(CallOutcome::Success, 5 * second * SECOND), Position::Closed);
        }
        for _ in 0..2 {
            call(CallOutcome::Success, 200 * SECOND);
            call(CallOutcome::Failure(1), 201 * SECOND);
        }
        call(CallOutcome::Success, 202 * SECOND);
        assert_eq!(call(CallOutcome::Failure(1), 202 * SECOND), Position::Open);
    }

    #[test]
    fn an_operator_s_order_holds_until_it_is_taken_back() {
        let mut breaker = breaker();
        let before = breaker.acquire().expect("closed");
        breaker.obey(Order::Open);
        breaker.report(before, CallOutcome::Success, SECOND);
        breaker.tick(1_000 * SECOND);
        assert!(breaker.is_held() && breaker.acquire().is_none() && breaker.until_tick(SECOND).is_none());
        assert_eq!(breaker.position(), Position::Open);
        breaker.obey(Order::Auto);
        assert_eq!(breaker.position(), Position::HalfOpen);
        breaker.obey(Order::Close);
        for _ in 0..10 {
            let ticket = breaker.acquire().expect("closed by order");
            breaker.report(ticket, CallOutcome::Failure(9), SECOND);
        }
        assert_eq!(breaker.position(), Position::Closed);
        breaker.obey(Order::Auto);
        let ticket = breaker.acquire().expect("closed");
        breaker.report(ticket, CallOutcome::Failure(3), SECOND);
        assert_eq!(breaker.position(), Position::Open);
        breaker.obey(Order::Auto);
        assert_eq!(breaker.position(), Position::Open, "nothing was ordered");
    }

    fn opened() -> Breaker {
        let mut breaker = breaker();
        let ticket = breaker.acquire().expect("closed");
        breaker.report(ticket, CallOutcome::Failure(3), Duration::ZERO);
        assert_eq!(breaker.position(), Position::Open);
        breaker
    }

    #[test]
    fn opens_after_consecutive_failures_only() {
        let mut breaker = breaker();
        for outcome in [CallOutcome::Failure(2), CallOutcome::Success, CallOutcome::Failure(2)] {
            let ticket = breaker.acquire().expect("closed");
            breaker.report(ticket, outcome, Duration::ZERO);
        }
        assert_eq!(breaker.position(), Position::Closed);
        let ticket = breaker.acquire().expect("closed");
        breaker.report(ticket, CallOutcome::Failure(1), Duration::ZERO);
        assert_eq!(breaker.position(), Position::Open);
        assert!(breaker.acquire().is_none());
    }

    #[test]
    fn time_alone_leads_to_half_open_and_probes_close_it() {
        let mut breaker = opened();
        breaker.tick(9 * SECOND);
        assert_eq!(breaker.position(), Position::Open);
        assert_eq!(breaker.until_tick(9 * SECOND), Some(SECOND));
        breaker.tick(10 * SECOND);
        assert_eq!(breaker.position(), Position::HalfOpen);
        for _ in 0..2 {
            let probe = breaker.acquire().expect("a probe");
            assert!(probe.is_probe() && breaker.acquire().is_none(), "one probe at a time");
            breaker.report(probe, CallOutcome::Success, 11 * SECOND);
        }
        assert_eq!(breaker.position(), Position::Closed);
    }

    #[test]
    fn a_failed_probe_opens_it_again_for_the_whole_time() {
        let mut breaker = opened();
        breaker.tick(10 * SECOND);
        let probe = breaker.acquire().expect("a probe");
        breaker.report(probe, CallOutcome::Failure(1), 12 * SECOND);
        assert_eq!(breaker.until_tick(12 * SECOND), Some(10 * SECOND));
    }

    #[test]
    fn a_probe_that_is_given_back_can_be_asked_for_again() {
        let mut breaker = opened();
        breaker.tick(10 * SECOND);
        let probe = breaker.acquire().expect("a probe");
        breaker.release(probe);
        assert!(breaker.acquire().is_some());
    }

    #[test]
    fn a_late_outcome_of_an_earlier_generation_changes_nothing() {
        let mut breaker = breaker();
        let slow = breaker.acquire().expect("closed");
        let failing = breaker.acquire().expect("closed");
        breaker.report(failing, CallOutcome::Failure(3), Duration::ZERO);
        breaker.tick(10 * SECOND);
        breaker.report(slow, CallOutcome::Success, 11 * SECOND);
        breaker.report(slow, CallOutcome::Failure(9), 11 * SECOND);
        breaker.release(slow);
        assert_eq!(breaker.position(), Position::HalfOpen);
        let probe = breaker.acquire().expect("a probe");
        breaker.release(slow);
        assert!(breaker.acquire().is_none(), "a stale release frees nothing");
        breaker.report(probe, CallOutcome::Success, 11 * SECOND);
    }
}
