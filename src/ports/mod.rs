//! The traits between the service's logic and the world. Adapters implement them; tests bring their own.

pub mod authority;
pub mod clock;
pub mod cluster;
pub mod contacts;
pub mod dead_letters;
pub mod inbox;
pub mod ledger;
#[cfg(test)]
pub mod manual_clock;
pub mod outbox;
pub mod probe;
pub mod processed_events;
pub mod provider;
pub mod publisher;
pub mod rate;
pub mod reports;
pub mod source;
pub mod transactions;
