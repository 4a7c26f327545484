//! What is kept in the process alone.

mod processed_events;

pub use processed_events::MemoryProcessedEvents;
