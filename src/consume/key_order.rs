//! Keeps the order of each key while one of its records waits for a retry: later ones of that key wait behind it,
//! all others go on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::domain::record::Record;

/// Topic, partition and, where keys are told apart, the key.
type Key = (Arc<str>, i32, Box<[u8]>);

/// Records that wait behind an earlier one of their key.
#[derive(Debug, Default)]
pub struct KeyOrder {
    waiting: HashMap<Key, VecDeque<Record>>,
    held: usize,
    bytes: usize,
    whole_partitions: bool,
}

impl KeyOrder {
    /// One that lets nothing of a partition pass a record that waits.
    pub fn by_partition() -> Self {
        Self { whole_partitions: true, ..Self::default() }
    }

    /// Blocks the record's key until [`Self::release`]. A record without a key has no order to keep.
    pub fn block(&mut self, record: &Record) {
        if let Some(key) = self.key_of(record) {
            self.waiting.entry(key).or_default();
        }
    }

    /// Puts the record behind the one that blocks its key; gives it back when nothing does.
    pub fn hold(&mut self, record: Record) -> Option<Record> {
        if self.waiting.is_empty() {
            return Some(record);
        }
        let key = self.key_of(&record);
        let Some(queue) = key.and_then(|key| self.waiting.get_mut(&key)) else { return Some(record) };
        self.held += 1;
        self.bytes += record.size();
        queue.push_back(record);
        None
    }

    /// Unblocks the record's key and returns what waited behind it, in order.
    pub fn release(&mut self, record: &Record) -> VecDeque<Record> {
        let queue = self.key_of(record).and_then(|key| self.waiting.remove(&key)).unwrap_or_default();
        self.held -= queue.len();
        self.bytes -= queue.iter().map(Record::size).sum::<usize>();
        queue
    }

    fn key_of(&self, record: &Record) -> Option<Key> {
        let key = if self.whole_partitions { Some(Box::default()) } else { record.key.clone() };
        Some((Arc::clone(&record.at.topic), record.at.partition, key?))
    }

    /// Bytes of the records that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many records wait.
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::{Coordinates, Headers};

    fn record(offset: i64, key: Option<&str>) -> Record {
        Record {
            at: Coordinates { topic: "t".into(), partition: 0, offset },
            assignment: 1,
            key: key.map(|k| k.as_bytes().into()),
            value: None,
            headers: Headers::default(),
            flaw: None,
        }
    }

    #[test]
    fn a_whole_partition_may_wait() {
        let mut order = KeyOrder::by_partition();
        order.block(&record(0, Some("a")));
        assert!(order.hold(record(1, Some("b"))).is_none());
        assert!(order.hold(record(2, None)).is_none());
        assert_eq!(order.release(&record(0, Some("a"))).len(), 2);
        assert!(order.hold(record(3, None)).is_some());
    }

    #[test]
    fn only_the_blocked_key_waits_and_in_order() {
        let mut order = KeyOrder::default();
        order.block(&record(0, Some("a")));
        assert!(order.hold(record(1, Some("b"))).is_some());
        assert!(order.hold(record(2, None)).is_some());
        assert!(order.hold(record(3, Some("a"))).is_none());
        assert!(order.hold(record(4, Some("a"))).is_none());
        assert_eq!((order.held(), order.bytes() > 0), (2, true));
        let released: Vec<i64> = order.release(&record(0, Some("a"))).iter().map(|r| r.at.offset).collect();
        assert_eq!(released, [3, 4]);
        assert_eq!((order.held(), order.bytes()), (0, 0));
        assert!(order.hold(record(5, Some("a"))).is_some());
    }
}
