//! What must be true of each notification, whatever is asked of the ledger: a pure model, which knows no database.
//!
//! - None is lost: each is in one place, and a way leads on from every place that is not final.
//! - Only what is due is handed out, and only an expired lease is passed on: never are there two living owners.
//! - What is final is handed out no more and stays as it is, unless a person opens it again. What was sent stays sent.
//! - Each end is told once, and nothing else is told.

use std::collections::BTreeSet;

use super::LEASE;
use super::steps::{Arrival, EXPIRES_AFTER, Ending, Kind, PATIENCE, RECIPIENTS, WINDOW};
use crate::ports::ledger::State;

/// Where a notification must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    /// It waits for this time; one that travels with another has none.
    Due { state: State, at: Option<i64> },
    /// In an owner's hands, with an attempt that is `begun`, or that an owner before it began and nobody answered for.
    Held { owner: usize, until: i64, begun: bool, interrupted: bool },
    /// No contact is known.
    Awaiting,
    /// Settled.
    Final(State),
}

/// What is known about a notification.
#[derive(Debug)]
pub struct Known {
    pub arrival: Arrival,
    pub place: Place,
    /// Which one carries it along.
    pub leader: Option<usize>,
    pub attempts: u32,
    pub reopened: u32,
    pub expires: Option<i64>,
    arrived: i64,
    /// When it was first found to have no contact.
    lacking_since: Option<i64>,
}

impl Known {
    fn new(arrival: Arrival, now: i64) -> Self {
        let window = if arrival.kind == Kind::Collected { WINDOW } else { 0 };
        Self {
            arrival,
            place: Place::Due { state: State::Pending, at: Some(now + window) },
            leader: None,
            attempts: 0,
            reopened: 0,
            expires: arrival.expires.then_some(now + EXPIRES_AFTER),
            arrived: now,
            lacking_since: None,
        }
    }

    /// The state, and who holds it.
    pub fn shown(&self) -> (State, Option<usize>) {
        match self.place {
            Place::Due { state, .. } | Place::Final(state) => (state, None),
            Place::Held { owner, .. } => (State::Sending, Some(owner)),
            Place::Awaiting => (State::AwaitingContact, None),
        }
    }

    pub fn is_final(&self) -> bool {
        matches!(self.place, Place::Final(_))
    }

    /// Neither in somebody's hands nor settled: so it can be called off.
    pub fn waits(&self) -> bool {
        matches!(self.place, Place::Due { .. } | Place::Awaiting)
    }

    /// Whether a provider may have got it from an owner that is gone.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.place, Place::Held { begun, interrupted, .. } if begun || interrupted)
    }

    /// When a lane may claim it.
    fn due(&self) -> Option<i64> {
        match self.place {
            Place::Due { at, .. } if self.leader.is_none() => at,
            _ => None,
        }
    }

    /// When it is due, of one that collects and that nobody has touched yet.
    fn collects(&self) -> Option<i64> {
        let pending = matches!(self.place, Place::Due { state: State::Pending, .. });
        self.due().filter(|_| self.arrival.kind == Kind::Collected && pending && self.attempts == 0)
    }
}

pub struct Model {
    /// Milliseconds, as [`super::at`] counts them.
    pub now: i64,
    /// In the order in which they arrived; a notification's id is its place here.
    pub all: Vec<Known>,
    /// Entries learnt so far, by recipient, which is what the directory's versions count.
    pub learnt: [i64; RECIPIENTS.len()],
    /// What the outbox must hold.
    pub told: Vec<String>,
}

/// What the world is told about the end of a notification.
pub fn event(id: &str, state: State) -> String {
    format!("{id} {}", state.as_str())
}

impl Model {
    pub fn new() -> Self {
        Self { now: 0, all: Vec::new(), learnt: [0; RECIPIENTS.len()], told: Vec::new() }
    }

    fn those(&self, which: impl Fn(&Known) -> bool) -> BTreeSet<usize> {
        self.all.iter().enumerate().filter(|(_, known)| which(known)).map(|(n, _)| n).collect()
    }

