//! Which leases are over. Hosts' clocks differ and are set, so no lease is compared with the time: it is over when it
//! has not changed for as long as a lease holds, by this process's own steady clock, while it was looked at.

use std::collections::HashMap;
use std::time::Duration;

use crate::ports::ledger::Lease;

/// See the module.
#[derive(Default)]
pub struct LeaseWatch {
    /// By the notification's number: the lease as it is, and since when.
    seen: HashMap<i64, (Lease, Duration)>,
    last_look: Duration,
}

impl LeaseWatch {
    /// Takes note of all leases that there are, and gives those that are over.
    pub fn look(&mut self, leases: Vec<Lease>, now: Duration, holds_for: Duration) -> Vec<Lease> {
        // Whatever kept this process from looking may have kept the owners from renewing: a machine or a database that
        // stood still.
        if now.saturating_sub(self.last_look) > holds_for * 3 / 4 {
            self.forget();
        }
        self.last_look = now;
        let before = std::mem::take(&mut self.seen);
        let mut over = Vec::new();
        for lease in leases {
            let known = before.get(&lease.seq).filter(|(seen, _)| *seen == lease);
            let since = known.map_or(now, |(_, since)| *since);
            if now.saturating_sub(since) >= holds_for {
                over.push(lease.clone());
            }
            self.seen.insert(lease.seq, (lease, since));
        }
        over
    }

    /// Those that have not changed for half as long: a living owner renews it sooner.
    pub fn lingering(&self, holds_for: Duration) -> Vec<Lease> {
        let lingers = |since: &Duration| self.last_look.saturating_sub(*since) >= holds_for / 2;
        self.seen.values().filter(|(_, since)| lingers(since)).map(|(lease, _)| lease.clone()).collect()
    }

    /// Begins anew: while nobody could look, the owners may not have been able to renew either.
    pub fn forget(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    const HOLDS: Duration = Duration::from_secs(30);

    fn lease(seq: i64, owner: &str, until: i64) -> Lease {
        Lease { seq, owner: owner.to_owned(), until: Timestamp::from_millisecond(until).expect("a time") }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_lease_is_over_when_it_stayed_as_it_is_for_so_long() {
        let mut watch = LeaseWatch::default();
        let (gone, alive) = (lease(1, "a", 30_000), |tick: i64| lease(2, "b", 30_000 + tick));
        for (tick, now) in [0, 10, 20, 29].into_iter().enumerate() {
            assert_eq!(watch.look(vec![gone.clone(), alive(tick as i64)], seconds(now), HOLDS), []);
        }
        assert_eq!(watch.lingering(HOLDS), std::slice::from_ref(&gone));
        assert_eq!(watch.look(vec![gone.clone(), alive(4)], seconds(30), HOLDS), [gone]);
        // Whoever took it over has a lease of its own.
        for now in [31, 45, 60] {
            assert_eq!(watch.look(vec![lease(1, "heir", 30_000)], seconds(now), HOLDS), []);
        }
        assert_eq!(watch.look(vec![lease(1, "heir", 30_000)], seconds(61), HOLDS).len(), 1);
    }

    #[test]
    fn what_was_not_looked_at_meanwhile_is_seen_anew() {
        let mut watch = LeaseWatch::default();
        let lease = lease(1, "a", 30_000);
        let mut look = |now: u64| watch.look(vec![lease.clone()], seconds(now), HOLDS).len();
        assert_eq!([look(0), look(10), look(20)], [0, 0, 0]);
        // This process stood still, and so may the owner have.
        assert_eq!([look(60), look(70), look(80), look(90)], [0, 0, 0, 1]);
        watch.forget();
        assert_eq!(watch.look(vec![lease.clone()], seconds(100), HOLDS), []);
        assert_eq!(watch.look(vec![], seconds(110), HOLDS), []);
        assert_eq!(watch.look(vec![lease.clone()], seconds(120), HOLDS), [], "it was away in between");
        assert_eq!(watch.look(vec![lease], seconds(130), HOLDS), []);
    }

    proptest! {
        /// An owner that renews three times per lease keeps its notification, wherever its clock is set to and however
        /// often; one that stops loses it within a lease and one look.
        #[test]
        fn no_clock_takes_a_living_owner_s_lease(clocks in prop::collection::vec(any::<i32>(), 1..60)) {
            let mut watch = LeaseWatch::default();
            let mut now = Duration::ZERO;
            let mut last = lease(1, "a", 0);
            for (renewal, clock) in clocks.into_iter().enumerate() {
                // A renewal changes the lease, unless the clock stands still to the millisecond.
                let until = i64::from(clock) * 1000 + renewal as i64 % 1000;
                last = lease(1, "a", until);
                prop_assert_eq!(watch.look(vec![last.clone()], now, HOLDS), []);
                now += HOLDS / 3;
            }
            let taken = (0..4).find(|look| !watch.look(vec![last.clone()], now + HOLDS / 3 * *look, HOLDS).is_empty());
            prop_assert_eq!(taken, Some(2));
        }
    }
}
