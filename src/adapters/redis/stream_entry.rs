//! Entries of a Redis stream, and what becomes of one when it is a record like any other.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::domain::bytes;
use crate::domain::dead_letter::Failure;
use crate::domain::envelope::Envelope;
use crate::domain::error::ErrorClass;
use crate::domain::record::{Coordinates, Headers, Record};

/// A stream has one order, as a partition has.
pub const PARTITION: i32 = 0;
/// The header that names the entry.
pub const ENTRY_ID: &str = "redisEntryId";
/// The header that says how often it was delivered, this time included.
pub const DELIVERIES: &str = "redisDeliveries";
/// The field whose value keeps entries in order with each other.
const KEY: &str = "key";
/// The field that is the key of entries without one of their own.
const AGGREGATE_ID: &str = "aggregateId";
/// Room for the sequence number within an offset.
const SEQUENCE_BITS: u32 = 20;

/// `milliseconds-sequence`; later entries have greater ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[allow(missing_docs)]
pub struct EntryId {
    pub ms: u64,
    pub seq: u64,
}

impl EntryId {
    /// The least id that is greater.
    pub fn next(self) -> Self {
        let (seq, carried) = self.seq.overflowing_add(1);
        Self { ms: self.ms.saturating_add(u64::from(carried)), seq }
    }

    /// The number under which the service carries the entry: `ms * 2^20 + seq`, which keeps the order. Ids that do not
    /// fit, which only publishers that choose their own can make, get a negative number out of a hash of the id. Either
    /// way the same entry has the same number for ever.
    pub fn offset(self) -> i64 {
        let fits = self.ms < 1 << (63 - SEQUENCE_BITS) && self.seq < 1 << SEQUENCE_BITS;
        if fits {
            return ((self.ms << SEQUENCE_BITS) | self.seq) as i64;
        }
        let hash = Sha256::digest(self.to_string());
        let bits = hash.iter().take(8).fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
        (bits | 1 << 63) as i64
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed =
            text.split_once('-').and_then(|(ms, seq)| Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? }));
        parsed.ok_or_else(|| format!("`{text}` is no entry id"))
    }
}

/// An entry as Redis has it: fields may repeat, and hold any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Entry {
    pub id: EntryId,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How the entries of a stream are read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The stream's key, which stands where a record has its topic.
    pub stream: Arc<str>,
    /// The field that holds the event.
    pub field: String,
    /// An entry that is delivered more often is poison.
    pub max_deliveries: u64,
}

impl Reading {
    /// The record of an entry that is delivered for the so-manieth time.
    pub fn record(&self, entry: Entry, deliveries: u64, now: Timestamp) -> Record {
        let Entry { id, mut fields } = entry;
        let event = fields.iter().position(|(name, _)| name == self.field.as_bytes());
        let whole = event.is_none().then(|| as_json(&fields));
        let value = event.map(|at| fields.remove(at).1);
        let flaw = self.flaw(value.is_none(), &fields, deliveries, now);
        let key = key(&mut fields, value.as_deref().filter(|_| flaw.is_none()));
        let mut headers = Headers::with_room();
        for (name, value) in &fields {
            headers.push(&String::from_utf8_lossy(name), Some(value));
        }
        // Behind the publisher's, for the last header of a name is the one that counts.
        headers.push(ENTRY_ID, Some(id.to_string().as_bytes()));
        headers.push(DELIVERIES, Some(deliveries.to_string().as_bytes()));
        Record {
            at: Coordinates { topic: Arc::clone(&self.stream), partition: PARTITION, offset: id.offset() },
            assignment: 0,
            key: key.map(Into::into),
            value: value.or(whole).map(Into::into),
            headers,
            flaw: flaw.map(Box::new),
        }
    }

    fn flaw(&self, empty: bool, fields: &[(Vec<u8>, Vec<u8>)], deliveries: u64, now: Timestamp) -> Option<Failure> {
        if deliveries > self.max_deliveries {
            let earlier = deliveries - 1;
            let reason = format!("the entry was delivered {earlier} times before and never came to an end");
            let failure = Failure::new(ErrorClass::Bug, "poison_entry", reason, now);
            return Some(Failure { retries: u32::try_from(deliveries).unwrap_or(u32::MAX), ..failure });
        }
        let names: Vec<_> = fields.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
        let reason = || format!("`{}` is missing: the entry has the fields {}", self.field, names.join(", "));
        empty.then(|| Failure::new(ErrorClass::Permanent, "missing_field", reason(), now))
    }
}

/// What keeps entries in order with each other: the field `key`, else the field `aggregateId`, else the event's own.
fn key(fields: &mut Vec<(Vec<u8>, Vec<u8>)>, event: Option<&[u8]>) -> Option<Vec<u8>> {
    if let Some(at) = fields.iter().position(|(name, _)| name == KEY.as_bytes()) {
        return Some(fields.remove(at).1);
    }
    if let Some((_, value)) = fields.iter().find(|(name, _)| name == AGGREGATE_ID.as_bytes()) {
        return Some(value.clone());
    }
    let read = || Some(Envelope::decode(Some(event?)).ok()?.aggregate_id.into_owned().into_bytes());
    // As when the stage decodes it: a panic costs this one record no more than its key.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_default()
}

