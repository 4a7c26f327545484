//! Asking the cluster about itself, and provisioning topics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};

use super::client_config::{ClientSettings, InvalidProperty};
use super::rebalance::forward_log;
use super::refusal::Refusal;
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
    /// The cluster answers, but refuses this client or is not trusted by it: asking again will not help.
    #[error("no access to Kafka at {brokers} (KAFKA_BROKERS): {refusal}")]
    Denied {
        /// The brokers that were asked.
        brokers: String,
        /// What was refused.
        refusal: Refusal,
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

/// The first wait for an answer. Refusals are noticed between two rounds, and a slow broker gets its time in those after
/// it.
const NEXT_ROUND: Duration = Duration::from_secs(2);
/// See [`NEXT_ROUND`].
const FIRST_ROUND: Duration = Duration::from_millis(250);

/// What librdkafka said since the last answer.
#[derive(Debug, Clone, Default)]
struct Said {
    refusal: Option<Refusal>,
    problem: Option<String>,
    /// The refusal is in the log.
    told: bool,
}

/// The client's callbacks: errors come here, while a question only learns that nobody answered.
#[derive(Clone, Default)]
struct Context(Arc<Mutex<Said>>);

impl Context {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Of a broker that hangs up, as one does that expects TLS, this is the only word.
        if facility == "FAIL" {
            let words = message.split_once("]: ").map_or(message, |(_, words)| words);
            self.lock().problem.get_or_insert_with(|| words.to_owned());
        }
        forward_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "admin client error");
        let mut said = self.lock();
        if let Some(refusal) = Refusal::of(&error, reason) {
            said.refusal = Some(refusal);
        }
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            said.problem = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// See the module. Cheap to clone; its questions block and therefore run on the blocking pool.
#[derive(Clone)]
pub struct KafkaAdmin {
    /// Only asks. Nobody polls the binding's admin client, so it would never tell an error and would keep every log
    /// line; a producer has a thread for that.
    client: Arc<ThreadedProducer<Context>>,
    context: Context,
    /// For changes, and what only a client for changes can ask.
    config: ClientConfig,
    brokers: String,
}

impl KafkaAdmin {
    /// Creates the client; it connects by itself.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(settings: &ClientSettings) -> Result<Self, InvalidProperty> {
        let (config, context) = (settings.admin(), Context::default());
        let client = Arc::new(config.create_with_context(context.clone())?);
        Ok(Self { client, context, config, brokers: settings.brokers.clone() })
    }

    /// Which of these topics exist, with partitions and replication.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn topics(&self, timeout: Duration) -> Result<Vec<(String, i32, i32)>, AdminError> {
        self.ask(timeout, |client, wait| {
            let metadata = client.fetch_metadata(None, wait)?;
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
        let changing = self.changes()?;
        let results = changing.create_topics(&topics, &options).await.map_err(|e| self.failed(&e))?;
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

    /// The largest batch that all of these topics take (`max.message.bytes`), in bytes; `None` when no broker says so.
    ///
    /// # Errors
    /// When nobody answers, or this client may not ask.
    pub async fn largest_batch(&self, topics: &[&str], timeout: Duration) -> Result<Option<u64>, AdminError> {
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let asking = self.changes()?;
        let answers = asking.describe_configs(&asked, &options).await.map_err(|e| self.failed(&e))?;
        let mut limits = Vec::with_capacity(topics.len());
        for (topic, answer) in topics.iter().zip(answers) {
            let refused =
                |code: RDKafkaErrorCode| AdminError::Refused { topic: (*topic).into(), reason: code.to_string() };
            let limit = answer.map_err(refused)?.get("max.message.bytes").and_then(|entry| entry.value.clone());
            limits.extend(limit.and_then(|bytes| bytes.parse::<u64>().ok()));
        }
        Ok(limits.into_iter().min())
    }

    /// Deletes topics; missing ones are fine. Returns the names of the deleted ones.
    ///
    /// # Errors
    /// When the cluster refuses one.
    pub async fn delete(&self, names: &[&str], timeout: Duration) -> Result<Vec<String>, AdminError> {
        let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
        let changing = self.changes()?;
        let results = changing.delete_topics(names, &options).await.map_err(|e| self.failed(&e))?;
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
        self.ask(timeout, move |client, wait| {
            (0..partitions).map(|partition| client.fetch_watermarks(&topic, partition, wait)).collect()
        })
        .await
    }

    /// Asks until there is an answer, a refusal, or the time is over.
    async fn ask<T: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl Fn(&Client<Context>, Duration) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, AdminError> {
        let (admin, end) = (self.clone(), Instant::now() + timeout);
        let asking = tokio::task::spawn_blocking(move || {
            let mut wait = FIRST_ROUND;
            loop {
                let began = Instant::now();
                let left = end.saturating_duration_since(began);
                let error = match question(admin.client.client(), wait.min(left)) {
                    Ok(answer) => {
                        *admin.context.lock() = Said::default();
                        return Ok(answer);
                    }
                    Err(error) => error,
                };
                if !is_silence(&error) || admin.context.lock().refusal.is_some() || Instant::now() >= end {
                    return Err(admin.failed(&error));
                }
                // Some failures come at once.
                thread::sleep(wait.min(left).saturating_sub(began.elapsed()));
                wait = NEXT_ROUND;
            }
        });
        match asking.await {
            Ok(answer) => answer,
            Err(join) => Err(AdminError::Unreachable { brokers: self.brokers.clone(), reason: join.to_string() }),
        }
    }

    /// A client for changes and for what only such a client can ask, for one of these.
    fn changes(&self) -> Result<AdminClient<DefaultClientContext>, AdminError> {
        self.config.create().map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &KafkaError) -> AdminError {
        let (said, brokers) = (self.context.lock().clone(), self.brokers.clone());
        match said.refusal {
            Some(refusal) => AdminError::Denied { brokers, refusal },
            None => AdminError::Unreachable { brokers, reason: said.problem.unwrap_or_else(|| error.to_string()) },
        }
    }
}

/// Nobody answered; anything else is an answer.
fn is_silence(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut))
}

#[async_trait]
impl Probe for KafkaAdmin {
    async fn check(&self, deadline: Duration) -> Result<(), String> {
        let Err(error) = self.topics(deadline).await else { return Ok(()) };
        // The service stays: credentials that were taken away may come back.
        if matches!(error, AdminError::Denied { .. }) && !std::mem::replace(&mut self.context.lock().told, true) {
            tracing::error!(%error, "Kafka does not let the service in any more; it waits");
        }
        Err(error.to_string())
    }
}

#[async_trait]
impl ClusterView for KafkaAdmin {
    async fn offsets(&self, topic: &str, partitions: i32, deadline: Duration) -> Result<Vec<(i64, i64)>, String> {
        self.watermarks(topic, partitions, deadline).await.map_err(|e| e.to_string())
    }
}
