//! wip
pub mod actors;
pub mod adapters;
pub mod app;
pub mod cli;
pub mod config;
pub mod consume;
pub mod delivery;
#[allow(missing_docs)]
pub mod domain;
pub mod handlers;
pub mod http;
pub mod ports;
pub mod resilience;
pub mod routing;
pub mod telemetry;