/// All fields as a list of `[name, value]`, for they may repeat; what is no text is `{"base64": …}`.
fn as_json(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({"base64": bytes::encode(bytes)}),
    };
    Value::from_iter(fields.iter().map(|(name, value)| Value::from(vec![text(name), text(value)])))
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(ms: u64, seq: u64) -> EntryId {
        EntryId { ms, seq }
    }

    fn record(fields: &[(&str, &[u8])], deliveries: u64) -> Record {
        let reading = Reading { stream: "shop".into(), field: "event".into(), max_deliveries: 5 };
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
        reading.record(Entry { id: id(1_700_000_000_000, 3), fields }, deliveries, Timestamp::UNIX_EPOCH)
    }

    fn event(aggregate: &str) -> Vec<u8> {
        format!(
            r#"{{"eventId":"e","eventType":"OrderCreated","aggregateId":"{aggregate}","version":1,
                "timestamp":"2026-01-15T10:30:00Z","data":{{}}}}"#
        )
        .into_bytes()
    }

    proptest! {
        #[test]
        fn ordinary_ids_keep_their_order_as_offsets(a in (0..1u64 << 43, 0..1u64 << 20), b in (0..1u64 << 43, 0..1u64 << 20)) {
            let (a, b) = (id(a.0, a.1), id(b.0, b.1));
            prop_assert_eq!(a.cmp(&b), a.offset().cmp(&b.offset()));
            prop_assert!(a.offset() >= 0);
            prop_assert_eq!(a.to_string().parse::<EntryId>(), Ok(a));
        }

        #[test]
        fn the_next_id_is_greater(ms in 0..u64::MAX - 1, seq in any::<u64>()) {
            prop_assert!(id(ms, seq).next() > id(ms, seq));
        }

        #[test]
        fn any_fields_make_a_record(
            fields in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..8), prop::collection::vec(any::<u8>(), 0..40)), 0..6)
        ) {
            let reading = Reading { stream: "shop".into(), field: "event".into(), max_deliveries: 5 };
            let record = reading.record(Entry { id: id(1, 1), fields: fields.clone() }, 1, Timestamp::UNIX_EPOCH);
            prop_assert!(record.flaw.is_some() && record.value.is_some());
        }
    }

    #[test]
    fn ids_that_do_not_fit_have_offsets_of_their_own() {
        let strange = [id(1, 1 << 20), id(u64::MAX, u64::MAX), id(1 << 43, 0)];
        for (at, one) in strange.iter().enumerate() {
            assert!(one.offset() < 0);
            assert_eq!(one.offset(), one.offset(), "the same again");
            assert!(strange[at + 1..].iter().all(|other| other.offset() != one.offset()));
        }
        assert_eq!(id(1, u64::MAX).next(), id(2, 0));
        assert!("17".parse::<EntryId>().is_err() && "a-b".parse::<EntryId>().is_err());
    }

    #[test]
    fn fields_become_value_key_and_headers() {
        let good = event("order-1");
        let taken = record(&[("traceparent", b"00-x"), ("event", &good), ("key", b"k"), ("redisEntryId", b"a lie")], 2);
        assert_eq!(taken.value.as_deref(), Some(good.as_slice()));
        assert_eq!(taken.key.as_deref(), Some(b"k".as_slice()));
        assert_eq!(taken.headers.get("traceparent"), Some(b"00-x".as_slice()));
        assert_eq!(taken.headers.get("key"), None);
        assert_eq!(taken.headers.get(ENTRY_ID), Some(b"1700000000000-3".as_slice()), "what the source says counts");
        assert_eq!(taken.headers.get(DELIVERIES), Some(b"2".as_slice()));
        assert_eq!((&*taken.at.topic, taken.at.partition), ("shop", 0));
        assert!(taken.flaw.is_none());
    }

    #[test]
    fn without_a_key_the_aggregate_keeps_the_order() {
        let good = event("order-1");
        assert_eq!(record(&[("event", &good)], 1).key.as_deref(), Some(b"order-1".as_slice()));
        let named = record(&[("event", &good), ("aggregateId", b"order-2")], 1);
        assert_eq!(named.key.as_deref(), Some(b"order-2".as_slice()));
        assert!(named.headers.get("aggregateId").is_some(), "and stays a header");
        assert_eq!(record(&[("event", b"nonsense")], 1).key, None);
    }

    #[test]
    fn an_entry_without_the_field_is_flawed_and_whole() {
        let bad = record(&[("a", b"1"), ("a", b"\xff"), ("b", b"\"")], 1);
        let flaw = bad.flaw.expect("a flaw");
        assert_eq!((flaw.class, flaw.code.as_str()), (ErrorClass::Permanent, "missing_field"));
        assert!(flaw.reason.contains("`event`") && flaw.reason.contains("a, a, b"), "{}", flaw.reason);
        assert_eq!(bad.value.as_deref(), Some(br#"[["a","1"],["a",{"base64":"/w=="}],["b","\""]]"#.as_slice()));
    }

    #[test]
    fn an_entry_delivered_too_often_is_poison() {
        let good = event("order-1");
        assert!(record(&[("event", &good)], 5).flaw.is_none());
        let poison = record(&[("event", &good)], 6);
        let flaw = poison.flaw.expect("a flaw");
        assert_eq!((flaw.class, flaw.code.as_str(), flaw.retries), (ErrorClass::Bug, "poison_entry", 6));
        assert_eq!(poison.value.as_deref(), Some(good.as_slice()), "its bytes stay");
        assert_eq!(poison.key, None, "it is not even decoded");
    }
}
