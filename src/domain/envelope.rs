//! The envelope every event travels in, decoded from bytes without copying what can be borrowed.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::error::DecodeError;
use super::object::Object;
use super::time::parse_rfc3339;

/// A decoded envelope. Its `data` is still text: only a handler that wants the event decodes it.
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    /// Names the event for ever; any non-empty string.
    pub event_id: Cow<'a, str>,
    /// Chooses the handler.
    pub event_type: Cow<'a, str>,
    /// The order, user, product or notification that the event is about.
    pub aggregate_id: Cow<'a, str>,
    /// Version of the shape of `data`.
    pub version: i64,
    /// When the event happened, in the spelling of its source.
    pub timestamp: Cow<'a, str>,
    /// `timestamp`, parsed.
    pub occurred_at: Timestamp,
    /// The payload, as it was written.
    pub data: &'a RawValue,
    /// Where the event comes from and what caused it.
    pub metadata: Metadata<'a>,
}

/// The optional `metadata` of an envelope.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// The program that published the event.
    #[serde(borrow, default)]
    pub source: Option<Cow<'a, str>>,
    /// Ties all events of one business transaction together.
    #[serde(borrow, default)]
    pub correlation_id: Option<Cow<'a, str>>,
    /// The event that caused this one.
    #[serde(borrow, default)]
    pub causation_id: Option<Cow<'a, str>>,
    /// On requests: the timestamp of the event that caused it.
    #[serde(borrow, default)]
    pub caused_at: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    aggregate_id: Cow<'a, str>,
    version: i64,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    metadata: Option<Object<Metadata<'a>>>,
}

impl<'a> Envelope<'a> {
    /// Decodes a record's value.
    ///
    /// # Errors
    /// A [`DecodeError`] that names the field and the rule.
    pub fn decode(value: Option<&'a [u8]>) -> Result<Self, DecodeError> {
        let bytes = value.ok_or(DecodeError::NullValue)?;
        if bytes.is_empty() {
            return Err(DecodeError::EmptyValue);
        }
        let text = std::str::from_utf8(bytes).map_err(|e| DecodeError::InvalidUtf8(e.valid_up_to()))?;
        let wire: Wire<'a> = from_json(text, "")?;
        for (field, value) in
            [("eventId", &wire.event_id), ("eventType", &wire.event_type), ("aggregateId", &wire.aggregate_id)]
        {
            non_empty(field, value)?;
        }
        let occurred_at = parse_rfc3339(&wire.timestamp)
            .ok_or_else(|| DecodeError::invalid("timestamp", "expected an RFC 3339 date-time"))?;
        Ok(Self {
            event_id: wire.event_id,
            event_type: wire.event_type,
            aggregate_id: wire.aggregate_id,
            version: wire.version,
            timestamp: wire.timestamp,
            occurred_at,
            data: wire.data,
            metadata: wire.metadata.map(|Object(metadata)| metadata).unwrap_or_default(),
        })
    }

    /// The id that ties this event's consequences together; an event without one starts one with its own id.
    pub fn correlation_id(&self) -> &str {
        // One that could not be stored counts as none: it must not cost the event its effect.
        let usable = |id: &&str| non_empty("", id).is_ok();
        self.metadata.correlation_id.as_deref().filter(usable).unwrap_or(&self.event_id)
    }

    /// Decodes `data` as a type, naming fields as `data.…`.
    ///
    /// # Errors
    /// A [`DecodeError`] that names the field and the rule.
    pub fn data_as<T: Deserialize<'a>>(&self) -> Result<T, DecodeError> {
        from_json(self.data.get(), "data")
    }

    /// Refuses a version of the event's shape that this program does not know.
    ///
    /// # Errors
    /// [`DecodeError::UnknownVersion`].
    pub fn require_version(&self, expected: u32) -> Result<(), DecodeError> {
        if self.version == i64::from(expected) {
            return Ok(());
        }
        Err(DecodeError::UnknownVersion { event_type: self.event_type.to_string(), version: self.version, expected })
    }
}

/// Identifiers are keys of database indexes, which hold no more than about 2,700 bytes.
const MAX_IDENTIFIER_BYTES: usize = 1024;

