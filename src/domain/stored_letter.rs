//! Dead letters as their table has them: read from the topic, whoever wrote them there.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::bytes;
use super::dead_letter::{DeadLetter, Encoding, Failure, Origin, Stage};
use super::envelope::Envelope;
use super::error::ErrorClass;
use super::fingerprint::fingerprint;
use super::ids::{dead_letter_id, letter_id};
use super::record::Record;
use super::time::parse_rfc3339;

/// Names in a letter are short; what another writer put there is cut to what an index takes.
const MAX_NAME_CHARS: usize = 249;

/// As the reason of a [`Failure`].
const MAX_REASON_CHARS: usize = 1000;

/// A dead letter, in the columns by which it is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StoredLetter {
    /// The same for every copy of the letter.
    pub id: String,
    pub stage: String,
    pub error_class: String,
    pub error_code: String,
    pub fingerprint: String,
    pub event_type: Option<String>,
    pub reason: String,
    pub retry_count: i64,
    pub original_topic: String,
    pub original_partition: Option<i64>,
    pub original_offset: Option<i64>,
    pub first_failure_at: Option<Timestamp>,
    pub last_failure_at: Option<Timestamp>,
    /// The letter as it stands on the topic.
    pub letter: String,
    pub recorded_at: Timestamp,
}

impl StoredLetter {
    /// What a record of the dead letter topic says. One that is no letter becomes a letter about itself, with the code
    /// `undecodable`: nothing that stands on the topic is missing in the table.
    pub fn of_record(record: &Record, now: Timestamp) -> Self {
        let own_place = || {
            let at = &record.at;
            letter_id(&at.topic, Some(at.partition.into()), Some(at.offset), record.value.as_deref())
        };
        match Fields::read(record.value.as_deref()) {
            Ok(fields) => fields.stored(own_place, now),
            Err(reason) => undecodable(record, reason, now),
        }
    }

    /// A letter whose payload is parked, as its reference on the topic will say it.
    pub fn of_parked(letter: &DeadLetter, now: Timestamp) -> Self {
        let id = dead_letter_id(letter);
        let json = letter.to_reference_json(&id);
        Self { event_type: letter.event_type.as_deref().map(short), ..own(&json, id, now) }
    }
}

fn undecodable(record: &Record, reason: String, now: Timestamp) -> StoredLetter {
    let failure = Failure::new(ErrorClass::Permanent, "undecodable", reason, now);
    let letter = DeadLetter { origin: Origin::from(record), stage: Stage::Review, failure, event_type: None };
    // It is found whenever the topic is read again, and then it has not failed again.
    StoredLetter { last_failure_at: None, ..own(&letter.to_json(), dead_letter_id(&letter), now) }
}

/// A letter that this service wrote just now.
fn own(json: &[u8], id: String, now: Timestamp) -> StoredLetter {
    let fields = Fields::read(Some(json)).unwrap_or_else(|e| unreachable!("an own letter is readable: {e}"));
    StoredLetter { id: id.clone(), ..fields.stored(|| id, now) }
}

