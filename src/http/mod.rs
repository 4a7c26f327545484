//! The HTTP side: probes, metrics, and the read-only API.

mod api;
mod health;
mod problem;
mod server;
mod state;

pub use server::{BindError, HttpServerHandle, start};
pub use state::{Phase, RunningParts, SharedState};
