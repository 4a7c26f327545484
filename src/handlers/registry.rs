//! Which handlers an event type has: the built-in ones and the declarative routes beside them.

use std::collections::HashMap;
use std::sync::Arc;

use super::declarative::DeclarativeRoute;
use super::{orders, products, users};
use crate::domain::envelope::Envelope;
use crate::domain::error::{DecodeError, ErrorClass};
use crate::domain::notification::Draft;

/// What a handler asks for.
#[derive(Debug, Default)]
pub struct Output {
    /// The notifications to request, in order.
    pub drafts: Vec<Draft>,
}

impl Output {
    /// A single notification.
    pub fn one(draft: Draft) -> Self {
        Self { drafts: vec![draft] }
    }
}

/// Why a handler could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The event is wrong and stays so.
    #[error(transparent)]
    Invalid(#[from] DecodeError),
    /// A rule of the business forbids the event for ever.
    #[error("{reason}")]
    Rejected {
        /// Stable, snake_case.
        code: &'static str,
        /// For people.
        reason: String,
    },
    /// Something passing is in the way; trying again may help.
    #[error("{reason}")]
    Transient {
        /// Stable, snake_case.
        code: &'static str,
        /// For people.
        reason: String,
    },
}

impl HandlerError {
    /// Decides the reaction.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Invalid(error) => error.class(),
            Self::Rejected { .. } => ErrorClass::Permanent,
            Self::Transient { .. } => ErrorClass::Transient,
        }
    }

    /// Stable, for dead letters and alerts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(error) => error.code(),
            Self::Rejected { code, .. } | Self::Transient { code, .. } => code,
        }
    }
}

/// A pure function from an event to the notifications it asks for.
pub type Handler = Arc<dyn Fn(&Envelope<'_>) -> Result<Output, HandlerError> + Send + Sync>;

/// The handlers by event type. A handler is chosen by the body's `eventType`, wherever the event arrives.
#[derive(Clone, Default)]
pub struct Registry {
    handlers: HashMap<String, Vec<Handler>>,
}

impl Registry {
    /// The typed handlers of the shop's events.
    pub fn built_in() -> Self {
        let mut registry = Self::default();
        registry.add("OrderCreated", Arc::new(orders::order_created));
        registry.add("OrderPaid", Arc::new(orders::order_paid));
        registry.add("PaymentCompleted", Arc::new(orders::order_paid));
        registry.add("OrderShipped", Arc::new(orders::order_shipped));
        registry.add("OrderCancelled", Arc::new(orders::order_cancelled));
        registry.add("PaymentFailed", Arc::new(orders::payment_failed));
        registry.add("UserRegistered", Arc::new(users::user_registered));
        registry.add("ProductOutOfStock", Arc::new(products::product_out_of_stock));
        registry
    }

    /// Adds a handler; an event type may have several.
    pub fn add(&mut self, event_type: impl Into<String>, handler: Handler) {
        self.handlers.entry(event_type.into()).or_default().push(handler);
    }

    /// Adds a route from the configuration.
    pub fn add_route(&mut self, route: DeclarativeRoute) {
        self.add(route.event_type.clone(), Arc::new(move |envelope: &Envelope<'_>| route.apply(envelope)));
    }

    /// The handlers of an event type; none for one that nobody routes.
    pub fn handlers_of(&self, event_type: &str) -> &[Handler] {
        self.handlers.get(event_type).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::channel::Channel;

    fn handle(name: &str) -> Draft {
        let path = format!("{}/tests/fixtures/events/{name}/v1.json", env!("CARGO_MANIFEST_DIR"));
        let json = std::fs::read_to_string(path).expect("fixture");
        let envelope = Envelope::decode(Some(json.as_bytes())).expect("envelope");
        let registry = Registry::built_in();
        let [handler] = registry.handlers_of(name) else { panic!("{name} has one handler") };
        handler(&envelope).expect("handled").drafts.remove(0)
    }

    #[test]
    fn every_routed_event_follows_the_contract_s_table() {
        use Channel::{AdminAlert, Email, Sms};
        for (event, channel, template, prefix, suffix) in [
            ("OrderCreated", Email, "order_confirmation", "notification-", ""),
            ("OrderPaid", Sms, "payment_confirmation", "notification-", "-payment"),
            ("PaymentCompleted", Sms, "payment_confirmation", "notification-", "-payment"),
            ("OrderShipped", Email, "order_shipped", "notification-", "-shipping"),
            ("OrderCancelled", Email, "order_cancelled", "notification-", "-cancelled"),
            ("PaymentFailed", Email, "payment_failed", "notification-", "-payment-failed"),
            ("UserRegistered", Email, "welcome", "notification-user-", ""),
            ("ProductOutOfStock", AdminAlert, "product_out_of_stock", "notification-product-", ""),
        ] {
            let draft = handle(event);
            assert_eq!((draft.channel, draft.template.as_ref()), (channel, template), "{event}");
            assert!(draft.aggregate_id.starts_with(prefix) && draft.aggregate_id.ends_with(suffix), "{event}");
            assert_eq!(draft.recipient.is_none(), event == "ProductOutOfStock");
        }
    }

    #[test]
    fn known_but_unrouted_types_have_no_handler() {
        let registry = Registry::built_in();
        for name in ["UserUpdated", "UserLogin", "ProductUpdated", "PriceChanged", "CartAbandoned"] {
            assert!(registry.handlers_of(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn numbers_and_strings_pass_through_as_written() {
        let json = r#"{"eventId":"e","eventType":"OrderCreated","aggregateId":"o","version":1,
            "timestamp":"2026-01-15t10:30:00+00:00",
            "data":{"orderId":"ö\"1","customerId":"c","amount":98765432109876543210.50,"currency":null}}"#;
        let envelope = Envelope::decode(Some(json.as_bytes())).expect("envelope");
        let draft = orders::order_created(&envelope).expect("handled").drafts.remove(0);
        assert_eq!(
            draft.data.get(),
            r#"{"orderId":"ö\"1","amount":98765432109876543210.50,"orderDate":"2026-01-15t10:30:00+00:00"}"#
        );
    }
}
