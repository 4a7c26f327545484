//! A notification's data as the variables of a template.

use std::collections::BTreeMap;

use minijinja::value::Value;
use serde_json::value::RawValue;

use super::error::RenderError;

/// JSON nested deeper is refused.
const MAX_DEPTH: usize = 64;

/// The variables of a JSON object. Numbers keep their text, null counts as absent.
///
/// # Errors
/// `invalid_data` when it is no object, or nested too deep.
pub fn variables(data: &RawValue) -> Result<BTreeMap<String, Value>, RenderError> {
    if !data.get().starts_with('{') {
        return Err(invalid("expected an object"));
    }
    fields(data, 0)
}

fn invalid(problem: impl std::fmt::Display) -> RenderError {
    RenderError { code: "invalid_data", reason: format!("data.data: {problem}") }
}

fn fields(object: &RawValue, depth: usize) -> Result<BTreeMap<String, Value>, RenderError> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(object.get()).map_err(invalid)?;
    let present = fields.into_iter().filter(|(_, field)| field.get() != "null");
    present.map(|(name, field)| Ok((name, value(field, depth + 1)?))).collect()
}

fn value(raw: &RawValue, depth: usize) -> Result<Value, RenderError> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!("nested deeper than {MAX_DEPTH}")));
    }
    let text = raw.get();
    Ok(match text.as_bytes().first() {
        Some(b'{') => Value::from(fields(raw, depth)?),
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(invalid)?;
            Value::from(items.into_iter().map(|item| value(item, depth + 1)).collect::<Result<Vec<_>, _>>()?)
        }
        Some(b'"') => Value::from(serde_json::from_str::<String>(text).map_err(invalid)?),
        Some(b't') => Value::from(true),
        Some(b'f') => Value::from(false),
        Some(b'n') | None => Value::from(()),
        // A whole number that prints as it was written may be counted with; any other keeps its text.
        Some(_) => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Value::from(number),
            _ => Value::from(text),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, Value>, RenderError> {
        variables(&RawValue::from_string(text.to_owned()).expect("JSON"))
    }

    #[test]
    fn numbers_keep_their_text_and_null_is_absent() {
        let read = read(r#"{"a":1e3,"b":99.10,"c":12345678901234567890,"d":-7,"e":null,"f":[1,null],"g":{"h":null}}"#)
            .expect("an object");
        for (name, text) in [("a", "1e3"), ("b", "99.10"), ("c", "12345678901234567890"), ("d", "-7")] {
            assert_eq!(read[name].to_string(), text);
        }
        assert!(!read.contains_key("e") && read["d"] == Value::from(-7));
        assert_eq!((read["f"].len(), read["g"].len()), (Some(2), Some(0)));
    }

    #[test]
    fn what_is_no_object_or_too_deep_is_refused() {
        assert_eq!(read("[1]").expect_err("a list").code, "invalid_data");
        let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(MAX_DEPTH - 1)).is_ok());
        assert!(read(&nested(MAX_DEPTH)).expect_err("too deep").reason.contains("deeper"));
    }
}
