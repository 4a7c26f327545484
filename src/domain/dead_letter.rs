//! Dead letters: the complete story of a record that could not be processed, with its bytes recoverable exactly.

use std::error::Error;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::bytes;
use super::envelope::to_json;
use super::error::ErrorClass;
use super::fingerprint::fingerprint;
use super::record::{Headers, Record};
use super::time::format_utc;

/// JSON nested deeper than this is carried as base64: many parsers give up soon after.
const MAX_EMBEDDED_DEPTH: usize = 64;

/// A reason is for people: longer ones are cut.
const MAX_REASON_CHARS: usize = 1000;

/// The stage in which a record failed, or that read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Stage {
    Routing,
    Delivery,
    /// Puts dead letters into their table. Its own failures never reach the topic.
    Review,
}

impl Stage {
    /// The stages that write dead letters, for pre-registering metrics.
    pub const ALL: [Self; 2] = [Self::Routing, Self::Delivery];

    /// The name used in dead letters and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Delivery => "delivery",
            Self::Review => "review",
        }
    }
}

/// Why and when a record failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Decides the reaction.
    pub class: ErrorClass,
    /// Stable, snake_case.
    pub code: String,
    /// For people: names the field and the rule.
    pub reason: String,
    /// The error's source chain, outermost first.
    pub chain: Vec<String>,
    /// How often the record was tried again.
    pub retries: u32,
    /// First and last failure.
    pub first_at: Timestamp,
    /// See `first_at`.
    pub last_at: Timestamp,
}

impl Failure {
    /// A failure at its first occurrence.
    ///
    /// A parser's message quotes the value at fault, which may be as large as the record: the reason is cut.
    pub fn new(class: ErrorClass, code: impl Into<String>, reason: impl Into<String>, now: Timestamp) -> Self {
        let reason: String = reason.into();
        Self {
            class,
            code: code.into(),
            reason: reason.chars().filter(|c| *c != '\0').take(MAX_REASON_CHARS).collect(),
            chain: Vec::new(),
            retries: 0,
            first_at: now,
            last_at: now,
        }
    }

    /// A failure with what the error says, and the errors behind it.
    pub fn of(class: ErrorClass, code: impl Into<String>, error: &dyn Error, now: Timestamp) -> Self {
        let (mut chain, mut cause) = (Vec::new(), error.source());
        while let Some(error) = cause {
            chain.push(error.to_string().chars().filter(|c| *c != '\0').take(MAX_REASON_CHARS).collect());
            cause = error.source();
        }
        Self { chain, ..Self::new(class, code, error.to_string(), now) }
    }
}

/// Where the original message stood. A direct request has neither partition nor offset.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Origin {
    pub topic: String,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    #[serde(with = "bytes")]
    pub key: Option<Vec<u8>>,
    #[serde(with = "bytes")]
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl From<&Record> for Origin {
    fn from(record: &Record) -> Self {
        Self {
            topic: record.at.topic.to_string(),
            partition: Some(record.at.partition),
            offset: Some(record.at.offset),
            key: record.key.as_deref().map(<[u8]>::to_vec),
            value: record.value.as_deref().map(<[u8]>::to_vec),
            headers: record.headers.clone(),
        }
    }
}

/// A record that could not be processed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeadLetter {
    pub origin: Origin,
    pub stage: Stage,
    pub failure: Failure,
    /// The event's type where it could be read.
    pub event_type: Option<String>,
}

/// How the original message is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Embedded byte for byte.
    Json,
    /// Not embeddable exactly: base64 of the bytes.
    Base64,
    /// There was no value (a tombstone).
    Null,
    /// Too large for the topic: the payload is in the `dead_letters` table.
    Parked,
}

impl Encoding {
    /// The name used in the envelope.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Base64 => "base64",
            Self::Null => "null",
            Self::Parked => "parked",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    original_topic: &'a str,
    original_partition: Option<i32>,
    original_offset: Option<i64>,
    failure_reason: &'a str,
    error_class: &'a str,
    error_code: &'a str,
    stage: &'a str,
    retry_count: u32,
    first_failure_timestamp: String,
    last_failure_timestamp: String,
    original_message_encoding: &'a str,
    original_message: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked_id: Option<&'a str>,
    stack_trace: String,
    service_name: &'a str,
    service_version: &'a str,
    fingerprint: String,
}

