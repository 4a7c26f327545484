//! Builds a request's `data.data` from fields of the event, leaving absent ones out.

use serde::Serialize;

/// A JSON object under construction. Numbers are written as they came, strings are escaped anew.
pub struct DataObject(Vec<u8>);

impl DataObject {
    pub fn new() -> Self {
        Self(Vec::with_capacity(256))
    }

    /// Appends a field.
    pub fn with<T: Serialize>(mut self, name: &str, value: &T) -> Self {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        self.push_json(name);
        self.0.push(b':');
        self.push_json(value);
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
            self.0.push(b'{');
        }
        self.0.push(b'}');
        // JSON is UTF-8.
        String::from_utf8(self.0).unwrap_or_default()
    }

    fn push_json<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Strings, numbers and raw JSON always serialise, and a vector takes every byte; nothing else is passed here.
        let _ = serde_json::to_writer(&mut self.0, value);
    }
}
