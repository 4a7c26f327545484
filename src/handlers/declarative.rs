//! Routes that operators add in the configuration: any event type to a notification, without recompiling.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::payload::variables;
use super::registry::{HandlerError, Output};
use crate::domain::channel::Channel;
use crate::domain::envelope::{Envelope, non_empty};
use crate::domain::error::DecodeError;
use crate::domain::notification::Draft;

/// A JSON pointer (RFC 6901) into the envelope, such as `/data/customerId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// A text that is no JSON pointer.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no JSON pointer: it must begin with `/`, such as `/data/customerId`")]
pub struct InvalidPointer(String);

impl std::str::FromStr for Pointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix('/').ok_or_else(|| InvalidPointer(text.to_owned()))?;
        Ok(Self(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect()))
    }
}

impl Pointer {
    fn name(&self) -> String {
        self.0.join(".")
    }

    /// What the pointer leads to, with its JSON text kept; JSON null counts as absent.
    fn find<'a>(&self, envelope: &Envelope<'a>) -> Option<Box<RawValue>> {
        let (first, rest) = self.0.split_first()?;
        let text = |s: &str| serde_json::value::to_raw_value(s).ok();
        match (first.as_str(), rest) {
            ("eventId", []) => text(&envelope.event_id),
            ("eventType", []) => text(&envelope.event_type),
            ("aggregateId", []) => text(&envelope.aggregate_id),
            ("timestamp", []) => text(&envelope.timestamp),
            ("version", []) => serde_json::value::to_raw_value(&envelope.version).ok(),
            ("metadata", [field]) => match field.as_str() {
                "source" => envelope.metadata.source.as_deref().and_then(text),
                "correlationId" => text(envelope.correlation_id()),
                "causationId" => envelope.metadata.causation_id.as_deref().and_then(text),
                _ => None,
            },
            ("data", path) => descend(envelope.data, path),
            _ => None,
        }
    }
}

/// Walks down with raw values, so that numbers on the way keep their text.
fn descend(from: &RawValue, path: &[String]) -> Option<Box<RawValue>> {
    let Some((token, rest)) = path.split_first() else {
        return (from.get() != "null").then(|| from.to_owned());
    };
    if from.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(from.get()).ok()?;
        return descend(items.get(token.parse::<usize>().ok()?)?, rest);
    }
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(from.get()).ok()?;
    descend(fields.get(token)?, rest)
}

/// One `[[routing.routes]]`.
#[derive(Debug, Clone)]
pub struct DeclarativeRoute {
    /// The type of the events that the route takes.
    pub event_type: String,
    /// Fields that must have these values for the route to apply.
    pub when: Vec<(Pointer, serde_json::Value)>,
    /// How to reach the recipient.
    pub channel: Channel,
    /// Which words to use.
    pub template: String,
    /// Where the event names the recipient; alerts need none.
    pub recipient: Option<Pointer>,
    /// The template's variables and where the event has them; absent ones are left out.
    pub data: Vec<(String, Pointer)>,
}

impl DeclarativeRoute {
    /// Applies the route to an event.
    ///
    /// # Errors
    /// A permanent error that names the field when the recipient is missing or no text.
    pub fn apply(&self, envelope: &Envelope<'_>) -> Result<Output, HandlerError> {
        let holds = |(pointer, expected): &(Pointer, serde_json::Value)| {
            let found = pointer.find(envelope).and_then(|raw| serde_json::from_str(raw.get()).ok());
            found.as_ref() == Some(expected)
        };
        if !self.when.iter().all(holds) {
            return Ok(Output::default());
        }
        let recipient = match &self.recipient {
            Some(pointer) => Some(self.recipient_at(pointer, envelope)?),
            None => None,
        };
        let found = self.data.iter().filter_map(|(name, pointer)| Some((name.as_str(), pointer.find(envelope)?)));
        Ok(Output::one(Draft {
            aggregate_id: format!("notification-{}-{}", envelope.aggregate_id, self.template),
            channel: self.channel,
            template: self.template.clone().into(),
            recipient,
            data: variables(&Found(found.collect())),
        }))
    }

    fn recipient_at(&self, pointer: &Pointer, envelope: &Envelope<'_>) -> Result<String, DecodeError> {
        let found = pointer.find(envelope).ok_or_else(|| DecodeError::MissingField { field: pointer.name() })?;
        let text: String = serde_json::from_str(found.get())
            .map_err(|_| DecodeError::invalid(pointer.name(), "expected a string that names the recipient"))?;
        non_empty(&pointer.name(), &text)?;
        Ok(text)
    }
}

/// What the pointers lead to, in the order of the configuration.
struct Found<'a>(Vec<(&'a str, Box<RawValue>)>);

impl Serialize for Found<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> DeclarativeRoute {
        DeclarativeRoute {
            event_type: "OrderDelivered".into(),
            when: vec![],
            channel: Channel::Email,
            template: "order_delivered".into(),
            recipient: Some("/data/customerId".parse().expect("pointer")),
            data: vec![
                ("orderId".into(), "/data/orderId".parse().expect("pointer")),
                ("first".into(), "/data/items/0/price".parse().expect("pointer")),
                ("absent".into(), "/data/nope/deeper".parse().expect("pointer")),
            ],
        }
    }

    fn apply(route: &DeclarativeRoute, data: &str) -> Result<Output, HandlerError> {
        let json = format!(
            r#"{{"eventId":"e","eventType":"OrderDelivered","aggregateId":"o-1","version":3,"timestamp":"2026-01-15T10:30:00Z","data":{data}}}"#
        );
        route.apply(&Envelope::decode(Some(json.as_bytes())).expect("envelope"))
    }

    #[test]
    fn picks_fields_with_their_text_kept() {
        let output = apply(&route(), r#"{"orderId":"1","customerId":"c","items":[{"price":1.50}]}"#).expect("routed");
        let draft = &output.drafts[0];
        assert_eq!(draft.data.get(), r#"{"orderId":"1","first":1.50}"#);
        assert_eq!(draft.aggregate_id, "notification-o-1-order_delivered");
        assert_eq!(draft.recipient.as_deref(), Some("c"));
    }

    #[test]
    fn a_missing_recipient_is_named() {
        let error = apply(&route(), r#"{"orderId":"1"}"#).expect_err("no recipient");
        assert_eq!(error.to_string(), "`data.customerId` is missing");
        let error = apply(&route(), r#"{"customerId":7}"#).expect_err("a number");
        assert!(error.to_string().contains("data.customerId"), "{error}");
    }

    #[test]
    fn a_condition_that_does_not_hold_asks_for_nothing() {
        let mut route = route();
        route.when = vec![("/data/status".parse().expect("pointer"), serde_json::json!("done"))];
        assert!(apply(&route, r#"{"customerId":"c","status":"open"}"#).expect("fine").drafts.is_empty());
        assert_eq!(apply(&route, r#"{"customerId":"c","status":"done"}"#).expect("fine").drafts.len(), 1);
    }

    #[test]
    fn a_pointer_begins_with_a_slash() {
        assert!("data/x".parse::<Pointer>().is_err());
        assert_eq!("/a~1b/~0".parse::<Pointer>().expect("pointer"), Pointer(vec!["a/b".into(), "~".into()]));
    }
}
