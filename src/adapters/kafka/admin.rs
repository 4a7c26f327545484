//! Asking the cluster about itself, and provisioning topics.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client_config::{ClientSettings, InvalidProperty};
use super::rebalance::forward_log;
use crate::ports::cluster::ClusterView;
use crate::ports::probe::Probe;

/// Why the cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The cluster cannot be reached.
    #[error("no Kafka broker answers at {brokers} (KAFKA_BROKERS): {reason}")]
    Unreachable {
        /// The brokers that were asked.
        brokers: String,
        /// librdkafka's words.
        reason: String,
    },
    /// The cluster refused.
    #[error("topic {topic}: {reason}")]
    Refused {
        /// The topic in question.
        topic: String,
        /// The broker's words.
        reason: String,
    },
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TopicPlan {
    pub name: String,
    pub partitions: i32,
    pub replication: i32,
}

/// A topic as it should be and as it is.
#[derive(Debug, Clone)]
pub struct TopicReport {
    /// As it should be.
    pub plan: TopicPlan,
    /// Partitions and replication as they are; `None` when the topic is missing.
    pub found: Option<(i32, i32)>,
}

impl TopicReport {
    /// How the topic differs from its plan, in words; `None` when it does not.
    pub fn drift(&self) -> Option<String> {
        let Some((partitions, replication)) = self.found else { return Some("missing".to_owned()) };
        let mut words = Vec::new();
        if partitions != self.plan.partitions {
            words.push(format!("drift: has {partitions} partitions, expected {}", self.plan.partitions));
        }
        if replication != self.plan.replication {
            words.push(format!("drift: has replication {replication}, expected {}", self.plan.replication));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "admin client error");
    }
}

/// See the module. Cheap to clone; its questions block and therefore run on the blocking pool.
#[derive(Clone)]
pub struct KafkaAdmin {
    client: Arc<AdminClient<Context>>,
    brokers: String,
}

impl KafkaAdmin {
    /// Creates the client; it connects by itself.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(settings: &ClientSettings) -> Result<Self, InvalidProperty> {
        let client = AdminClient::from_config_and_context(&settings.admin(), Context)?;
        Ok(Self { client: Arc::new(client), brokers: settings.brokers.clone() })
    }

    /// Which of these topics exist, with partitions and replication.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn topics(&self, timeout: Duration) -> Result<Vec<(String, i32, i32)>, AdminError> {
        self.blocking(move |client| {
            let metadata = client.inner().fetch_metadata(None, timeout)?;
            let topics = metadata.topics().iter().filter(|t| t.error().is_none() && !t.partitions().is_empty());
            Ok(topics
                .map(|topic| {
                    let replication = topic.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
                    (topic.name().to_owned(), topic.partitions().len() as i32, replication as i32)
                })
                .collect())
        })
        .await
    }

    /// Compares topics with their plans.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn describe(&self, plans: &[TopicPlan], timeout: Duration) -> Result<Vec<TopicReport>, AdminError> {
        let topics = self.topics(timeout).await?;
        let found = |plan: &TopicPlan| topics.iter().find(|(name, ..)| *name == plan.name).map(|(_, p, r)| (*p, *r));
        Ok(plans.iter().map(|plan| TopicReport { plan: plan.clone(), found: found(plan) }).collect())
    }

    /// Creates the topics that are missing; existing ones are never changed. Returns the names of the new ones.
    ///
    /// # Errors
    /// When the cluster refuses one.
    pub async fn create(&self, plans: &[TopicPlan], timeout: Duration) -> Result<Vec<String>, AdminError> {
        let topics: Vec<NewTopic<'_>> = plans
            .iter()
            .map(|plan| NewTopic::new(&plan.name, plan.partitions, TopicReplication::Fixed(plan.replication)))
            .collect();
        let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
        let results = self.client.create_topics(&topics, &options).await.map_err(|e| self.unreachable(&e))?;
        let mut created = Vec::new();
        for result in results {
            match result {
                Ok(name) => created.push(name),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(AdminError::Refused { topic, reason: code.to_string() }),
            }
        }
        Ok(created)
    }

    /// Deletes topics; missing ones are fine. Returns the names of the deleted ones.
    ///
    /// # Errors
    /// When the cluster refuses one.
    pub async fn delete(&self, names: &[&str], timeout: Duration) -> Result<Vec<String>, AdminError> {
        let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
        let results = self.client.delete_topics(names, &options).await.map_err(|e| self.unreachable(&e))?;
        let mut deleted = Vec::new();
        for result in results {
            match result {
                Ok(name) => deleted.push(name),
                Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
                Err((topic, code)) => return Err(AdminError::Refused { topic, reason: code.to_string() }),
            }
        }
        Ok(deleted)
    }

    /// Start and end offsets of a topic's partitions.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn watermarks(
        &self,
        topic: &str,
        partitions: i32,
        timeout: Duration,
    ) -> Result<Vec<(i64, i64)>, AdminError> {
        let topic = topic.to_owned();
        self.blocking(move |client| {
            (0..partitions).map(|partition| client.inner().fetch_watermarks(&topic, partition, timeout)).collect()
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&AdminClient<Context>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, AdminError> {
        let client = Arc::clone(&self.client);
        match tokio::task::spawn_blocking(move || ask(&client)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(join) => Err(AdminError::Unreachable { brokers: self.brokers.clone(), reason: join.to_string() }),
        }
    }

    fn unreachable(&self, error: &KafkaError) -> AdminError {
        AdminError::Unreachable { brokers: self.brokers.clone(), reason: error.to_string() }
    }
}

#[async_trait]
impl Probe for KafkaAdmin {
    async fn check(&self, deadline: Duration) -> Result<(), String> {
        self.topics(deadline).await.map(drop).map_err(|e| e.to_string())
    }
}

#[async_trait]
impl ClusterView for KafkaAdmin {
    async fn offsets(&self, topic: &str, partitions: i32, deadline: Duration) -> Result<Vec<(i64, i64)>, String> {
        self.watermarks(topic, partitions, deadline).await.map_err(|e| e.to_string())
    }
}
