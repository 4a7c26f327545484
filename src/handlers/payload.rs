//! Builds a request's `data.data` from fields of the event, leaving absent ones out.

use serde::Serialize;

/// A JSON object under construction. Numbers are written as they came, strings are escaped anew.
pub struct DataObject(String);

impl DataObject {
    pub fn new() -> Self {
        Self(String::with_capacity(160))
    }

    /// Appends a field.
    pub fn with<T: Serialize>(mut self, name: &str, value: &T) -> Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        push_json(&mut self.0, name);
        self.0.push(':');
        push_json(&mut self.0, value);
        self
    }

    /// Appends a field unless it is absent.
    pub fn with_some<T: Serialize>(self, name: &str, value: &Option<T>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The object's text.
    pub fn finish(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}

fn push_json<T: Serialize + ?Sized>(out: &mut String, value: &T) {
    // Strings, numbers and raw JSON always serialise; nothing else is passed here.
    if let Ok(json) = serde_json::to_string(value) {
        out.push_str(&json);
    }
}
