//! The logical ids of the consumer groups on Kafka; the configuration may put a prefix in front of them.

/// Routes orders and payments.
pub const ORDERS: &str = "notification-service-orders";
/// Routes users, and teaches the directory.
pub const USERS: &str = "notification-service-users";
/// Routes products.
pub const PRODUCTS: &str = "notification-service-products";
/// Takes requests into the ledger.
pub const DELIVERY: &str = "notification-service-delivery";
/// Takes dead letters into their table.
pub const DEAD_LETTERS: &str = "notification-service-dead-letters";
/// All of them.
pub const ALL: [&str; 5] = [ORDERS, USERS, PRODUCTS, DELIVERY, DEAD_LETTERS];
