//! From the configuration to Kafka's clients and topics.

use crate::adapters::kafka::{ClientSettings, TopicPlan};
use crate::config::Config;

/// What every Kafka client of this process shares.
pub fn client_settings(config: &Config) -> ClientSettings {
    ClientSettings {
        brokers: config.kafka.brokers.clone(),
        client_id: config.kafka.client_id.clone(),
        properties: config.kafka.properties.clone(),
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
