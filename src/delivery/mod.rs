//! Stage 2: requests into the ledger, and from there to their recipients through providers.

pub mod attempt;
pub mod backlog;
pub mod claiming;
pub mod contact;
pub mod context;
pub mod corrections;
pub mod decide;
pub mod desk;
pub mod door;
pub mod follow;
pub mod held;
pub mod intake;
pub mod lane;
pub mod lease_watch;
pub mod lifecycle;
pub mod outbox_relay;
pub mod pacing;
pub mod prepare;
pub mod recovery;
pub mod reports;
pub mod retention;
pub mod rules;
pub mod schedule;
pub mod sending;
pub mod template_settings;
pub mod templates;
pub mod under_way;
pub mod unsubscribe;

#[cfg(test)]
mod outbox_relay_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tests;
