//! Whom a channel's lanes are sending to at this moment: for the throttle these count as sent.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Notifications under way and their recipients.
#[derive(Debug, Default)]
pub struct UnderWay(Mutex<HashMap<String, String>>);

impl UnderWay {
    /// This one is on its way.
    pub fn begin(&self, id: &str, recipient: &str) {
        self.lock().insert(id.to_owned(), recipient.to_owned());
    }

    /// These are settled, and the ledger counts them.
    pub fn end<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        let mut under_way = self.lock();
        for id in ids {
            under_way.remove(id);
        }
    }

    /// How many are on their way to each recipient.
    pub fn counts(&self) -> HashMap<String, u64> {
        let mut counts = HashMap::new();
        for recipient in self.lock().values() {
            *counts.entry(recipient.clone()).or_default() += 1;
        }
        counts
    }

    /// A map of texts stays whole whatever panics around it.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
