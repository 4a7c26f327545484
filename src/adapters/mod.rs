//! The world behind the ports: Kafka, SQL databases, providers. Only the composition root names what is in here.

pub mod jwt;
pub mod kafka;
pub mod memory;
#[cfg(test)]
mod processed_events_conformance;
pub mod providers;
pub mod redis;
pub mod sql;
