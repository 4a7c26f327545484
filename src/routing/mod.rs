//! Stage 1: a domain event in, its notification requests out. Stream to stream.

mod stage;

pub use stage::{Directory, RoutingStage};
