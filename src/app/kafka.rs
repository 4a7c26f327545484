//! From the configuration to Kafka's clients and topics.

use std::time::Duration;

use crate::adapters::kafka::{ClientSettings, KafkaAdmin, TopicPlan};
use crate::config::Config;

/// One question to the cluster.
const ASK: Duration = Duration::from_secs(2);

/// What every Kafka client of this process shares.
pub fn client_settings(config: &Config) -> ClientSettings {
    ClientSettings {
        brokers: config.kafka.brokers.clone(),
        client_id: config.kafka.client_id.clone(),
        properties: config.kafka.properties.clone(),
    }
}

/// Settings with batches that the topics of outputs take, if those are smaller than usual: a broker that refuses a batch
/// as too large refuses the sound records in it too.
pub async fn fitting_batches(config: &Config, admin: &KafkaAdmin, client: &ClientSettings) -> Option<ClientSettings> {
    if config.kafka.is_embedded() {
        return None;
    }
    let topics = config.kafka.topics();
    match admin.largest_batch(&[&topics.notifications, &topics.dead_letters], ASK).await {
        Ok(limit) => {
            let bytes = limit?;
            let fitting = client.with_batches_of(bytes)?;
            tracing::info!(bytes, "batches are as small as the topics want them (max.message.bytes)");
            Some(fitting)
        }
        Err(error) => {
            tracing::info!(%error, "the topics' max.message.bytes are unknown; batches have their usual size");
            None
        }
    }
}

/// The six topics as they should be.
pub fn topic_plans(config: &Config) -> Vec<TopicPlan> {
    let names = config.kafka.topics();
    config
        .kafka
        .partitions
        .all()
        .into_iter()
        .map(|(logical, partitions)| TopicPlan {
            name: names.named(logical),
            partitions,
            replication: config.kafka.replication_factor,
        })
        .collect()
}
