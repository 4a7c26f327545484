//! What happens to a ledger: requests arrive, dispatchers work and die, contacts become known, people interfere.

use proptest::prelude::*;

use super::LEASE;
use crate::ports::ledger::State;

/// Dispatchers.
pub const OWNERS: [&str; 2] = ["left", "right"];
pub const RECIPIENTS: [&str; 2] = ["customer-1", "customer-2"];
/// Sequences have few more notifications.
const MOST: usize = 10;

/// For how long a digest collects, in milliseconds.
pub const WINDOW: i64 = LEASE;
/// How long after its arrival one that expires is worth nothing any more.
pub const EXPIRES_AFTER: i64 = LEASE;
/// For how long a contact is waited for.
pub const PATIENCE: i64 = LEASE;
/// Leases outlive a few of these.
const MOMENT: i64 = 2_000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Plain,
    /// It travels with others of its kind.
    Collected,
    /// It replaces those of other kinds.
    Newer,
}

/// A request for a notification. All of a recipient are about the same order.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub kind: Kind,
    pub recipient: usize,
    pub expires: bool,
}

/// What an owner says became of what it was given.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    Final(State),
    Again { wait: i64 },
    Awaiting,
}

/// `which` counts among those that the step is about, and begins again after the last.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Arrive(Arrival),
    /// A request comes once more.
    Copy {
        which: usize,
    },
    Claim {
        owner: usize,
        limit: usize,
    },
    /// Whoever has the leaders of digests takes their followers.
    TakeAlong {
        owner: usize,
    },
    /// One of those that the owner has; without any, one that is not its own.
    Begin {
        owner: usize,
        which: usize,
    },
    /// One of those that the owner has; without any, one that it had once.
    Settle {
        owner: usize,
        which: usize,
        ending: Ending,
    },
    /// All that it ever had, at once.
    SettleAll {
        owner: usize,
        ending: Ending,
    },
    /// Time passes; after a whole lease all owners that did not renew are as good as dead.
    Pass {
        millis: i64,
    },
    TakeOver {
        owner: usize,
        limit: usize,
    },
    Renew {
        owner: usize,
    },
    Learn {
        recipient: usize,
    },
    Cancel {
        which: usize,
    },
    /// What is past its time, or waited for a contact for too long.
    Expire,
    /// A person tries one again that is settled; without any, one that is not.
    Reopen {
        which: usize,
    },
    /// Followers whose leader is settled without them go on.
    Release,
}

pub fn arrival() -> impl Strategy<Value = Arrival> {
    let kind = prop_oneof![3 => Just(Kind::Plain), 4 => Just(Kind::Collected), 1 => Just(Kind::Newer)];
    (kind, 0..RECIPIENTS.len(), prop::bool::weighted(0.3)).prop_map(|(kind, recipient, expires)| Arrival {
        kind,
        recipient,
        expires,
    })
}

fn ending() -> impl Strategy<Value = Ending> {
    let state = prop_oneof![
        3 => Just(State::Sent),
        2 => Just(State::Failed),
        1 => Just(State::Suppressed),
        1 => Just(State::Expired),
    ];
    prop_oneof![
        3 => state.prop_map(Ending::Final),
        3 => (0..3i64).prop_map(|n| Ending::Again { wait: n * LEASE }),
        2 => Just(Ending::Awaiting),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let (owner, which) = (0..OWNERS.len(), 0..MOST);
    let millis = prop_oneof![Just(MOMENT), Just(LEASE), Just(LEASE + 1)];
    prop_oneof![
        3 => arrival().prop_map(Step::Arrive),
        1 => which.clone().prop_map(|which| Step::Copy { which }),
        6 => (owner.clone(), 0..=5usize).prop_map(|(owner, limit)| Step::Claim { owner, limit }),
        3 => owner.clone().prop_map(|owner| Step::TakeAlong { owner }),
        4 => (owner.clone(), which.clone()).prop_map(|(owner, which)| Step::Begin { owner, which }),
        8 => (owner.clone(), which.clone(), ending())
            .prop_map(|(owner, which, ending)| Step::Settle { owner, which, ending }),
        1 => (owner.clone(), ending()).prop_map(|(owner, ending)| Step::SettleAll { owner, ending }),
        3 => millis.prop_map(|millis| Step::Pass { millis }),
        3 => (owner.clone(), 1..=5usize).prop_map(|(owner, limit)| Step::TakeOver { owner, limit }),
        1 => owner.prop_map(|owner| Step::Renew { owner }),
        2 => (0..RECIPIENTS.len()).prop_map(|recipient| Step::Learn { recipient }),
        1 => which.clone().prop_map(|which| Step::Cancel { which }),
        2 => Just(Step::Expire),
        2 => which.prop_map(|which| Step::Reopen { which }),
        2 => Just(Step::Release),
    ]
}
