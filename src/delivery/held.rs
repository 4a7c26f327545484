//! The notifications that a dispatcher really has in hand: only their leases are renewed. One that was lost track of
//! (a claim whose answer never came, an attempt that could not be recorded) runs out of its lease and is taken over.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ids in hand, shared by the lanes of a dispatcher and its lease keeper.
#[derive(Debug, Default)]
pub struct Held(Mutex<HashSet<String>>);

impl Held {
    /// These are in hand now.
    pub fn add<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        self.lock().extend(ids.map(str::to_owned));
    }

    /// These are not any more.
    pub fn remove<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        let mut held = self.lock();
        for id in ids {
            held.remove(id);
        }
    }

    /// All that are in hand.
    pub fn ids(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    /// A set of ids stays whole whatever panics around it.
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
