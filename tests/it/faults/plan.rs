//! Which faults happen, in which order and how hard: it follows from the seed alone.

use std::ops::Range;
use std::time::Duration;

use crate::support::random::Random;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL, and another instance in its place.
    KillInstance,
    /// SIGTERM and a restart, one instance after the other.
    RollInstances,
    /// SIGSTOP for longer than its membership lasts.
    FreezeInstance,
    /// From one instance to three and back.
    ChangeMembership,
    /// SIGKILL of a broker, and a start on the same data.
    KillBroker,
    /// SIGTERM of a broker, and a start.
    StopBroker,
    /// A broker hands its leaderships to the others and takes them back.
    MoveLeaders,
    /// Answers of the brokers are late.
    Latency,
    /// Answers of the brokers trickle.
    Narrow,
    /// Nothing gets through, and nobody is told.
    Cut,
    /// Every connection is reset, again and again.
    Reset,
    /// FLUSHALL.
    FlushRedis,
    /// SIGKILL of Redis, and a start without its data.
    RestartRedis,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub kind: Kind,
    /// Which one it hits, modulo how many there are.
    pub victim: usize,
    /// How long it lasts.
    pub hold: Duration,
    /// Milliseconds that an answer is late.
    pub latency_ms: u64,
    /// Undisturbed work after the recovery.
    pub rest: Duration,
}

/// Faults without end; each kind once before any comes again.
pub struct Plan {
    random: Random,
    kinds: Vec<Kind>,
    round: Vec<Kind>,
}

impl Kind {
    /// Every kind that makes sense with so many brokers.
    pub fn all(brokers: usize, with_redis: bool) -> Vec<Self> {
        use Kind::*;
        let instances = [KillInstance, RollInstances, FreezeInstance, ChangeMembership];
        let mut kinds = [instances.as_slice(), &[KillBroker, StopBroker, Latency, Narrow, Cut, Reset]].concat();
        if brokers > 1 {
            kinds.push(MoveLeaders);
        }
        if with_redis {
            kinds.extend([FlushRedis, RestartRedis]);
        }
        kinds
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::KillInstance => "instance killed",
            Self::RollInstances => "rolling restart",
            Self::FreezeInstance => "instance frozen",
            Self::ChangeMembership => "membership 1-3-1",
            Self::KillBroker => "broker killed",
            Self::StopBroker => "broker stopped",
            Self::MoveLeaders => "leaders moved",
            Self::Latency => "network latency",
            Self::Narrow => "network narrow",
            Self::Cut => "network cut",
            Self::Reset => "connections reset",
            Self::FlushRedis => "Redis flushed",
            Self::RestartRedis => "Redis restarted",
        }
    }

    /// Milliseconds that it lasts.
    fn lengths(self) -> Range<usize> {
        match self {
            Self::KillInstance | Self::RestartRedis => 0..3_000,
            Self::RollInstances | Self::MoveLeaders | Self::FlushRedis => 0..1,
            // Longer than a session of the service's consumers, 10 s.
            Self::FreezeInstance => 12_000..16_000,
            Self::ChangeMembership => 500..2_000,
            Self::KillBroker | Self::StopBroker => 500..8_000,
            Self::Latency => 3_000..8_000,
            Self::Narrow | Self::Cut | Self::Reset => 4_000..12_000,
        }
    }
}

impl Plan {
    pub fn new(seed: u64, kinds: &[Kind]) -> Self {
        Self { random: Random::new(seed), kinds: kinds.to_vec(), round: Vec::new() }
    }

    fn between(&mut self, range: Range<usize>) -> usize {
        range.start + self.random.below(range.len())
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
        }
        let chosen = self.random.below(self.round.len());
        let kind = self.round.swap_remove(chosen);
        Some(Step {
            kind,
            victim: self.between(0..1_000),
            hold: Duration::from_millis(self.between(kind.lengths()) as u64),
            latency_ms: self.between(300..900) as u64,
            rest: Duration::from_millis(self.between(500..3_000) as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(seed: u64, count: usize) -> Vec<Step> {
        Plan::new(seed, &Kind::all(3, true)).take(count).collect()
    }

    #[test]
    fn the_seed_alone_decides() {
        assert_eq!(steps(7, 100), steps(7, 100));
        assert_ne!(steps(7, 100), steps(8, 100));
    }

    #[test]
    fn each_kind_has_its_turn_before_any_comes_again() {
        let mut kinds = Kind::all(3, true);
        kinds.sort();
        for round in steps(3, 4 * kinds.len()).chunks(kinds.len()) {
            let mut round: Vec<Kind> = round.iter().map(|step| step.kind).collect();
            round.sort();
            assert_eq!(round, kinds);
        }
    }
}
