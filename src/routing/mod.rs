//! Stage 1: a domain event in, its notification requests out. Stream to stream.

#[cfg(test)]
mod hostile;
mod stage;
#[cfg(test)]
mod tests;

pub use stage::{Directory, RoutingStage};