/// Refuses an identifier that names nothing, or that a text column or an index cannot hold.
pub(crate) fn non_empty(field: &str, value: &str) -> Result<(), DecodeError> {
    if value.is_empty() {
        return Err(DecodeError::invalid(field, "must not be empty"));
    }
    if value.contains('\0') {
        return Err(DecodeError::invalid(field, "must not contain a NUL character"));
    }
    if value.len() > MAX_IDENTIFIER_BYTES {
        return Err(DecodeError::invalid(field, format!("must not be longer than {MAX_IDENTIFIER_BYTES} bytes")));
    }
    Ok(())
}

/// Parses a JSON object; only a text that fails is read a second time, to learn which field is at fault.
pub(crate) fn from_json<'a, T: Deserialize<'a>>(text: &'a str, at: &str) -> Result<T, DecodeError> {
    match serde_json::from_str(text) {
        Ok(Object(value)) => Ok(value),
        Err(error) => Err(explain::<T>(text, at, &error)),
    }
}

fn explain<'a, T: Deserialize<'a>>(text: &'a str, at: &str, plain: &serde_json::Error) -> DecodeError {
    if !plain.is_data() {
        return DecodeError::InvalidJson(plain.to_string());
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let Err(error) = serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) else {
        return DecodeError::InvalidJson(plain.to_string());
    };
    let path = error.path().to_string();
    let path = if path == "." { "" } else { path.as_str() };
    let message = without_position(&error.inner().to_string());
    // serde names a missing or doubled field in the message; its path may end there or at the object around it.
    let named = |prefix: &str| {
        let field = message.strip_prefix(prefix)?.trim_matches('`');
        let whole = path == field || path.ends_with(&format!(".{field}"));
        Some(join(at, path, if whole { "" } else { field }))
    };
    if let Some(field) = named("missing field ") {
        return DecodeError::MissingField { field };
    }
    if let Some(field) = named("duplicate field ") {
        return DecodeError::DuplicateField { field };
    }
    let field = join(at, path, "");
    DecodeError::InvalidField { field: if field.is_empty() { "envelope".into() } else { field }, reason: message }
}

fn join(at: &str, path: &str, field: &str) -> String {
    let parts: Vec<&str> = [at, path, field].into_iter().filter(|p| !p.is_empty()).collect();
    parts.join(".")
}

/// serde_json appends ` at line 1 column 2`, which means nothing inside a record.
fn without_position(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(head, _)| head).to_owned()
}

/// An envelope to be written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvelopeOut<'a, D: Serialize> {
    /// See [`Envelope::event_id`].
    pub event_id: &'a str,
    /// See [`Envelope::event_type`].
    pub event_type: &'a str,
    /// See [`Envelope::aggregate_id`].
    pub aggregate_id: &'a str,
    /// See [`Envelope::version`].
    pub version: u32,
    /// RFC 3339, UTC.
    pub timestamp: &'a str,
    /// The payload.
    pub data: D,
    /// Where it comes from.
    pub metadata: MetadataOut<'a>,
}

/// The `metadata` of an envelope to be written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataOut<'a> {
    /// The program that publishes the event.
    pub source: &'a str,
    /// See [`Metadata::correlation_id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<&'a str>,
    /// See [`Metadata::causation_id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<&'a str>,
    /// See [`Metadata::caused_at`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caused_at: Option<&'a str>,
}

/// Writes JSON of a type that cannot fail to serialise (structs with string keys).
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut json = Vec::with_capacity(640);
    serde_json::to_writer(&mut json, value)
        .unwrap_or_else(|e| unreachable!("a struct with string keys serialises: {e}"));
    json
}

/// As [`to_json`], as a part of other JSON.
pub fn raw_json<T: Serialize>(value: &T) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|e| unreachable!("a struct with string keys serialises: {e}"))
}

