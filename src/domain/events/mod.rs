//! The typed payloads (`data`) of the shop's events, version 1. Unknown fields are ignored, numbers keep their text.

mod order;
mod product;
mod user;

pub use order::{OrderCancelled, OrderCreated, OrderShipped, Payment, PaymentFailed};
pub use product::{PriceChanged, ProductOutOfStock, ProductUpdated};
pub use user::{UserLogin, UserRegistered, UserUpdated};

use super::envelope::Envelope;
use super::error::DecodeError;
use serde::Deserialize;

/// The only version of every payload so far.
pub const VERSION: u32 = 1;

/// A payload with identifiers that must name something.
pub trait Payload<'a>: Deserialize<'a> {
    /// Checks the identifiers.
    ///
    /// # Errors
    /// A [`DecodeError`] that names the field.
    fn check_identifiers(&self) -> Result<(), DecodeError>;
}

/// An event of a known type, decoded whole.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Event<'a> {
    OrderCreated(OrderCreated<'a>),
    OrderPaid(Payment<'a>),
    OrderShipped(OrderShipped<'a>),
    OrderCancelled(OrderCancelled<'a>),
    PaymentCompleted(Payment<'a>),
    PaymentFailed(PaymentFailed<'a>),
    UserRegistered(UserRegistered<'a>),
    UserUpdated(UserUpdated<'a>),
    UserLogin(UserLogin<'a>),
    ProductOutOfStock(ProductOutOfStock<'a>),
    ProductUpdated(ProductUpdated<'a>),
    PriceChanged(PriceChanged<'a>),
}

impl<'a> Event<'a> {
    /// Decodes the payload that the envelope's type announces; `None` for a type that the service does not know.
    ///
    /// # Errors
    /// A [`DecodeError`] that names the field, or the version that is unknown.
    pub fn decode(envelope: &Envelope<'a>) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match envelope.event_type.as_ref() {
            "OrderCreated" => Self::OrderCreated(payload(envelope)?),
            "OrderPaid" => Self::OrderPaid(payload(envelope)?),
            "OrderShipped" => Self::OrderShipped(payload(envelope)?),
            "OrderCancelled" => Self::OrderCancelled(payload(envelope)?),
            "PaymentCompleted" => Self::PaymentCompleted(payload(envelope)?),
            "PaymentFailed" => Self::PaymentFailed(payload(envelope)?),
            "UserRegistered" => Self::UserRegistered(payload(envelope)?),
            "UserUpdated" => Self::UserUpdated(payload(envelope)?),
            "UserLogin" => Self::UserLogin(payload(envelope)?),
            "ProductOutOfStock" => Self::ProductOutOfStock(payload(envelope)?),
            "ProductUpdated" => Self::ProductUpdated(payload(envelope)?),
            "PriceChanged" => Self::PriceChanged(payload(envelope)?),
            _ => return Ok(None),
        }))
    }
}

/// Decodes and checks one payload.
///
/// # Errors
/// As [`Event::decode`].
pub fn payload<'a, T: Payload<'a>>(envelope: &Envelope<'a>) -> Result<T, DecodeError> {
    envelope.require_version(VERSION)?;
    let payload: T = envelope.data_as()?;
    payload.check_identifiers()?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::EVENT_TYPES;

    fn fixture(name: &str) -> String {
        let path = format!("{}/tests/fixtures/events/{name}/v1.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    #[test]
    fn every_event_type_has_a_fixture_that_decodes() {
        for event_type in EVENT_TYPES {
            let json = fixture(event_type.name);
            let envelope = Envelope::decode(Some(json.as_bytes())).expect(event_type.name);
            assert_eq!(envelope.event_type, event_type.name);
            assert!(Event::decode(&envelope).expect(event_type.name).is_some());
            let data: serde_json::Value = serde_json::from_str(envelope.data.get()).expect("json");
            assert!(data[event_type.key_field].is_string(), "{} has its key", event_type.name);
        }
    }

    #[test]
    fn an_unknown_version_is_refused_by_name() {
        let json = fixture("OrderCreated").replace("\"version\": 1", "\"version\": 99");
        let envelope = Envelope::decode(Some(json.as_bytes())).expect("envelope");
        let error = Event::decode(&envelope).expect_err("version 99");
        assert_eq!(error.code(), "unknown_version");
        assert_eq!(error.to_string(), "`version` 99 of OrderCreated is unknown, expected 1");
    }

    #[test]
    fn null_is_absence_for_optional_fields_and_an_error_for_required_ones() {
        let base = r#"{"eventId":"e","eventType":"OrderCreated","aggregateId":"o","version":1,"timestamp":"2026-01-15T10:30:00Z","data":DATA}"#;
        let decode = |data: &str| {
            let json = base.replace("DATA", data);
            let envelope = Envelope::decode(Some(json.as_bytes())).expect("envelope");
            Event::decode(&envelope).map(|_| ())
        };
        assert!(decode(r#"{"orderId":"o","customerId":"c","amount":1e3,"currency":null}"#).is_ok());
        for (data, field) in [
            (r#"{"orderId":"o","customerId":"c","amount":null}"#, "data.amount"),
            (r#"{"orderId":"o","customerId":"c","amount":"9"}"#, "data.amount"),
            (r#"{"orderId":"o","customerId":"c"}"#, "data.amount"),
            (r#"{"orderId":null,"customerId":"c","amount":1}"#, "data.orderId"),
            (r#"{"orderId":7,"customerId":"c","amount":1}"#, "data.orderId"),
            (r#"{"orderId":"","customerId":"c","amount":1}"#, "data.orderId"),
            (r#"{"orderId":"o","amount":1}"#, "data.customerId"),
            (r#"{"orderId":"o","customerId":"c","amount":1,"currency":3}"#, "data.currency"),
            (r#"{"orderId":"o","orderId":"p","customerId":"c","amount":1}"#, "data.orderId"),
            ("null", "data"),
            ("[]", "data"),
            (r#"["o","c",1]"#, "data"),
        ] {
            let error = decode(data).expect_err(data);
            assert!(error.to_string().contains(&format!("`{field}`")), "{data}: {error}");
        }
    }
}
