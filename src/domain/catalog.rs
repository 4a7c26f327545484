//! The catalogue of topics and of the event types that travel on them.

use std::sync::Arc;

/// The logical name of a topic; the configuration may put a prefix in front of it.
pub mod topics {
    /// Orders and payments, keyed by `orderId`.
    pub const ORDERS: &str = "order-events";
    /// Users, keyed by `userId`.
    pub const USERS: &str = "user-events";
    /// Products, keyed by `productId`.
    pub const PRODUCTS: &str = "product-events";
    /// Requests and lifecycle events, keyed by the notification's aggregate id.
    pub const NOTIFICATIONS: &str = "notification-events";
    /// What could not be processed, keyed by the original key.
    pub const DEAD_LETTERS: &str = "dead-letter-queue";
    /// Operator actions.
    pub const AUDIT: &str = "audit-events";
    /// All six with their default number of partitions.
    pub const ALL: [(&str, i32); 6] =
        [(ORDERS, 3), (USERS, 3), (PRODUCTS, 3), (NOTIFICATIONS, 3), (DEAD_LETTERS, 1), (AUDIT, 2)];
}

/// The topics' real names: the logical ones behind an optional prefix, so that several environments can share a cluster.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct TopicNames {
    prefix: String,
    pub orders: Arc<str>,
    pub users: Arc<str>,
    pub products: Arc<str>,
    pub notifications: Arc<str>,
    pub dead_letters: Arc<str>,
    pub audit: Arc<str>,
}

impl TopicNames {
    /// Names with this prefix, which may be empty.
    pub fn new(prefix: &str) -> Self {
        let name = |logical: &str| Arc::from(format!("{prefix}{logical}"));
        Self {
            prefix: prefix.to_owned(),
            orders: name(topics::ORDERS),
            users: name(topics::USERS),
            products: name(topics::PRODUCTS),
            notifications: name(topics::NOTIFICATIONS),
            dead_letters: name(topics::DEAD_LETTERS),
            audit: name(topics::AUDIT),
        }
    }

    /// All six.
    pub fn all(&self) -> [&Arc<str>; 6] {
        [&self.orders, &self.users, &self.products, &self.notifications, &self.dead_letters, &self.audit]
    }

    /// The real name of a logical topic.
    pub fn named(&self, logical: &str) -> String {
        format!("{}{logical}", self.prefix)
    }
}

/// The type of the service's own output.
pub const NOTIFICATION_REQUESTED: &str = "NotificationRequested";
/// A provider accepted the notification.
pub const NOTIFICATION_SENT: &str = "NotificationSent";
/// The notification failed for good; there is a dead letter.
pub const NOTIFICATION_FAILED: &str = "NotificationFailed";
/// The notification was not sent on purpose.
pub const NOTIFICATION_SUPPRESSED: &str = "NotificationSuppressed";

/// An event type of the shop: where it travels and which field of `data` is its key.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct EventType {
    pub name: &'static str,
    pub topic: &'static str,
    pub key_field: &'static str,
}

const fn event(name: &'static str, topic: &'static str, key_field: &'static str) -> EventType {
    EventType { name, topic, key_field }
}

/// The event types that the service knows.
pub const EVENT_TYPES: [EventType; 12] = [
    event("OrderCreated", topics::ORDERS, "orderId"),
    event("OrderPaid", topics::ORDERS, "orderId"),
    event("OrderShipped", topics::ORDERS, "orderId"),
    event("OrderCancelled", topics::ORDERS, "orderId"),
    event("PaymentCompleted", topics::ORDERS, "orderId"),
    event("PaymentFailed", topics::ORDERS, "orderId"),
    event("UserRegistered", topics::USERS, "userId"),
    event("UserUpdated", topics::USERS, "userId"),
    event("UserLogin", topics::USERS, "userId"),
    event("ProductOutOfStock", topics::PRODUCTS, "productId"),
    event("ProductUpdated", topics::PRODUCTS, "productId"),
    event("PriceChanged", topics::PRODUCTS, "productId"),
];

/// Looks an event type up by its name.
pub fn event_type(name: &str) -> Option<&'static EventType> {
    EVENT_TYPES.iter().find(|t| t.name == name)
}
