//! Taking records from a source and settling each exactly once: what all stages have in common.

pub mod admission;
pub mod batch_write;
pub mod dedup;
pub mod durable_publish;
pub mod engine;
pub mod key_order;
pub mod letters;
mod retries;
pub mod stage;
pub mod stall;
pub mod transactional;
mod verdict;
pub mod watermark;
