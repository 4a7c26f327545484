//! A JSON number that keeps the exact text it was written with: `99.10` stays `99.10`, twenty digits stay twenty digits.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The text of a JSON number, borrowed from the event it came in.
#[derive(Debug, Clone, Copy)]
pub struct JsonNumber<'a>(&'a RawValue);

impl<'a> JsonNumber<'a> {
    /// The number as it was written.
    pub fn text(&self) -> &'a str {
        self.0.get()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonNumber<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        let found = match raw.get().as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => return Ok(Self(raw)),
            Some(b'"') => Unexpected::Other("string"),
            Some(b't' | b'f') => Unexpected::Other("boolean"),
            Some(b'n') => Unexpected::Unit,
            Some(b'[') => Unexpected::Seq,
            _ => Unexpected::Map,
        };
        Err(D::Error::invalid_type(found, &"a number"))
    }
}

impl Serialize for JsonNumber<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Deserialize, Serialize)]
    struct Holder<'a> {
        #[serde(borrow)]
        n: JsonNumber<'a>,
    }

    #[test]
    fn other_types_are_refused_by_name() {
        for (json, word) in [
            (r#"{"n":"1"}"#, "string"),
            (r#"{"n":null}"#, "null"),
            (r#"{"n":true}"#, "boolean"),
            (r#"{"n":[1]}"#, "sequence"),
            (r#"{"n":{}}"#, "map"),
        ] {
            let error = serde_json::from_str::<Holder>(json).err().map(|e| e.to_string());
            let error = error.expect("not a number");
            assert!(error.contains("expected a number"), "{error}");
            assert!(error.contains(word) || word == "null", "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_number_keeps_its_text(text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,3})?") {
            let json = format!(r#"{{"n":{text}}}"#);
            let holder: Holder = serde_json::from_str(&json).expect("a JSON number");
            prop_assert_eq!(holder.n.text(), text);
            prop_assert_eq!(serde_json::to_string(&holder).expect("serialises"), json);
        }
    }
}
