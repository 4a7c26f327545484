//! Any sequence of what dispatchers do, compared with a model: nothing is lost, held twice or sent twice.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use sqlx::{Row as _, query};

use super::*;
use crate::ports::contacts::Contacts as _;

const NOTIFICATIONS: usize = 5;
const OWNERS: [&str; 2] = ["left", "right"];
const RECIPIENTS: [&str; 2] = ["customer-1", "customer-2"];

#[derive(Debug, Clone, Copy)]
enum Step {
    Claim {
        owner: usize,
        limit: usize,
    },
    Begin {
        owner: usize,
        which: usize,
    },
    Settle {
        owner: usize,
        which: usize,
        ending: Ending,
    },
    /// All leases that were given so far expire.
    Expire,
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
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Sent,
    Failed,
    Again { wait: i64 },
    Awaiting,
}

fn step() -> impl Strategy<Value = Step> {
    let (owner, which) = (0..OWNERS.len(), 0..NOTIFICATIONS);
    let ending = prop_oneof![
        Just(Ending::Sent),
        Just(Ending::Failed),
        (0..3i64).prop_map(|n| Ending::Again { wait: n * LEASE }),
        Just(Ending::Awaiting),
        Just(Ending::Awaiting),
    ];
    prop_oneof![
        4 => (owner.clone(), 0..=NOTIFICATIONS).prop_map(|(owner, limit)| Step::Claim { owner, limit }),
        4 => (owner.clone(), which.clone()).prop_map(|(owner, which)| Step::Begin { owner, which }),
        6 => (owner.clone(), which, ending).prop_map(|(owner, which, ending)| Step::Settle { owner, which, ending }),
        1 => Just(Step::Expire),
        2 => (owner.clone(), 1..=NOTIFICATIONS).prop_map(|(owner, limit)| Step::TakeOver { owner, limit }),
        1 => owner.prop_map(|owner| Step::Renew { owner }),
        2 => (0..RECIPIENTS.len()).prop_map(|recipient| Step::Learn { recipient }),
    ]
}

/// Where a notification must be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Due { state: &'static str, at: i64 },
    Held { owner: usize, until: i64, begun: bool },
    Awaiting,
    Done(&'static str),
}

struct Model<'a> {
    db: &'a Database,
    now: i64,
    places: [Place; NOTIFICATIONS],
    attempts: [u32; NOTIFICATIONS],
    /// Entries learnt so far, by recipient, which is what the directory's versions count.
    learnt: [i64; 2],
    /// What each owner was told when it got the notification last.
    seen: HashMap<(usize, usize), Claimed>,
}

