//! Events as the shop's services publish them, written as text so that every spelling is the test's own.

use super::kafka::{NOTIFICATIONS, ORDERS, PRODUCTS, USERS};

pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A record to be produced.
#[derive(Debug, Clone)]
pub struct Input {
    /// Without the test's prefix.
    pub topic: &'static str,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

/// An event whose parts are still JSON texts, so that each can be spoilt.
#[derive(Debug, Clone)]
pub struct Event {
    pub event_id: String,
    pub event_type: String,
    pub aggregate_id: String,
    pub version: String,
    pub timestamp: String,
    pub data: String,
    pub metadata: Option<String>,
    pub headers: Headers,
}

impl Input {
    pub fn on(mut self, topic: &'static str) -> Self {
        self.topic = topic;
        self
    }

    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.as_bytes().to_vec());
        self
    }

    pub fn without_key(mut self) -> Self {
        self.key = None;
        self
    }

    pub fn with_value(mut self, value: Option<Vec<u8>>) -> Self {
        self.value = value;
        self
    }

    pub fn with_header(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        self
    }
}

impl Event {
    pub fn new(event_type: &str, event_id: &str, aggregate_id: &str, data: String) -> Self {
        Self {
            event_id: event_id.to_owned(),
            event_type: event_type.to_owned(),
            aggregate_id: aggregate_id.to_owned(),
            version: "1".to_owned(),
            timestamp: quoted("2026-01-15T10:30:00Z"),
            data,
            metadata: Some(r#"{"source":"the-tests"}"#.to_owned()),
            headers: vec![("eventType".to_owned(), Some(event_type.as_bytes().to_vec()))],
        }
    }

    pub fn json(&self) -> String {
        let [id, event_type, aggregate] = [&self.event_id, &self.event_type, &self.aggregate_id].map(|t| quoted(t));
        let Self { version, timestamp, data, .. } = self;
        let metadata = self.metadata.as_ref().map(|m| format!(",\"metadata\":{m}")).unwrap_or_default();
        format!(
            "{{\"eventId\":{id},\"eventType\":{event_type},\"aggregateId\":{aggregate},\"version\":{version},\
             \"timestamp\":{timestamp},\"data\":{data}{metadata}}}"
        )
    }

    /// The record of the event, where and as its publisher would put it.
    pub fn input(&self) -> Input {
        Input {
            topic: topic_of(&self.event_type),
            key: Some(self.aggregate_id.as_bytes().to_vec()),
            value: Some(self.json().into_bytes()),
            headers: self.headers.clone(),
        }
    }
}

pub fn order_created(event_id: &str, order: &str, customer: &str, amount: &str) -> Event {
    let fields = [("orderId", quoted(order)), ("customerId", quoted(customer)), ("amount", amount.to_owned())];
    Event::new("OrderCreated", event_id, order, object(&fields))
}

pub fn order_shipped(event_id: &str, order: &str, customer: &str) -> Event {
    let fields = [("orderId", quoted(order)), ("customerId", quoted(customer))];
    Event::new("OrderShipped", event_id, order, object(&fields))
}

/// Registers a user with the addresses of [`email_of`] and [`phone_of`].
pub fn user_registered(event_id: &str, user: &str) -> Event {
    let fields = [
        ("userId", quoted(user)),
        ("firstName", quoted("Zoë")),
        ("email", quoted(&email_of(user))),
        ("phone", quoted(&phone_of(user))),
    ];
    Event::new("UserRegistered", event_id, user, object(&fields))
}

/// A request as another service may publish it, with the words of an order confirmation.
pub fn request(event_id: &str, channel: &str, recipient: &str) -> Event {
    let words = r#"{"orderId":"4711","amount":99.10,"orderDate":"2026-01-15T10:30:00Z"}"#;
    let fields = [
        ("type", quoted(channel)),
        ("recipient", quoted(recipient)),
        ("template", quoted("order_confirmation")),
        ("data", words.to_owned()),
    ];
    Event::new("NotificationRequested", event_id, &format!("notification-{event_id}"), object(&fields))
}

pub fn email_of(user: &str) -> String {
    format!("{user}@example.com")
}

/// An E.164 number that follows from the user's name.
pub fn phone_of(user: &str) -> String {
    let number = user.bytes().fold(0_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 100_000_000);
    format!("+1555{number:08}")
}

pub fn topic_of(event_type: &str) -> &'static str {
    match event_type {
        "UserRegistered" | "UserUpdated" | "UserLogin" => USERS,
        "ProductOutOfStock" | "ProductUpdated" | "PriceChanged" => PRODUCTS,
        "NotificationRequested" | "NotificationSent" => NOTIFICATIONS,
        _ => ORDERS,
    }
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string")
}

/// A JSON object of these fields, whose values are JSON.
pub fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", fields.join(","))
}