/// The fields of a letter, each read on its own: other writers leave some out, and spell numbers as texts.
struct Fields<'a> {
    text: &'a str,
    values: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    fn read(value: Option<&'a [u8]>) -> Result<Self, String> {
        let no_letter = |why: &dyn std::fmt::Display| format!("the record is no dead letter: {why}");
        let text = std::str::from_utf8(value.unwrap_or_default()).map_err(|e| no_letter(&e))?;
        let values = serde_json::from_str(text).map_err(|e| no_letter(&e))?;
        let fields = Self { text, values };
        if fields.name("originalTopic").is_none() {
            return Err(no_letter(&"`originalTopic` is missing"));
        }
        Ok(fields)
    }

    fn stored(&self, own_place: impl FnOnce() -> String, now: Timestamp) -> StoredLetter {
        let error_class = self.name("errorClass").unwrap_or_else(|| ErrorClass::Permanent.as_str().to_owned());
        let error_code = self.name("errorCode").unwrap_or_else(|| "unknown".to_owned());
        let reason: String = self.string("failureReason").unwrap_or_default();
        let original = self.original();
        let event_type = self.event_type(original.as_deref());
        let computed = || fingerprint(&error_class, &error_code, event_type.as_deref(), &reason);
        StoredLetter {
            id: self.id(original.as_deref()).unwrap_or_else(own_place),
            stage: self.name("stage").unwrap_or_else(|| "unknown".to_owned()),
            // The letter's own, so that who has read it on the topic finds its group here.
            fingerprint: self.name("fingerprint").unwrap_or_else(computed),
            error_class,
            error_code,
            event_type: event_type.as_deref().map(short),
            reason: reason.chars().filter(|c| *c != '\0').take(MAX_REASON_CHARS).collect(),
            retry_count: self.number("retryCount").unwrap_or(0),
            original_topic: self.name("originalTopic").unwrap_or_default(),
            original_partition: self.number("originalPartition"),
            original_offset: self.number("originalOffset"),
            first_failure_at: self.time("firstFailureTimestamp"),
            last_failure_at: self.time("lastFailureTimestamp"),
            letter: self.text.to_owned(),
            recorded_at: now,
        }
    }

    /// The id under which this service knows its own letters. A letter of another one about the same record is another
    /// letter, so it has no id but that of its place on the topic.
    fn id(&self, original: Option<&[u8]>) -> Option<String> {
        if self.string("serviceName")? != env!("CARGO_PKG_NAME") {
            return None;
        }
        if self.encoding().as_deref() == Some(Encoding::Parked.as_str()) {
            return self.name("parkedId").filter(|id| uuid::Uuid::parse_str(id).is_ok());
        }
        let topic = self.string("originalTopic")?;
        Some(letter_id(&topic, self.number("originalPartition"), self.number("originalOffset"), original))
    }

    fn event_type(&self, original: Option<&[u8]>) -> Option<String> {
        self.string("eventType").or_else(|| Some(Envelope::decode(original).ok()?.event_type.into_owned()))
    }

    fn encoding(&self) -> Option<String> {
        self.string("originalMessageEncoding")
    }

    /// The bytes of the record that failed, where the letter has them.
    fn original(&self) -> Option<Vec<u8>> {
        let message = self.values.get("originalMessage")?.get();
        let text = || serde_json::from_str::<String>(message).ok();
        match self.encoding().as_deref() {
            Some("json") => Some(message.as_bytes().to_vec()),
            Some("base64") => bytes::decode(&text()?).ok(),
            Some(_) => None,
            // Without this field a text may be the message itself, in quotes.
            None => Some(text().map_or_else(|| message.as_bytes().to_vec(), String::into_bytes)),
        }
    }

    fn value<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        serde_json::from_str(self.values.get(field)?.get()).ok()
    }

    fn string(&self, field: &str) -> Option<String> {
        self.value(field)
    }

    fn name(&self, field: &str) -> Option<String> {
        self.string(field).map(|text| short(&text)).filter(|text| !text.is_empty())
    }

    fn number(&self, field: &str) -> Option<i64> {
        self.value(field).or_else(|| self.string(field)?.parse().ok())
    }

    fn time(&self, field: &str) -> Option<Timestamp> {
        parse_rfc3339(&self.string(field)?)
    }
}

