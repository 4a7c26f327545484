//! Stage 2: requests into the ledger, and from there to their recipients through providers.

pub mod attempt;
pub mod contact;
pub mod decide;
pub mod held;
pub mod intake;
pub mod lane;
pub mod lifecycle;
pub mod outbox_relay;
pub mod recovery;
pub mod schedule;
pub mod template_settings;
pub mod templates;
