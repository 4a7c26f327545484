//! A sequence under way: each step is asked of the ledger and of the model, and they agree.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::super::*;
use super::model::{Model, Place, event};
use super::steps::{Arrival, EXPIRES_AFTER, Ending, Kind, OWNERS, PATIENCE, RECIPIENTS, Step, WINDOW};
use crate::ports::contacts::Contacts as _;

/// More than a sequence has.
const ALL: usize = 1000;

pub struct Run<'a> {
    db: &'a Database,
    pub model: Model,
    /// What each owner was told when it got the notification last.
    seen: BTreeMap<(usize, usize), Claimed>,
}

fn number(id: &str) -> usize {
    id.parse().expect("a number")
}

fn numbers<'a>(ids: impl Iterator<Item = &'a str>) -> BTreeSet<usize> {
    ids.map(number).collect()
}

/// One of those that a step is about rather than of all, so that most steps do something.
fn pick(those: &BTreeSet<usize>, which: usize) -> Option<usize> {
    those.iter().nth(which % those.len().max(1)).copied()
}

/// The request that arrives as this notification.
fn request(which: usize, arrival: Arrival, now: i64) -> NewNotification {
    let mut new = new(&which.to_string(), now);
    new.request.recipient = Some(RECIPIENTS[arrival.recipient].to_owned());
    // A copy has the time of the first.
    new.request.caused_at = at(0);
    new.handling.about = Some("order:1".to_owned());
    new.handling.expires_at = arrival.expires.then(|| at(now + EXPIRES_AFTER));
    match arrival.kind {
        Kind::Plain => {}
        Kind::Collected => {
            new.request.template = "order_digest".to_owned();
            new.handling.digest_window = Some(Duration::from_millis(WINDOW.unsigned_abs()));
        }
        Kind::Newer => {
            new.request.template = "order_shipped".to_owned();
            new.handling.supersedes = vec!["order_confirmation".to_owned(), "order_digest".to_owned()];
        }
    }
    new
}

/// A settlement that tells of an end, as those of the service do.
fn told(claimed: &Claimed, owner: &str, state: State, now: i64) -> Settlement {
    let event = state.is_settled().then(|| message(&event(&claimed.id, state)));
    Settlement { outbox: event.into_iter().collect(), ..settlement(claimed, owner, state, now) }
}

impl<'a> Run<'a> {
    pub fn new(db: &'a Database) -> Self {
        Self { db, model: Model::new(), seen: BTreeMap::new() }
    }

