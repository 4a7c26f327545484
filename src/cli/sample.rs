//! Synthetic events for the load test.

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::domain::catalog::{EVENT_TYPES, EventType};
use crate::domain::time::format_utc;

/// A synthetic event: its id, its key, its JSON, its timestamp.
pub struct Sample {
    /// The event's id.
    pub id: String,
    /// Its type.
    pub event_type: &'static EventType,
    /// The record's key.
    pub key: String,
    /// Its envelope.
    pub json: Vec<u8>,
    /// Its timestamp.
    pub timestamp: String,
    /// True when a built-in handler asks for a notification.
    pub routed: bool,
}

/// The `number`-th event of a run: an OrderCreated, or with `mix` every type in turn.
///
/// Recipients are addresses under a reserved domain and reserved numbers, so that everything is deliverable without a
/// directory, and to nobody.
pub fn sample(run: &str, number: usize, mix: bool) -> Sample {
    let event_type = &EVENT_TYPES[if mix { number % EVENT_TYPES.len() } else { 0 }];
    let id = Uuid::new_v4().to_string();
    let key = format!("load-{run}-{number}");
    let timestamp = format_utc(Timestamp::now());
    let email = format!("customer-{number}@load-test.example");
    let phone = format!("+1555{:07}", number % 10_000_000);
    let data = match event_type.name {
        "OrderCreated" => json!({
            "orderId": key, "customerId": email, "amount": 99.5, "currency": "EUR",
            "items": [{"sku": "lamp-3", "quantity": 1}]
        }),
        "OrderPaid" | "PaymentCompleted" => json!({"orderId": key, "customerId": phone, "paymentMethod": "card"}),
        "OrderShipped" => json!({"orderId": key, "customerId": email, "carrier": "DHL", "trackingNumber": "JD0146"}),
        "OrderCancelled" => {
            json!({"orderId": key, "customerId": email, "reason": "changed mind", "refundAmount": 99.5})
        }
        "PaymentFailed" => json!({"orderId": key, "customerId": email, "reason": "card declined"}),
        "UserRegistered" => json!({"userId": key, "firstName": "Ada", "email": email}),
        "UserUpdated" | "UserLogin" => json!({"userId": key}),
        "ProductOutOfStock" => json!({"productId": key, "productName": "Lamp 3"}),
        _ => json!({"productId": key, "price": 12.5}),
    };
    let json = json!({
        "eventId": id, "eventType": event_type.name, "aggregateId": key, "version": 1, "timestamp": timestamp,
        "data": data, "metadata": {"source": "load-test", "correlationId": run}
    });
    let routed = !matches!(event_type.name, "UserUpdated" | "UserLogin" | "ProductUpdated" | "PriceChanged");
    Sample { id, event_type, key, json: json.to_string().into_bytes(), timestamp, routed }
}