    /// What lanes may claim.
    pub fn due(&self) -> BTreeSet<usize> {
        self.those(|known| known.due().is_some_and(|at| at <= self.now))
    }

    /// What waits for one of these.
    pub fn led_by(&self, leaders: &BTreeSet<usize>) -> BTreeSet<usize> {
        self.those(|known| known.waits() && known.leader.is_some_and(|leader| leaders.contains(&leader)))
    }

    pub fn held_by(&self, by: usize) -> BTreeSet<usize> {
        self.those(|known| matches!(known.place, Place::Held { owner, .. } if owner == by))
    }

    pub fn settled(&self) -> BTreeSet<usize> {
        self.those(Known::is_final)
    }

    /// What may be taken over.
    pub fn left_behind(&self) -> BTreeSet<usize> {
        self.those(|known| matches!(known.place, Place::Held { until, .. } if until < self.now))
    }

    /// With the rest of their digests, as far as the same owner has it.
    pub fn whole(&self, some: &BTreeSet<usize>) -> BTreeSet<usize> {
        let together = |one: usize, other: usize| match (self.all[one].place, self.all[other].place) {
            (Place::Held { owner: one, .. }, Place::Held { owner: other, .. }) => one == other,
            _ => false,
        };
        let leader = |which: &usize| self.all[*which].leader.filter(|leader| together(*which, *leader));
        let leaders: BTreeSet<usize> = some.iter().filter_map(leader).chain(some.iter().copied()).collect();
        let follows = |which: &usize| leader(which).is_some_and(|leader| leaders.contains(&leader));
        (0..self.all.len()).filter(|which| leaders.contains(which) || follows(which)).collect()
    }

    pub fn past_their_time(&self) -> BTreeSet<usize> {
        self.those(|known| known.waits() && known.expires.is_some_and(|at| at <= self.now))
    }

    /// What waited for a contact for too long.
    pub fn forgotten(&self) -> BTreeSet<usize> {
        let long = |known: &Known| known.lacking_since.is_some_and(|since| since <= self.now - PATIENCE);
        self.those(|known| known.place == Place::Awaiting && long(known))
    }

    /// Says what the new ones replace.
    pub fn arrive(&mut self, batch: &[Arrival]) -> BTreeSet<usize> {
        let known = self.all.len();
        self.all.extend(batch.iter().map(|arrival| Known::new(*arrival, self.now)));
        (known..self.all.len()).for_each(|new| self.join(new));
        (known..self.all.len()).flat_map(|new| self.replace(new)).collect()
    }

    /// It travels with the oldest that collects for its recipient, which leaves when the first of them would have.
    fn join(&mut self, new: usize) {
        let Some(due) = self.all[new].collects() else { return };
        let recipient = self.all[new].arrival.recipient;
        let leads = |old: &Known| old.arrival.recipient == recipient && old.collects().is_some();
        if let Some(leader) = self.all[..new].iter().position(leads) {
            self.all[new].leader = Some(leader);
            if let Place::Due { at: Some(at), .. } = &mut self.all[leader].place {
                *at = (*at).min(due);
            }
            self.all[new].place = Place::Due { state: State::Pending, at: None };
        }
    }

    /// Ends what a newer one replaces: all that waits for its recipient, but for what is to be sent within a second and
    /// has not stood in the queue for five.
    pub fn replace(&mut self, newer: usize) -> BTreeSet<usize> {
        let Arrival { kind, recipient, .. } = self.all[newer].arrival;
        let delayed = |known: &Known| match known.place {
            Place::Due { at, .. } => at.is_some_and(|at| at > self.now + 1000) || known.arrived < self.now - 5000,
            _ => known.place == Place::Awaiting,
        };
        let older = |known: &Known| {
            kind == Kind::Newer && known.arrival.kind != Kind::Newer && known.arrival.recipient == recipient
        };
        let replaced = self.those(|known| older(known) && delayed(known));
        replaced.iter().for_each(|old| self.end(*old, State::Suppressed));
        replaced
    }

