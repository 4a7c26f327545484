//! One Kafka record as the service carries it from a source to its settlement.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bytes;
use super::dead_letter::Failure;

/// The headers of a record, in their order, packed into two allocations: records are many and headers are small.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    bytes: Vec<u8>,
    /// End of the name and, unless the value is null, of the value.
    spans: Vec<(u32, Option<u32>)>,
}

impl Headers {
    /// Room for the headers of an ordinary event.
    pub fn with_room() -> Self {
        Self { bytes: Vec::with_capacity(256), spans: Vec::with_capacity(8) }
    }

    /// Appends a header; `None` is Kafka's null value, which differs from an empty one.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        self.bytes.extend_from_slice(name.as_bytes());
        let name_end = self.bytes.len() as u32;
        let value_end = value.map(|v| {
            self.bytes.extend_from_slice(v);
            self.bytes.len() as u32
        });
        self.spans.push((name_end, value_end));
    }

    /// All headers in order; a name may appear more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.raw().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// The last value under this name, as Kafka's own `lastHeader`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.raw().filter(|(n, _)| *n == name.as_bytes()).last().and_then(|(_, value)| value)
    }

    fn raw(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut start = 0;
        self.spans.iter().map(move |&(name_end, value_end)| {
            let name = &self.bytes[start..name_end as usize];
            let value = value_end.map(|end| &self.bytes[name_end as usize..end as usize]);
            start = value_end.unwrap_or(name_end) as usize;
            (name, value)
        })
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// As a list of [name, base64 or null].
impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|(name, value)| (name, value.map(bytes::encode))))
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<(String, Option<String>)>::deserialize(deserializer)?;
        let mut headers = Self::default();
        for (name, value) in list {
            let value = value.map(|text| bytes::decode(&text)).transpose().map_err(serde::de::Error::custom)?;
            headers.push(&name, value.as_deref());
        }
        Ok(headers)
    }
}

/// Where a record stands: topic, partition and offset name it for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Coordinates {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
}

impl Coordinates {
    /// True for the same partition of the same topic.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.partition == other.partition && (Arc::ptr_eq(&self.topic, &other.topic) || self.topic == other.topic)
    }
}

/// A record taken from a topic. Whoever takes it must settle it exactly once.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Record {
    pub at: Coordinates,
    /// Counts the assignments of the partition: work on a record of an earlier assignment must not settle a later one's.
    pub assignment: u64,
    pub key: Option<Box<[u8]>>,
    pub value: Option<Box<[u8]>>,
    pub headers: Headers,
    /// Why its source knows already that it cannot be processed: it becomes a dead letter, and no stage looks at it.
    pub flaw: Option<Box<Failure>>,
}

impl Record {
    /// Bytes that this record holds in memory, for bounds on queues.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, |k| k.len())
            + self.value.as_ref().map_or(0, |v| v.len())
            + self.headers.bytes.len()
            + size_of::<Self>()
    }
}

/// A record to be written to a topic.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct OutboundRecord {
    pub topic: Arc<str>,
    pub key: Option<Box<[u8]>>,
    pub value: Vec<u8>,
    pub headers: Headers,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_come_back_as_they_went_in(
            input in prop::collection::vec(("[a-z]{0,8}", prop::option::of(prop::collection::vec(any::<u8>(), 0..20))), 0..8)
        ) {
            let mut headers = Headers::default();
            for (name, value) in &input {
                headers.push(name, value.as_deref());
            }
            let output: Vec<_> = headers.iter().map(|(n, v)| (n.to_owned(), v.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(output, input);
            let json = serde_json::to_string(&headers).expect("serialises");
            prop_assert_eq!(serde_json::from_str::<Headers>(&json).expect("reads back"), headers);
        }
    }
}
