//! Waiting for what the service needs, and saying so.

use std::time::{Duration, Instant};

use super::kafka::topic_plans;
use super::service::StartError;
use crate::adapters::kafka::{AdminError, ClientSettings, KafkaAdmin};
use crate::adapters::sql::{Database, DatabaseError};
use crate::config::Config;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// The same news is repeated this often.
const REPEAT: Duration = Duration::from_secs(5);
/// One question to the cluster.
const ASK: Duration = Duration::from_secs(2);

/// Repeats what is being waited for now and then, and ends the wait at the deadline.
struct Waiting {
    what: &'static str,
    deadline: Option<Instant>,
    said: Option<Instant>,
}

impl Waiting {
    fn new(what: &'static str, deadline: Option<Instant>) -> Self {
        Self { what, deadline, said: None }
    }

    async fn pause(&mut self, why: &str) -> Result<(), StartError> {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(StartError(format!("gave up waiting for {} (startup.deadline_ms): {why}", self.what)));
        }
        if self.said.is_none_or(|said| now - said >= REPEAT) {
            tracing::warn!(why, "waiting for {}", self.what);
            self.said = Some(now);
        }
        let left = self.deadline.map_or(PAUSE, |deadline| deadline - now);
        tokio::time::sleep(PAUSE.min(left)).await;
        Ok(())
    }
}

/// Opens the database as soon as it answers.
pub async fn database(config: &Config, deadline: Option<Instant>) -> Result<Database, StartError> {
    let mut waiting = Waiting::new("the database", deadline);
    loop {
        match Database::open(config.database.url.expose(), config.database.max_connections).await {
            Ok(database) => return Ok(database),
            Err(DatabaseError::Unreachable(why)) => waiting.pause(&format!("DATABASE_URL: {why}")).await?,
            Err(error @ DatabaseError::Unusable(_)) => return Err(StartError(error.to_string())),
        }
    }
}

/// Waits until a broker answers and the topics exist. A refusal ends the wait at once.
pub async fn topics(config: &Config, admin: &KafkaAdmin, deadline: Option<Instant>) -> Result<(), StartError> {
    let mut waiting = Waiting::new("Kafka", deadline);
    let plans = topic_plans(config);
    loop {
        match admin.describe(&plans, ASK).await {
            Ok(reports) => {
                let missing: Vec<&str> =
                    reports.iter().filter(|r| r.found.is_none()).map(|r| r.plan.name.as_str()).collect();
                if missing.is_empty() {
                    return Ok(());
                }
                let why = format!("missing topics: {}; run `notification-service topics create`", missing.join(", "));
                waiting.pause(&why).await?;
            }
            Err(denied @ AdminError::Denied { .. }) => return Err(StartError(denied.to_string())),
            Err(error) => waiting.pause(&error.to_string()).await?,
        }
    }
}

/// Settings with batches that the topics of outputs take, if those are smaller than usual: a broker that refuses a batch
/// as too large refuses the sound records in it too.
pub async fn fitting_batches(config: &Config, admin: &KafkaAdmin, client: ClientSettings) -> ClientSettings {
    if config.kafka.is_embedded() {
        return client;
    }
    let topics = config.kafka.topics();
    let limit = match admin.largest_batch(&[&topics.notifications, &topics.dead_letters], ASK).await {
        Ok(limit) => limit,
        Err(error) => {
            tracing::info!(%error, "the topics' max.message.bytes are unknown; batches have their usual size");
            None
        }
    };
    let Some(fitting) = limit.and_then(|bytes| client.with_batches_of(bytes)) else { return client };
    tracing::info!(bytes = limit, "batches are as small as the topics want them (max.message.bytes)");
    fitting
}
