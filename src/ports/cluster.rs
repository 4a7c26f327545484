//! What the cluster says about its topics.

use std::time::Duration;

use async_trait::async_trait;

/// A look at the topics from outside any group.
#[async_trait]
pub trait ClusterView: Send + Sync {
    /// Start and end offsets of a topic's partitions, by partition.
    ///
    /// # Errors
    /// Why the cluster does not answer, in words.
    async fn offsets(&self, topic: &str, partitions: i32, deadline: Duration) -> Result<Vec<(i64, i64)>, String>;
}
