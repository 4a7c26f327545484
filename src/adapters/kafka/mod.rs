//! Kafka through librdkafka.

mod admin;
mod client_config;
mod embedded;
mod follow;
mod poller;
mod publisher;
mod rebalance;
mod refusal;
mod source;
mod tracker;
mod transactions;

pub use admin::{AdminError, KafkaAdmin, TopicPlan, TopicReport};
pub use client_config::{ClientSettings, InvalidProperty};
pub use embedded::EmbeddedCluster;
pub use follow::{Followed, Follower};
pub use publisher::KafkaPublisher;
pub use refusal::Refusal;
pub use source::{KafkaSource, SourceSettings};
pub use transactions::KafkaTransactions;
