//! A request's `data.data`: the variables that its template sees.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// Writes variables as JSON: structs or maps with string keys, whose numbers are raw JSON and so keep their text.
pub fn variables<T: Serialize>(variables: &T) -> Box<RawValue> {
    to_raw_value(variables).unwrap_or_else(|e| unreachable!("an object with string keys serialises: {e}"))
}