impl Model<'_> {
    async fn apply(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Claim { owner, limit } => self.claim(owner, limit).await,
            Step::Begin { owner, which } => self.begin(owner, which).await,
            Step::Settle { owner, which, ending } => self.settle(owner, which, ending).await,
            Step::Expire => {
                self.now += LEASE + 1;
                Ok(())
            }
            Step::TakeOver { owner, limit } => self.take_over(owner, limit).await,
            Step::Renew { owner } => self.renew(owner).await,
            Step::Learn { recipient } => self.learn(recipient).await,
        }
    }

    fn index(claimed: &Claimed) -> usize {
        claimed.id.parse().expect("a number")
    }

    fn hold(&mut self, owner: usize, claimed: Claimed) {
        let which = Self::index(&claimed);
        self.places[which] = Place::Held { owner, until: self.now + LEASE, begun: false };
        self.seen.insert((owner, which), claimed);
    }

    async fn claim(&mut self, owner: usize, limit: usize) -> TestCaseResult {
        let due = |place: &Place| matches!(place, Place::Due { at, .. } if *at <= self.now);
        let available = self.places.iter().filter(|p| due(p)).count();
        let claimed = claim(self.db, OWNERS[owner], self.now, limit).await;
        prop_assert_eq!(set_of(&claimed).len(), claimed.len(), "claimed twice at once");
        prop_assert_eq!(claimed.len(), available.min(limit));
        for claimed in claimed {
            let which = Self::index(&claimed);
            let place = self.places[which];
            prop_assert!(matches!(place, Place::Due { at, .. } if at <= self.now), "{} was {:?}", which, place);
            prop_assert_eq!(claimed.attempts, self.attempts[which]);
            prop_assert_eq!(claimed.contact_version, self.learnt[which % RECIPIENTS.len()]);
            self.hold(owner, claimed);
        }
        Ok(())
    }

    async fn begin(&mut self, by: usize, which: usize) -> TestCaseResult {
        let number = self.attempts[which] + 1;
        match &mut self.places[which] {
            Place::Held { owner, begun, .. } if *owner == by => {
                if !*begun {
                    prop_assert!(begin(self.db, OWNERS[by], &which.to_string(), number).await);
                    (*begun, self.attempts[which]) = (true, number);
                }
            }
            _ => prop_assert!(!begin(self.db, OWNERS[by], &which.to_string(), number).await),
        }
        Ok(())
    }

    async fn settle(&mut self, by: usize, which: usize, ending: Ending) -> TestCaseResult {
        let Some(seen) = self.seen.get(&(by, which)) else { return Ok(()) };
        let state = match ending {
            Ending::Sent => State::Sent,
            Ending::Failed => State::Failed,
            Ending::Again { .. } => State::Retrying,
            Ending::Awaiting => State::AwaitingContact,
        };
        let mut settlement = settlement(seen, OWNERS[by], state, self.now);
        if let Ending::Again { wait } = ending {
            settlement.next_attempt_at = Some(at(self.now + wait));
        }
        let holds = match self.places[which] {
            Place::Held { owner, begun, .. } if owner == by => {
                settlement.attempt = end(self.attempts[which], Outcome::Transient).filter(|_| begun);
                true
            }
            _ => false,
        };
        let newer = self.learnt[which % RECIPIENTS.len()] > settlement.contact_version;
        prop_assert_eq!(settle(self.db, settlement).await, holds);
        if holds {
            self.places[which] = match ending {
                Ending::Sent => Place::Done("sent"),
                Ending::Failed => Place::Done("failed"),
                Ending::Again { wait } => Place::Due { state: "retrying", at: self.now + wait },
                Ending::Awaiting if newer => Place::Due { state: "pending", at: self.now },
                Ending::Awaiting => Place::Awaiting,
            };
        }
        Ok(())
    }

    async fn take_over(&mut self, by: usize, limit: usize) -> TestCaseResult {
        let expired = |place: &Place| matches!(place, Place::Held { until, .. } if *until < self.now);
        let available = self.places.iter().filter(|p| expired(p)).count();
        let taken = take_over_of(self.db, Channel::Email, OWNERS[by], self.now, limit).await;
        prop_assert_eq!(taken.len(), available.min(limit));
        for (claimed, provider) in taken {
            let which = Self::index(&claimed);
            let Place::Held { until, begun, .. } = self.places[which] else {
                return Err(TestCaseError::fail(format!("{which} was {:?}", self.places[which])));
            };
            prop_assert!(until < self.now, "{} was still leased", which);
            // One that was interrupted before and not settled since is another test's.
            if begun || self.attempts[which] == 0 {
                prop_assert_eq!(provider.is_some(), begun);
            }
            prop_assert_eq!(claimed.attempts, self.attempts[which]);
            self.hold(by, claimed);
        }
        Ok(())
    }

    async fn renew(&mut self, by: usize) -> TestCaseResult {
        let all: Vec<String> = (0..NOTIFICATIONS).map(|n| n.to_string()).collect();
        let mut held = 0;
        for place in &mut self.places {
            if let Place::Held { owner, until, .. } = place
                && *owner == by
            {
                (held, *until) = (held + 1, self.now + LEASE);
            }
        }
        prop_assert_eq!(self.db.renew(OWNERS[by], &all, at(self.now + LEASE)).await.expect("renews"), held);
        Ok(())
    }

    async fn learn(&mut self, recipient: usize) -> TestCaseResult {
        self.learnt[recipient] += 1;
        self.db.learn(vec![with_email(RECIPIENTS[recipient], "c@example.com")]).await.expect("learns");
        for (which, place) in self.places.iter_mut().enumerate() {
            if *place == Place::Awaiting && which % RECIPIENTS.len() == recipient {
                *place = Place::Due { state: "pending", at: i64::MIN };
            }
        }
        Ok(())
    }

    /// The tables say what the model says: every notification is there once, in one state, with at most one owner.
    async fn check(&self) -> TestCaseResult {
        let all = query("SELECT q.id, n.state, n.lease_owner FROM requests q JOIN notifications n ON n.seq = q.seq");
        let rows = all.fetch_all(&self.db.read).await.expect("reads");
        prop_assert_eq!(rows.len(), NOTIFICATIONS);
        for row in rows {
            let which: usize = row.get::<String, _>("id").parse().expect("a number");
            let expected = match self.places[which] {
                Place::Due { state, .. } => (state, None),
                Place::Held { owner, .. } => ("sending", Some(OWNERS[owner])),
                Place::Awaiting => ("awaiting_contact", None),
                Place::Done(state) => (state, None),
            };
            let (state, owner): (String, Option<String>) = (row.get("state"), row.get("lease_owner"));
            prop_assert_eq!((state.as_str(), owner.as_deref()), expected, "notification {}", which);
        }
        Ok(())
    }

    /// Whatever happened: one owner that stays can bring everything to its end.
    async fn finish(&mut self) -> TestCaseResult {
        self.now += 10 * LEASE;
        self.take_over(0, NOTIFICATIONS).await?;
        for recipient in 0..RECIPIENTS.len() {
            self.learn(recipient).await?;
        }
        self.claim(0, NOTIFICATIONS).await?;
        for which in 0..NOTIFICATIONS {
            self.settle(0, which, Ending::Sent).await?;
        }
        self.check().await?;
        prop_assert!(self.places.iter().all(|p| matches!(p, Place::Done(_))), "left over: {:?}", self.places);
        Ok(())
    }
}

async fn run(steps: Vec<Step>) -> TestCaseResult {
    let folder = tempfile::tempdir().expect("a folder");
    let fresh = Fresh::open(format!("sqlite://{}", folder.path().join("ledger.db").display())).await;
    let batch: Vec<NewNotification> = (0..NOTIFICATIONS)
        .map(|n| {
            let mut new = new(&n.to_string(), 0);
            new.request.recipient = Some(RECIPIENTS[n % RECIPIENTS.len()].to_owned());
            new
        })
        .collect();
    add(&fresh, &batch).await.expect("inserted");
    let mut model = Model {
        db: &fresh,
        now: 0,
        places: [Place::Due { state: "pending", at: 0 }; NOTIFICATIONS],
        attempts: [0; NOTIFICATIONS],
        learnt: [0; 2],
        seen: HashMap::new(),
    };
    for step in steps {
        model.apply(step).await?;
        model.check().await?;
    }
    model.finish().await?;
    fresh.close().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_sequence_loses_a_notification_or_gives_it_to_two_owners(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(steps))?;
    }
}
