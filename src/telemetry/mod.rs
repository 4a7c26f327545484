//! What operators see: logs, metrics, and the journal of notable events. A leaf: it knows nobody else.

pub mod events;
pub mod group_metrics;
pub mod logging;
pub mod metric_definitions;
pub mod metrics_server;