/// Databases take no NUL in a text.
fn short(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::record::{Coordinates, Headers};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn record(value: Option<&[u8]>, offset: i64) -> Record {
        let at = Coordinates { topic: Arc::from("dead-letter-queue"), partition: 0, offset };
        Record { at, assignment: 1, key: None, value: value.map(Into::into), headers: Headers::default(), flaw: None }
    }

    fn letter(value: Option<&[u8]>, event_type: Option<&str>) -> DeadLetter {
        let mut failure = Failure::new(ErrorClass::Transient, "code", "no \"x\" at 7", NOW);
        failure.retries = 3;
        let origin = Origin {
            topic: "order-events".into(),
            partition: Some(2),
            offset: Some(42),
            key: None,
            value: value.map(<[u8]>::to_vec),
            headers: Headers::default(),
        };
        DeadLetter { origin, stage: Stage::Routing, failure, event_type: event_type.map(str::to_owned) }
    }

    const ORDER: &[u8] = br#"{"eventId":"e","eventType":"OrderCreated","aggregateId":"a","version":1,
        "timestamp":"2026-01-15T10:30:00Z","data":{}}"#;

    #[test]
    fn an_own_letter_is_known_by_its_id_and_found_by_its_columns() {
        let letter = letter(Some(ORDER), Some("OrderCreated"));
        let json = letter.to_json();
        let stored = StoredLetter::of_record(&record(Some(&json), 5), NOW);
        assert_eq!(stored.id, dead_letter_id(&letter));
        assert_eq!(stored.fingerprint, letter.fingerprint());
        assert_eq!(stored.event_type.as_deref(), Some("OrderCreated"));
        assert_eq!((stored.stage.as_str(), stored.error_class.as_str()), ("routing", "transient"));
        assert_eq!((stored.error_code.as_str(), stored.reason.as_str()), ("code", "no \"x\" at 7"));
        assert_eq!((stored.retry_count, stored.original_topic.as_str()), (3, "order-events"));
        assert_eq!((stored.original_partition, stored.original_offset), (Some(2), Some(42)));
        assert_eq!((stored.first_failure_at, stored.last_failure_at), (Some(NOW), Some(NOW)));
        assert_eq!(stored.letter.as_bytes(), json);
        let copy = StoredLetter::of_record(&record(Some(&json), 6), NOW);
        assert_eq!(copy, stored, "a second copy on the topic is the same letter");
    }

    #[test]
    fn a_parked_letter_is_the_same_from_both_sides() {
        let letter = letter(Some(ORDER), Some("OrderCreated"));
        let parked = StoredLetter::of_parked(&letter, NOW);
        assert_eq!(parked.id, dead_letter_id(&letter));
        let reference = letter.to_reference_json(&parked.id);
        let read = StoredLetter::of_record(&record(Some(&reference), 5), NOW);
        // The payload, where the type stands, is in the table already.
        assert_eq!(StoredLetter { event_type: parked.event_type.clone(), ..read }, parked);
        assert_eq!(parked.fingerprint, letter.fingerprint());
    }

    #[test]
    fn a_letter_of_another_service_is_read_as_far_as_it_goes() {
        let foreign = json!({
            "originalTopic": "order-events", "originalPartition": "2", "originalOffset": "42",
            "failureReason": "order \"7\" is un\u{0}known", "retryCount": 3,
            "originalMessage": String::from_utf8_lossy(ORDER), "stackTrace": "at line 3",
            "lastFailureTimestamp": "2026-01-15T10:30:00Z",
        });
        let json = foreign.to_string();
        let stored = StoredLetter::of_record(&record(Some(json.as_bytes()), 5), NOW);
        assert_eq!((stored.original_partition, stored.original_offset), (Some(2), Some(42)));
        assert_eq!((stored.stage.as_str(), stored.error_code.as_str()), ("unknown", "unknown"));
        assert_eq!(stored.event_type.as_deref(), Some("OrderCreated"));
        assert_eq!(stored.reason, "order \"7\" is unknown", "databases take no NUL");
        assert_eq!((stored.first_failure_at.is_some(), stored.last_failure_at.is_some()), (false, true));
        let own = letter(Some(ORDER), None).to_json();
        let own = StoredLetter::of_record(&record(Some(&own), 6), NOW);
        assert_ne!(stored.id, own.id, "about the same record, and another letter");
        let other = json.replace("\\\"7\\\"", "\\\"8\\\"");
        let other = StoredLetter::of_record(&record(Some(other.as_bytes()), 7), NOW);
        assert_eq!(other.fingerprint, stored.fingerprint, "one cause");
        assert_ne!(other.id, stored.id);
    }

    #[test]
    fn what_is_no_letter_is_a_letter_about_itself() {
        let deep = "[".repeat(10_000);
        for value in [None, Some(&b""[..]), Some(b"\xff"), Some(b"{}"), Some(b"[1]"), Some(deep.as_bytes())] {
            let record = record(value, 5);
            let stored = StoredLetter::of_record(&record, NOW);
            assert_eq!((stored.stage.as_str(), stored.error_code.as_str()), ("review", "undecodable"));
            assert_eq!((stored.original_topic.as_str(), stored.original_offset), ("dead-letter-queue", Some(5)));
            let fields = Fields::read(Some(stored.letter.as_bytes())).expect("it is a letter");
            assert_eq!(fields.original().as_deref(), value, "with the record's bytes");
        }
    }

    proptest! {
        #[test]
        fn any_letter_has_its_id_from_both_sides(value in prop::option::of(prop::collection::vec(any::<u8>(), 0..100))) {
            let letter = letter(value.as_deref(), None);
            let stored = StoredLetter::of_record(&record(Some(&letter.to_json()), 5), NOW);
            prop_assert_eq!(stored.id, dead_letter_id(&letter));
            prop_assert_eq!(StoredLetter::of_parked(&letter, NOW).id, dead_letter_id(&letter));
        }

        #[test]
        fn any_record_is_stored_within_bounds(value in "\\PC{0,30}", field in "[a-zA-Z]{0,20}") {
            let text = value.repeat(300);
            let mut json = json!({"originalTopic": text, "stage": text, "errorCode": text, "fingerprint": text});
            json[field] = json!(text);
            let stored = StoredLetter::of_record(&record(Some(json.to_string().as_bytes()), 5), NOW);
            for name in [&stored.stage, &stored.error_code, &stored.fingerprint, &stored.original_topic, &stored.id] {
                prop_assert!(name.chars().count() <= MAX_NAME_CHARS);
            }
        }
    }
}
