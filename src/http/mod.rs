//! The HTTP side: probes, metrics, and the read-only API.

mod api;
mod health;
mod limits;
mod problem;
mod server;
mod state;

pub use limits::Limits;
pub use server::{BindError, HttpServerHandle, start};
pub use state::{Phase, RunningParts, SharedState};
