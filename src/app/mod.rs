//! The composition root: the only place that names concrete adapters. Start order, wiring, ordered shutdown.

mod auth;
mod breakers;
mod check;
mod delivery;
mod exposed;
mod groups;
mod kafka;
mod service;
mod startup;
mod streams;
mod wiring;

pub use auth::expected_of_tokens;
pub use check::check;
pub use delivery::{default_time_zone, templates};
pub use kafka::{client_settings, topic_plans};
pub use service::{Service, Setup, StartError};
