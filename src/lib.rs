//! wip
#[allow(missing_docs)]
pub mod domain;
pub mod handlers;
pub mod ports;
pub mod resilience;
pub mod consume;
pub mod telemetry;
pub mod routing;
pub mod adapters;
pub mod delivery;
pub mod config;
pub mod actors;
pub mod app;
pub mod http;
pub mod cli;