impl DeadLetter {
    /// The envelope's JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let (encoding, message) = embed(self.origin.value.as_deref());
        self.wire(encoding, &message, None)
    }

    /// The envelope's JSON without the payload, which is parked under this id.
    pub fn to_reference_json(&self, parked_id: &str) -> Vec<u8> {
        self.wire(Encoding::Parked, &RawValue::NULL.to_owned(), Some(parked_id))
    }

    fn wire(&self, encoding: Encoding, message: &RawValue, parked_id: Option<&str>) -> Vec<u8> {
        let failure = &self.failure;
        let mut stack_trace = failure.reason.clone();
        for cause in &failure.chain {
            let _ = write!(stack_trace, "\ncaused by: {cause}");
        }
        to_json(&Wire {
            original_topic: &self.origin.topic,
            original_partition: self.origin.partition,
            original_offset: self.origin.offset,
            failure_reason: &failure.reason,
            error_class: failure.class.as_str(),
            error_code: &failure.code,
            stage: self.stage.as_str(),
            retry_count: failure.retries,
            first_failure_timestamp: format_utc(failure.first_at),
            last_failure_timestamp: format_utc(failure.last_at),
            original_message_encoding: encoding.as_str(),
            original_message: message,
            parked_id,
            stack_trace,
            service_name: env!("CARGO_PKG_NAME"),
            service_version: env!("CARGO_PKG_VERSION"),
            fingerprint: self.fingerprint(),
        })
    }

    /// The same for failures of the same kind: class, code, event type, and the reason without its particulars.
    pub fn fingerprint(&self) -> String {
        let Failure { class, code, reason, .. } = &self.failure;
        fingerprint(class.as_str(), code, self.event_type.as_deref(), reason)
    }
}

/// Carries a value so that its bytes can be recovered exactly.
fn embed(value: Option<&[u8]>) -> (Encoding, Box<RawValue>) {
    let Some(value) = value else {
        return (Encoding::Null, RawValue::NULL.to_owned());
    };
    let text = std::str::from_utf8(value).ok().filter(|text| {
        // A parser drops white space around a value, so only a text without it comes back whole.
        text.trim_ascii().len() == text.len() && depth(text) <= MAX_EMBEDDED_DEPTH
    });
    // A half of a surrogate pair or a number beyond any double is JSON by its grammar, but no ordinary parser reads it,
    // and embedded it would make the whole letter unreadable.
    let readable = text.filter(|text| serde_json::from_str::<serde_json::Value>(text).is_ok());
    if let Some(raw) = readable.and_then(|text| serde_json::from_str::<&RawValue>(text).ok()) {
        return (Encoding::Json, raw.to_owned());
    }
    let quoted = format!("\"{}\"", bytes::encode(value));
    let raw = RawValue::from_string(quoted).unwrap_or_else(|e| unreachable!("base64 in quotes is JSON: {e}"));
    (Encoding::Base64, raw)
}

/// An upper bound of the nesting depth (brackets inside strings count too, which only errs towards base64).
fn depth(text: &str) -> usize {
    let (mut now, mut deepest) = (0usize, 0usize);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letter(value: Option<&[u8]>) -> DeadLetter {
        DeadLetter {
            origin: Origin {
                topic: "order-events".into(),
                partition: Some(1),
                offset: Some(42),
                key: None,
                value: value.map(<[u8]>::to_vec),
                headers: Headers::default(),
            },
            stage: Stage::Routing,
            failure: Failure::new(
                ErrorClass::Permanent,
                "missing_field",
                "`data.orderId` is missing",
                Timestamp::UNIX_EPOCH,
            ),
            event_type: Some("OrderCreated".into()),
        }
    }

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Read<'a> {
        original_message_encoding: String,
        #[serde(borrow)]
        original_message: &'a RawValue,
    }

    fn recover(json: &[u8]) -> Option<Vec<u8>> {
        let read: Read<'_> = serde_json::from_slice(json).expect("an envelope");
        match read.original_message_encoding.as_str() {
            "json" => Some(read.original_message.get().as_bytes().to_vec()),
            "base64" => {
                let text: String = serde_json::from_str(read.original_message.get()).expect("a string");
                Some(bytes::decode(&text).expect("base64"))
            }
            "null" => None,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn any_value_comes_back_byte_for_byte() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let cases: [Option<&[u8]>; 10] = [
            Some(br#"{"a":"\ud800"}"#),
            Some(b"[1e999]"),
            None,
            Some(b""),
            Some(b"\xff\xfe\x00"),
            Some(b" {\"a\":1}\n"),
            Some(b"{\"a\": 1.10, \"a\" : 2}"),
            Some(b"{\"a\":"),
            Some(b"\"text\""),
            Some(deep.as_bytes()),
        ];
        for value in cases {
            let json = letter(value).to_json();
            assert_eq!(recover(&json).as_deref(), value);
            assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok(), "any parser reads a letter");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_come_back_too(value in prop::option::of(prop::collection::vec(any::<u8>(), 0..200))) {
            prop_assert_eq!(recover(&letter(value.as_deref()).to_json()), value);
        }

        #[test]
        fn random_json_comes_back_too(value in "[ \\[\\]{}:,\"a0-9.\\\\n]{0,24}") {
            prop_assert_eq!(recover(&letter(Some(value.as_bytes())).to_json()), Some(value.into_bytes()));
        }
    }

    #[test]
    fn a_reason_is_cut_to_what_a_person_reads() {
        let failure = Failure::new(ErrorClass::Permanent, "x", "long \0".repeat(100_000), Timestamp::UNIX_EPOCH);
        assert_eq!(failure.reason.chars().count(), MAX_REASON_CHARS);
        assert!(!failure.reason.contains('\0'));
    }
}