impl fmt::Display for Envelope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.event_type, self.event_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"eventId":"e-1","eventType":"OrderCreated","aggregateId":"o-1","version":1,
        "timestamp":"2026-01-15T10:30:00Z","data":{"a":1},"metadata":{"source":"shop"},"extra":[1,2]}"#;

    fn error_of(json: &str) -> DecodeError {
        Envelope::decode(Some(json.as_bytes())).expect_err(json)
    }

    #[test]
    fn a_whole_envelope_decodes_and_extra_fields_are_ignored() {
        let envelope = Envelope::decode(Some(GOOD.as_bytes())).expect("valid");
        assert_eq!(envelope.event_id, "e-1");
        assert_eq!(envelope.data.get(), r#"{"a":1}"#);
        assert_eq!(envelope.correlation_id(), "e-1", "an event without a correlation id starts one");
    }

    #[test]
    fn every_required_field_is_named_when_missing_null_or_of_the_wrong_type() {
        let good: serde_json::Value = serde_json::from_str(GOOD).expect("json");
        for field in ["eventId", "eventType", "aggregateId", "version", "timestamp", "data"] {
            let mut missing = good.clone();
            missing.as_object_mut().expect("object").remove(field);
            let error = error_of(&missing.to_string());
            assert_eq!(error, DecodeError::MissingField { field: field.into() });
            if field == "data" {
                continue; // null is JSON like any other here; the typed decoding of data refuses it
            }
            for wrong in [serde_json::Value::Null, serde_json::json!([1])] {
                let mut bad = good.clone();
                bad[field] = wrong;
                let error = error_of(&bad.to_string());
                assert!(error.to_string().contains(field), "{error}");
                assert_eq!(error.code(), "invalid_field");
            }
        }
    }

    #[test]
    fn metadata_and_its_fields_are_optional_but_typed() {
        let without = GOOD.replace(r#","metadata":{"source":"shop"}"#, "");
        assert!(Envelope::decode(Some(without.as_bytes())).is_ok());
        let nulls = GOOD.replace(r#"{"source":"shop"}"#, r#"{"source":null,"correlationId":null}"#);
        assert!(Envelope::decode(Some(nulls.as_bytes())).is_ok());
        let null = GOOD.replace(r#"{"source":"shop"}"#, "null");
        assert!(Envelope::decode(Some(null.as_bytes())).is_ok());
        let wrong = error_of(&GOOD.replace(r#""shop""#, "7"));
        assert!(wrong.to_string().contains("metadata.source"), "{wrong}");
    }

    #[test]
    fn lists_are_no_objects() {
        let list = r#"["e","OrderCreated","o",1,"2026-01-15T10:30:00Z",{},null]"#;
        assert_eq!(error_of(list).to_string(), "`envelope` is invalid: invalid type: sequence, expected an object");
        let metadata = error_of(&GOOD.replace(r#"{"source":"shop"}"#, r#"["shop"]"#));
        assert!(metadata.to_string().contains("`metadata`"), "{metadata}");
    }

    #[test]
    fn an_unusable_correlation_id_counts_as_none() {
        for bad in ["", "\\u0000"] {
            let json = GOOD.replace(r#""source":"shop""#, &format!(r#""correlationId":"{bad}""#));
            let envelope = Envelope::decode(Some(json.as_bytes())).expect("valid");
            assert_eq!(envelope.correlation_id(), "e-1");
        }
        let long = GOOD.replace("e-1", &"e".repeat(1025));
        assert_eq!(error_of(&long).code(), "invalid_field");
    }

    #[test]
    fn duplicated_known_keys_are_refused() {
        let twice = GOOD.replace(r#""version":1"#, r#""version":1,"version":1"#);
        assert_eq!(error_of(&twice), DecodeError::DuplicateField { field: "version".into() });
        let nested = GOOD.replace(r#"{"source":"shop"}"#, r#"{"source":"a","source":"b"}"#);
        assert_eq!(error_of(&nested), DecodeError::DuplicateField { field: "metadata.source".into() });
    }

    #[test]
    fn what_is_no_envelope_is_told_apart() {
        assert_eq!(Envelope::decode(None).expect_err("null"), DecodeError::NullValue);
        assert_eq!(Envelope::decode(Some(b"")).expect_err("empty"), DecodeError::EmptyValue);
        assert_eq!(Envelope::decode(Some(b"\xff{}")).expect_err("utf8").code(), "invalid_utf8");
        assert_eq!(error_of("{").code(), "invalid_json");
        assert_eq!(error_of("not json").code(), "invalid_json");
        assert_eq!(error_of("[1,2]").code(), "invalid_field");
        assert_eq!(error_of("\"text\"").code(), "invalid_field");
        assert_eq!(error_of(&format!("{GOOD} trailing")).code(), "invalid_json");
        assert_eq!(error_of(&GOOD.replace("e-1", "")).code(), "invalid_field");
        assert_eq!(error_of(&GOOD.replace("2026-01-15T10:30:00Z", "yesterday")).code(), "invalid_field");
    }
}
