//! Thin actix shells over the stages: lifecycle, protocol and supervision. `messages` is the protocol as a table.

pub mod circuit_breaker;
pub mod consumer_group;
pub mod dead_letter;
pub mod dispatch;
pub mod messages;
pub mod monitor;
pub mod outbox;
pub mod slot;
#[cfg(test)]
mod stall_tests;
pub mod supervisor;
#[cfg(test)]
mod supervisor_tests;
pub mod tasks;
