//! The account of a demo: what became of every event that was fed. Pure.

use std::collections::{HashMap, HashSet};

use crate::ports::ledger::{Brief, State};

/// An event that was fed: its id, or `None` for a line that is no envelope.
pub type Fed = Option<String>;

/// How many events ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Account {
    pub events: usize,
    pub delivered: usize,
    pub skipped: usize,
    /// Not sent, and that is no failure: suppressed, expired or cancelled.
    pub suppressed: usize,
    pub waiting: usize,
    pub dead_lettered: usize,
    /// Still on their way.
    pub open: usize,
}

impl Account {
    /// True when every event is accounted for.
    pub fn is_complete(&self) -> bool {
        self.open == 0
    }

    /// The lines of the account.
    pub fn lines(&self) -> [(&'static str, usize); 6] {
        [
            ("events", self.events),
            ("delivered", self.delivered),
            ("skipped", self.skipped),
            ("suppressed", self.suppressed),
            ("waiting", self.waiting),
            ("dead-lettered", self.dead_lettered),
        ]
    }
}

/// Adds up. `dead` are the positions of fed events that became dead letters in routing, `routed` tells whether
/// routing is done with everything.
pub fn account<'a>(
    fed: &[Fed],
    dead: &HashSet<usize>,
    notifications: impl IntoIterator<Item = &'a Brief>,
    routed: bool,
) -> Account {
    let mut by_event: HashMap<&str, Vec<State>> = HashMap::new();
    for brief in notifications {
        if let Some(event) = brief.causation_id.as_deref() {
            by_event.entry(event).or_default().push(brief.state);
        }
    }
    let mut account = Account { events: fed.len(), ..Account::default() };
    let mut seen: HashSet<&str> = HashSet::new();
    for (position, event) in fed.iter().enumerate() {
        if dead.contains(&position) {
            account.dead_lettered += 1;
            continue;
        }
        let states = event.as_deref().and_then(|id| by_event.get(id)).map(Vec::as_slice).unwrap_or_default();
        // The second copy of an event adds nothing to the first.
        let repeated = event.as_deref().is_some_and(|id| !seen.insert(id));
        let has = |wanted: State| states.contains(&wanted);
        if !routed && states.is_empty() {
            account.open += 1;
        } else if states.is_empty() || repeated {
            account.skipped += 1;
        } else if states.iter().any(|s| matches!(s, State::Pending | State::Sending | State::Retrying)) {
            account.open += 1;
        } else if has(State::Failed) {
            account.dead_lettered += 1;
        } else if has(State::AwaitingContact) {
            account.waiting += 1;
        } else if !has(State::Sent) {
            account.suppressed += 1;
        } else {
            account.delivered += 1;
        }
    }
    account
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(event: &str, state: State) -> Brief {
        Brief { id: format!("n-{event}"), causation_id: Some(event.into()), state }
    }

    #[test]
    fn every_event_is_counted_once() {
        let fed: Vec<Fed> = ["sent", "sent", "waits", "failed", "unwanted", "unrouted"]
            .iter()
            .map(|id| Some((*id).to_owned()))
            .chain([None])
            .collect();
        let notifications = [
            brief("sent", State::Sent),
            brief("waits", State::AwaitingContact),
            brief("failed", State::Failed),
            brief("unwanted", State::Suppressed),
        ];
        let account = account(&fed, &HashSet::from([6]), &notifications, true);
        let expected =
            Account { events: 7, delivered: 1, skipped: 2, suppressed: 1, waiting: 1, dead_lettered: 2, open: 0 };
        assert_eq!(account, expected);
    }

    #[test]
    fn what_is_on_its_way_is_open() {
        let fed = [Some("a".to_owned()), Some("b".to_owned())];
        let sending = [brief("a", State::Sending)];
        assert_eq!(account(&fed, &HashSet::new(), &sending, false).open, 2);
        assert_eq!(account(&fed, &HashSet::new(), &sending, true).open, 1);
    }
}
