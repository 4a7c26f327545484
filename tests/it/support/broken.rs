//! The ways in which a record's value can be no event.

use super::events::{Event, quoted};

/// A way of spoiling an event, and the result.
pub type Spoilt = (&'static str, Option<Vec<u8>>);

/// Spoils an event in every way. Each result is a permanent error, whatever the type of the event.
pub fn variants(good: &Event) -> Vec<Spoilt> {
    [not_json(good), not_an_envelope(), wrong_envelope(good)].concat()
}

fn not_json(good: &Event) -> Vec<Spoilt> {
    let json = good.json().into_bytes();
    vec![
        ("no value", None),
        ("an empty value", Some(Vec::new())),
        ("not UTF-8 in front", Some([b"\xff\xfe\x00", json.as_slice()].concat())),
        ("not UTF-8 inside", Some([&json[..20], b"\xc3\x28", &json[20..]].concat())),
        ("cut off", Some(json[..json.len() / 2].to_vec())),
        ("text behind it", Some([json.as_slice(), b" and more"].concat())),
        ("words", Some(b"hello, world".to_vec())),
        ("zeroes", Some(vec![0; 16])),
    ]
}

fn not_an_envelope() -> Vec<Spoilt> {
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let texts = [
        ("a list", "[1, 2.50, 3]"),
        ("a text", "\"OrderCreated\""),
        ("a number", "1e3"),
        ("null", "null"),
        ("an empty object", "{}"),
        ("white space around", " {\"a\": 1.10}\n"),
        ("keys twice", r#"{"a": 1.10, "a" : 2, "b":"\u00eb"}"#),
        ("deep", deep.as_str()),
    ];
    texts.map(|(name, text)| (name, Some(text.as_bytes().to_vec()))).to_vec()
}

fn wrong_envelope(good: &Event) -> Vec<Spoilt> {
    let json = good.json();
    let id = format!("\"eventId\":{}", quoted(&good.event_id));
    let event_type = format!("\"eventType\":{}", quoted(&good.event_type));
    let aggregate = format!("\"aggregateId\":{}", quoted(&good.aggregate_id));
    let timestamp = format!("\"timestamp\":{}", good.timestamp);
    let data = format!("\"data\":{}", good.data);
    let changes = [
        ("no event id", id.as_str(), r#""eventIdentifier":"x""#),
        ("a null event id", &id, r#""eventId":null"#),
        ("an empty event id", &id, r#""eventId":"""#),
        ("an event id that is a number", &id, r#""eventId":17"#),
        ("a null event type", &event_type, r#""eventType":null"#),
        ("no aggregate id", &aggregate, r#""about":"x""#),
        ("no version", "\"version\":1", r#""edition":1"#),
        ("an unknown version", "\"version\":1", r#""version":99"#),
        ("a version in quotes", "\"version\":1", r#""version":"1""#),
        ("two versions", "\"version\":1", r#""version":1,"version":1"#),
        ("a timestamp in words", &timestamp, r#""timestamp":"yesterday""#),
        ("a timestamp without a zone", &timestamp, r#""timestamp":"2026-01-15T10:30:00""#),
        ("a timestamp that is a number", &timestamp, r#""timestamp":1768473000"#),
        ("no data", &data, r#""payload":{}"#),
        ("null data", &data, r#""data":null"#),
        ("data that is a list", &data, r#""data":[]"#),
        ("data that is a text", &data, r#""data":"{}""#),
        ("empty data", &data, r#""data":{}"#),
        ("metadata that is a number", "\"metadata\":", r#""metadata":7,"extra":"#),
    ];
    let spoil = |(name, part, instead): (&'static str, &str, &str)| {
        assert!(json.contains(part), "{part} stands in {json}");
        (name, Some(json.replacen(part, instead, 1).into_bytes()))
    };
    changes.map(spoil).to_vec()
}