    pub async fn apply(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Arrive(arrival) => self.arrive(&[arrival]).await,
            Step::Copy { which } => self.copy(self.named(which)).await,
            Step::Claim { owner, limit } => self.claim(owner, limit).await,
            Step::TakeAlong { owner } => self.take_along(owner).await,
            Step::Begin { owner, which } => {
                let held = self.model.held_by(owner);
                self.begin(owner, pick(&held, which).unwrap_or(self.named(which))).await
            }
            Step::Settle { owner, which, ending } => {
                let held = self.model.held_by(owner);
                let one = pick(&held, which).or(pick(&self.given(owner), which));
                self.settle(owner, one.as_slice(), ending).await
            }
            Step::SettleAll { owner, ending } => self.settle_all(owner, ending).await,
            Step::Pass { millis } => {
                self.model.now += millis;
                Ok(())
            }
            Step::TakeOver { owner, limit } => self.take_over(owner, limit).await,
            Step::Renew { owner } => self.renew(owner).await,
            Step::Learn { recipient } => self.learn(recipient).await,
            Step::Cancel { which } => self.cancel(self.named(which)).await,
            Step::Expire => self.expire().await,
            Step::Reopen { which } => {
                let settled = self.model.settled();
                self.reopen(pick(&settled, which).unwrap_or(self.named(which))).await
            }
            Step::Release => self.release().await,
        }
    }

    fn named(&self, which: usize) -> usize {
        which % self.model.all.len()
    }

    /// What this owner was ever given.
    fn given(&self, owner: usize) -> BTreeSet<usize> {
        self.seen.keys().filter(|(by, _)| *by == owner).map(|(_, which)| *which).collect()
    }

    pub async fn arrive(&mut self, batch: &[Arrival]) -> TestCaseResult {
        let new = (self.model.all.len()..).zip(batch);
        let requests: Vec<NewNotification> =
            new.map(|(which, arrival)| request(which, *arrival, self.model.now)).collect();
        let replaced = self.model.arrive(batch);
        self.insert(&requests, batch.len() as u64, &replaced).await
    }

    /// Adds nothing, joins nothing and replaces nothing, whatever waits meanwhile.
    async fn copy(&mut self, which: usize) -> TestCaseResult {
        let arrival = self.model.all[which].arrival;
        self.insert(&[request(which, arrival, self.model.now)], 0, &BTreeSet::new()).await
    }

    async fn insert(&self, requests: &[NewNotification], new: u64, replaced: &BTreeSet<usize>) -> TestCaseResult {
        let now = self.model.now;
        let replace = |_: &NewNotification, old: &Claimed| told(old, OUT_OF_TURN, State::Suppressed, now);
        let inserted = self.db.insert(requests, &replace).await.expect("inserts");
        prop_assert_eq!((inserted.new, inserted.duplicates), (new, requests.len() as u64 - new));
        prop_assert_eq!(&numbers(inserted.replaced.iter().map(|old| old.id.as_str())), replaced, "were replaced");
        Ok(())
    }

    /// What was handed out must be among those that could be, and be what the model knows.
    fn hold(&mut self, owner: usize, handed: Vec<Claimed>, free: &BTreeSet<usize>) -> TestCaseResult {
        prop_assert_eq!(set_of(&handed).len(), handed.len(), "handed out twice at once");
        for claimed in handed {
            let which = number(&claimed.id);
            let known = &self.model.all[which];
            prop_assert!(free.contains(&which), "{} was handed out: {:?}", which, known);
            prop_assert_eq!((claimed.attempts, claimed.reopened), (known.attempts, known.reopened));
            prop_assert_eq!(claimed.contact_version, self.model.learnt[known.arrival.recipient]);
            prop_assert_eq!(claimed.expires_at, known.expires.map(at));
            self.model.hold(which, owner);
            self.seen.insert((owner, which), claimed);
        }
        Ok(())
    }

    async fn claim(&mut self, owner: usize, limit: usize) -> TestCaseResult {
        let due = self.model.due();
        let claimed = claim(self.db, OWNERS[owner], self.model.now, limit).await;
        prop_assert_eq!(claimed.len(), due.len().min(limit));
        self.hold(owner, claimed, &due)
    }

    async fn take_along(&mut self, owner: usize) -> TestCaseResult {
        let leaders = self.model.held_by(owner);
        let followers = self.model.led_by(&leaders);
        let selection = Selection::DigestOf(leaders.iter().map(usize::to_string).collect());
        let until = at(self.model.now + LEASE);
        let seized = self.db.seize(&selection, OWNERS[owner], until, ALL).await.expect("seizes");
        prop_assert_eq!(seized.len(), followers.len());
        self.hold(owner, seized, &followers)
    }

    async fn take_over(&mut self, owner: usize, limit: usize) -> TestCaseResult {
        let left = self.model.left_behind();
        let taken = take_over_of(self.db, Channel::Email, OWNERS[owner], self.model.now, limit).await;
        let chosen: BTreeSet<usize> = taken.iter().map(|(claimed, _)| number(&claimed.id)).collect();
        prop_assert!(chosen.intersection(&left).count() >= left.len().min(limit), "{:?} of {:?}", chosen, left);
        prop_assert_eq!(&chosen, &self.model.whole(&chosen), "a digest is taken over whole");
        let left = self.model.whole(&left);
        for (claimed, provider) in &taken {
            let interrupted = self.model.all[number(&claimed.id)].is_interrupted();
            prop_assert_eq!(provider.is_some(), interrupted, "notification {}", claimed.id);
        }
        self.hold(owner, taken.into_iter().map(|(claimed, _)| claimed).collect(), &left)
    }

    /// An attempt is recorded once, and by the owner only.
    async fn begin(&mut self, owner: usize, which: usize) -> TestCaseResult {
        let known = &self.model.all[which];
        let (mine, number) = (self.model.held_by(owner).contains(&which), known.attempts + 1);
        if mine && matches!(known.place, Place::Held { begun: true, .. }) {
            return Ok(());
        }
        prop_assert_eq!(begin(self.db, OWNERS[owner], &which.to_string(), number).await, mine);
        if mine {
            self.model.begin(which);
        }
        Ok(())
    }

    fn settlement(&self, owner: usize, which: usize, ending: Ending) -> Settlement {
        let (known, now) = (&self.model.all[which], self.model.now);
        let (state, due) = self.model.written(which, ending);
        let begun = matches!(known.place, Place::Held { owner: by, begun: true, .. } if by == owner);
        let outcome = if state == State::Sent { Outcome::Accepted } else { Outcome::Transient };
        let attempt = end(known.attempts, outcome).filter(|_| begun);
        let settlement = told(&self.seen[&(owner, which)], OWNERS[owner], state, now);
        Settlement { next_attempt_at: due.map(at), attempt, ..settlement }
    }

    /// Only what is still its own is the owner's to settle, whatever else it says.
    async fn settle(&mut self, owner: usize, given: &[usize], ending: Ending) -> TestCaseResult {
        let settlements: Vec<Settlement> = given.iter().map(|which| self.settlement(owner, *which, ending)).collect();
        let settled = self.db.settle(&settlements).await.expect("settles");
        let mut mine = self.model.held_by(owner);
        mine.retain(|which| given.contains(which));
        prop_assert_eq!(&numbers(settled.iter().map(String::as_str)), &mine);
        for which in mine {
            let seen = self.seen[&(owner, which)].contact_version;
            self.model.settle(which, ending, seen);
        }
        Ok(())
    }

    /// All that it was ever given, in one transaction.
    async fn settle_all(&mut self, owner: usize, ending: Ending) -> TestCaseResult {
        let given: Vec<usize> = self.given(owner).into_iter().collect();
        self.settle(owner, &given, ending).await
    }

    async fn renew(&mut self, owner: usize) -> TestCaseResult {
        let all: Vec<String> = (0..self.model.all.len()).map(|which| which.to_string()).collect();
        let until = at(self.model.now + LEASE);
        let renewed = self.db.renew(OWNERS[owner], &all, until).await.expect("renews");
        prop_assert_eq!(renewed, self.model.renew(owner));
        Ok(())
    }

    async fn learn(&mut self, recipient: usize) -> TestCaseResult {
        let entry = with_email(RECIPIENTS[recipient], "c@example.com");
        self.db.learn(vec![entry], at(self.model.now)).await.expect("learns");
        self.model.learn(recipient);
        Ok(())
    }

    /// Settles out of turn; these are reached and no others.
    async fn call_off(&mut self, selection: Selection, state: State, reached: BTreeSet<usize>) -> TestCaseResult {
        let now = self.model.now;
        let verdict = |claimed: &Claimed| told(claimed, OUT_OF_TURN, state, now);
        let settled = self.db.call_off(&selection, ALL, &verdict).await.expect("settles");
        prop_assert_eq!(&numbers(settled.iter().map(|s| s.id.as_str())), &reached, "{:?}", selection);
        for which in reached {
            self.model.end(which, state);
        }
        Ok(())
    }

    async fn cancel(&mut self, which: usize) -> TestCaseResult {
        let reached = self.model.all[which].waits().then_some(which).into_iter().collect();
        self.call_off(Selection::Ids(vec![which.to_string()]), State::Cancelled, reached).await
    }

    async fn expire(&mut self) -> TestCaseResult {
        let (channel, now) = (Channel::Email, self.model.now);
        let expired = Selection::Expired { channel, by: at(now) };
        self.call_off(expired, State::Expired, self.model.past_their_time()).await?;
        let forgotten = Selection::Forgotten { channel, waiting_since: at(now - PATIENCE) };
        self.call_off(forgotten, State::Expired, self.model.forgotten()).await
    }

    async fn reopen(&mut self, which: usize) -> TestCaseResult {
        let reopened = self.db.reopen(&which.to_string(), at(self.model.now)).await.expect("asks");
        prop_assert_eq!(reopened.is_some(), self.model.reopen(which), "notification {}", which);
        Ok(())
    }

    async fn release(&mut self) -> TestCaseResult {
        let released = self.db.release_followers(Channel::Email, at(self.model.now)).await.expect("releases");
        prop_assert_eq!(released, self.model.release());
        Ok(())
    }

    /// The tables say what the model says: every notification is there once, in one state, with at most one owner.
    pub async fn check(&self) -> TestCaseResult {
        let all = query(
            "SELECT q.id AS id, n.state AS state, n.lease_owner AS owner, n.digest_id AS leader
             FROM requests q JOIN notifications n ON n.seq = q.seq",
        );
        let rows = all.fetch_all(&self.db.read).await.expect("reads");
        prop_assert_eq!(rows.len(), self.model.all.len());
        for row in rows {
            let (id, state): (String, String) = (row.get("id"), row.get("state"));
            let (owner, leader): (Option<String>, Option<String>) = (row.get("owner"), row.get("leader"));
            let known = &self.model.all[number(&id)];
            let (expected, holder) = known.shown();
            prop_assert_eq!(state, expected.as_str(), "notification {}", id);
            prop_assert_eq!(owner.as_deref(), holder.map(|owner| OWNERS[owner]), "notification {}", id);
            prop_assert_eq!(leader.as_deref().map(number), known.leader, "notification {}", id);
        }
        Ok(())
    }

    /// Whatever happened: one owner that stays can bring everything to its end, once, and the world hears of each end.
    pub async fn finish(&mut self) -> TestCaseResult {
        let sent = Ending::Final(State::Sent);
        self.model.now += 10 * LEASE;
        self.take_over(0, ALL).await?;
        self.settle_all(0, sent).await?;
        for recipient in 0..RECIPIENTS.len() {
            self.learn(recipient).await?;
        }
        self.release().await?;
        self.claim(0, ALL).await?;
        self.take_along(0).await?;
        self.settle_all(0, sent).await?;
        self.check().await?;
        prop_assert!(self.model.all.iter().all(|known| known.is_final()), "left over: {:?}", self.model.all);
        // Nothing comes back by itself.
        self.model.now += 10 * LEASE;
        self.claim(0, ALL).await?;
        self.take_over(0, ALL).await?;
        self.model.told.sort_unstable();
        let mut told = bodies(reserve(self.db, i64::MAX, i64::MAX, ALL).await);
        told.sort_unstable();
        prop_assert_eq!(&told, &self.model.told);
        Ok(())
    }
}
