//! PostgreSQL and SQLite through one set of statements; only the words in which they differ are told apart here.

mod claims;
#[cfg(test)]
mod conformance;
mod contacts;
mod contents;
mod database;
mod dialect;
mod digests;
mod erasure;
mod inbox;
mod insert;
mod ledger;
mod letters;
mod messages;
mod outbox;
mod preferences;
mod processed_events;
mod retention;
mod rows;
mod search;
mod seize;
mod settle;
mod superseded;
mod wake;

pub use database::{Database, DatabaseError};
pub use processed_events::SqlProcessedEvents;
