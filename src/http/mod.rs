//! The HTTP side: probes, metrics, and the API.

mod api;
mod gate;
mod health;
mod limits;
mod problem;
mod server;
mod state;
mod unsubscribe;
mod webhooks;

pub use gate::Gate;
pub use limits::Limits;
pub use server::{BindError, HttpServerHandle, start};
pub use state::{Phase, RunningParts, SharedState};