    /// An owner gets it.
    pub fn hold(&mut self, which: usize, owner: usize) {
        let known = &mut self.all[which];
        let interrupted = known.is_interrupted();
        known.place = Place::Held { owner, until: self.now + LEASE, begun: false, interrupted };
    }

    /// Its owner records an attempt.
    pub fn begin(&mut self, which: usize) {
        let known = &mut self.all[which];
        known.attempts += 1;
        if let Place::Held { begun, .. } = &mut known.place {
            *begun = true;
        }
    }

    /// Says how many leases are longer now.
    pub fn renew(&mut self, by: usize) -> u64 {
        let mut renewed = 0;
        for known in &mut self.all {
            if let Place::Held { owner, until, .. } = &mut known.place
                && *owner == by
            {
                (*until, renewed) = (self.now + LEASE, renewed + 1);
            }
        }
        renewed
    }

    /// What an owner writes down: the state, and when it is due. One that travels with another waits for that one.
    pub fn written(&self, which: usize, ending: Ending) -> (State, Option<i64>) {
        let known = &self.all[which];
        match ending {
            Ending::Final(state) => (state, None),
            Ending::Awaiting => (State::AwaitingContact, None),
            Ending::Again { .. } if known.leader.is_some() => (State::Pending, None),
            Ending::Again { wait } if known.attempts == 0 => (State::Pending, Some(self.now + wait)),
            Ending::Again { wait } => (State::Retrying, Some(self.now + wait)),
        }
    }

    /// Its owner, who saw this version of the directory's entry, settles it. A newer entry ends the wait for a contact.
    pub fn settle(&mut self, which: usize, ending: Ending, seen: i64) {
        let (state, at) = self.written(which, ending);
        let newer = self.learnt[self.all[which].arrival.recipient] > seen;
        let known = &mut self.all[which];
        match state {
            State::AwaitingContact => {
                known.lacking_since = known.lacking_since.or(Some(self.now));
                let woken = Place::Due { state: State::Pending, at: Some(self.now) };
                known.place = if newer { woken } else { Place::Awaiting };
            }
            State::Pending | State::Retrying => known.place = Place::Due { state, at },
            _ => self.end(which, state),
        }
    }

    pub fn end(&mut self, which: usize, state: State) {
        self.all[which].place = Place::Final(state);
        self.told.push(event(&which.to_string(), state));
    }

    pub fn learn(&mut self, recipient: usize) {
        self.learnt[recipient] += 1;
        for known in &mut self.all {
            if known.place == Place::Awaiting && known.arrival.recipient == recipient {
                known.place = Place::Due { state: State::Pending, at: Some(self.now) };
            }
        }
    }

    /// True when it begins anew.
    pub fn reopen(&mut self, which: usize) -> bool {
        let (now, known) = (self.now, &mut self.all[which]);
        let unsent = matches!(known.place, Place::Final(state) if state != State::Sent);
        if unsent {
            known.place = Place::Due { state: State::Pending, at: Some(now) };
            known.leader = None;
            known.expires = known.expires.filter(|at| *at > now);
            known.lacking_since = None;
            known.reopened += 1;
        }
        unsent
    }

    /// Of those that wait for one that is settled without them the first leads the others now. Says how many they are.
    pub fn release(&mut self) -> u64 {
        let mut released = 0;
        for gone in self.settled() {
            let left = self.those(|known| known.leader == Some(gone) && matches!(known.place, Place::Due { .. }));
            let head = left.first().copied();
            for which in &left {
                let (known, leads) = (&mut self.all[*which], Some(*which) == head);
                known.leader = head.filter(|_| !leads);
                if let Place::Due { at, .. } = &mut known.place {
                    *at = leads.then_some(self.now);
                }
            }
            released += left.len() as u64;
        }
        released
    }
}
