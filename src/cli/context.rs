//! What every command begins with: the configuration, the logs, a runtime.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::CliError;
use crate::adapters::kafka::{KafkaAdmin, KafkaPublisher};
use crate::app;
use crate::config::{Config, LogFormat};
use crate::domain::record::OutboundRecord;
use crate::ports::publisher::{EventPublisher as _, PublishError};
use crate::telemetry::logging;

/// A one-shot command without a broker gives up after this time.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Topics that were created a moment ago are in every broker's metadata within this time.
const NEW_TOPICS: Duration = Duration::from_secs(3);

/// Loads and checks the configuration.
///
/// # Errors
/// [`CliError::Usage`] with all mistakes, each with its key.
pub fn load(file: Option<&Path>) -> Result<Config, CliError> {
    load_with(file, std::iter::empty())
}

/// As [`load`], with variables that win over the environment's.
///
/// # Errors
/// As [`load`].
pub fn load_with(file: Option<&Path>, overrides: impl Iterator<Item = (String, String)>) -> Result<Config, CliError> {
    let overrides: Vec<(String, String)> = overrides.collect();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !overrides.iter().any(|(o, _)| o == name));
    let environment: Vec<(String, String)> = environment.chain(overrides.iter().cloned()).collect();
    let config = Config::load(file, environment.into_iter())
        .map_err(|e| CliError::Usage(format!("the configuration has mistakes:\n{e}")))?;
    let mistakes = app::check(&config);
    if !mistakes.is_empty() {
        let lines: Vec<String> = mistakes.iter().map(|m| format!("  {m}")).collect();
        return Err(CliError::Usage(format!("the configuration has mistakes:\n{}", lines.join("\n"))));
    }
    Ok(config)
}

/// Starts the logs as configured.
pub fn logs(config: &Config) {
    let format = match config.logging.format {
        LogFormat::Pretty => logging::Format::Pretty,
        LogFormat::Json => logging::Format::Json,
    };
    logging::init(format, &config.logging.filter);
}

/// The runtime that all I/O runs on.
///
/// # Errors
/// When the machine has no threads left.
pub fn runtime() -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("io")
        .build()
        .map_err(|e| CliError::Failed(format!("no runtime: {e}")))
}

/// Refuses one-shot commands against the embedded cluster, which lives only inside a running service.
///
/// # Errors
/// [`CliError::Usage`].
pub fn real_kafka(config: &Config) -> Result<(), CliError> {
    if config.kafka.is_embedded() {
        let reason = "KAFKA_BROKERS=embedded lives only inside `serve` and `demo`; name a real broker";
        return Err(CliError::Usage(reason.into()));
    }
    Ok(())
}

/// An admin client.
///
/// # Errors
/// When librdkafka refuses the configuration.
pub fn admin(config: &Config) -> Result<KafkaAdmin, CliError> {
    KafkaAdmin::new(&app::client_settings(config)).map_err(|e| CliError::Usage(e.to_string()))
}

/// A publisher for a one-shot command: broker and topics are there.
///
/// # Errors
/// When no broker answers in time, naming `KAFKA_BROKERS`, or a topic is missing.
pub async fn publisher(config: &Config) -> Result<std::sync::Arc<KafkaPublisher>, CliError> {
    let (admin, plans) = (admin(config)?, app::topic_plans(config));
    let deadline = Instant::now() + NEW_TOPICS;
    loop {
        let reports = admin.describe(&plans, PATIENCE).await.map_err(|e| CliError::Failed(e.to_string()))?;
        let missing: Vec<String> = reports.into_iter().filter(|r| r.found.is_none()).map(|r| r.plan.name).collect();
        if missing.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            let missing = missing.join(", ");
            let advice = format!("missing topics: {missing}; run `notification-service topics create`");
            return Err(CliError::Failed(advice));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    KafkaPublisher::new(app::client_settings(config)).map_err(|e| CliError::Usage(e.to_string()))
}

/// Publishes and waits for the acknowledgements.
///
/// # Errors
/// When a record is refused, or the broker does not acknowledge in time.
pub async fn publish(publisher: &KafkaPublisher, records: &[OutboundRecord], brokers: &str) -> Result<(), CliError> {
    let acks = publisher.publish(records).await;
    let Ok(failures) = tokio::time::timeout(PATIENCE, acks).await else {
        let seconds = PATIENCE.as_secs();
        let why = format!("Kafka at {brokers} (KAFKA_BROKERS) did not acknowledge within {seconds} s");
        return Err(CliError::Failed(why));
    };
    match failures.into_iter().next() {
        None => Ok(()),
        Some((_, error @ PublishError::Rejected { .. })) => Err(CliError::Failed(format!("Kafka refuses it: {error}"))),
        Some((_, error)) => Err(CliError::Failed(error.to_string())),
    }
}
