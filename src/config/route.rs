//! `[[routing.routes]]`: an event type that becomes a notification without a line of code.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mistake::{Mistake, is_faulty, rule};
use crate::domain::catalog::topics;
use crate::domain::channel::Channel;
use crate::handlers::{DeclarativeRoute, InvalidPointer, Pointer};

/// The topics on which domain events arrive.
const SOURCES: [&str; 3] = [topics::ORDERS, topics::USERS, topics::PRODUCTS];

/// `[[routing.routes]]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RouteConfig {
    /// The logical name of the topic on which the events arrive.
    pub topic: String,
    /// The events that the route takes.
    pub event_type: String,
    /// How to reach the recipient.
    pub channel: Channel,
    /// Which words to use.
    pub template: String,
    /// Where the event names the recipient; alerts need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<PointerText>,
    /// The template's variables and where the event has them.
    #[serde(default)]
    pub data: BTreeMap<String, PointerText>,
    /// Fields that must have these values for the route to apply.
    #[serde(default)]
    pub when: BTreeMap<PointerText, Value>,
}

/// A JSON pointer together with its text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PointerText {
    text: String,
    pointer: Pointer,
}

impl TryFrom<String> for PointerText {
    type Error = InvalidPointer;

    fn try_from(text: String) -> Result<Self, InvalidPointer> {
        let pointer = text.parse()?;
        Ok(Self { text, pointer })
    }
}

impl From<PointerText> for String {
    fn from(pointer: PointerText) -> Self {
        pointer.text
    }
}

impl Ord for PointerText {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for PointerText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl RouteConfig {
    /// The route as the registry takes it.
    pub(super) fn compile(&self) -> DeclarativeRoute {
        DeclarativeRoute {
            event_type: self.event_type.clone(),
            when: self.when.iter().map(|(at, value)| (at.pointer.clone(), value.clone())).collect(),
            channel: self.channel,
            template: self.template.clone(),
            recipient: self.recipient.as_ref().map(|at| at.pointer.clone()),
            data: self.data.iter().map(|(name, at)| (name.clone(), at.pointer.clone())).collect(),
        }
    }

    pub(super) fn validate(&self, key: &str, mistakes: &mut Vec<Mistake>) {
        let topic = SOURCES.contains(&self.topic.as_str());
        rule(mistakes, topic, &format!("{key}.topic"), format!("must be one of {}", SOURCES.join(", ")));
        rule(mistakes, !self.event_type.trim().is_empty(), &format!("{key}.event_type"), "must not be empty");
        // A template's name is the name of its folder: nothing that could lead out of the templates.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let template = !self.template.is_empty() && self.template.chars().all(plain);
        let problem = "must be a name of letters, digits, `_` and `-`";
        rule(mistakes, template, &format!("{key}.template"), problem);
        if !is_faulty(mistakes, &format!("{key}.channel")) {
            let addressed = self.recipient.is_some() || self.channel == Channel::AdminAlert;
            let problem = format!("is missing: the channel {} needs a JSON pointer to the recipient", self.channel);
            rule(mistakes, addressed, &format!("{key}.recipient"), problem);
        }
        // JSON has no infinity, and null counts as absent: such a condition could never hold.
        let comparable = !self.when.values().any(has_null);
        rule(mistakes, comparable, &format!("{key}.when"), "may not compare with `nan` or `inf`");
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
