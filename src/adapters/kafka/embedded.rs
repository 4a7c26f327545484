//! librdkafka's mock cluster: a Kafka inside this process, for the demo and for trying things out.
//!
//! It keeps about 5 MiB per partition and silently drops older records, and its transactions are not real: never
//! evidence for guarantees or for speed.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use rdkafka::mocking::MockCluster;

use super::admin::TopicPlan;

/// A running mock cluster; it ends when this is dropped.
pub struct EmbeddedCluster {
    brokers: String,
    /// Dropped with this, which ends the cluster's thread.
    _alive: Sender<()>,
}

impl EmbeddedCluster {
    /// Starts one broker with these topics.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn start(topics: Vec<TopicPlan>) -> Result<Self, String> {
        let (alive, ended) = channel::<()>();
        let (ready, started) = channel();
        // The cluster's handle is bound to one thread.
        thread::Builder::new()
            .name("embedded-kafka".into())
            .spawn(move || {
                let cluster = match MockCluster::new(1) {
                    Ok(cluster) => cluster,
                    Err(error) => return drop(ready.send(Err(error.to_string()))),
                };
                let created = topics.iter().try_for_each(|t| cluster.create_topic(&t.name, t.partitions, 1));
                let answer = created.map(|()| cluster.bootstrap_servers()).map_err(|e| e.to_string());
                if ready.send(answer).is_err() {
                    return;
                }
                let _ = ended.recv();
            })
            .map_err(|e| e.to_string())?;
        let brokers = started.recv().map_err(|_| "its thread ended".to_owned())??;
        Ok(Self { brokers, _alive: alive })
    }

    /// `bootstrap.servers` of the cluster.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}
