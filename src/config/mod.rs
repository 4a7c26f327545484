//! The configuration: built-in defaults, then a file, then the environment; checked at once, with every mistake named.
//!
//! `config/default.toml` is the manual: it has every key with its unit, default and effect.

use std::path::Path;

use serde::{Deserialize, Serialize};

mod auth;
mod breaker;
mod collect;
mod database;
mod dedup;
mod delivery;
mod env;
mod http;
mod kafka;
mod load;
mod logging;
mod mistake;
mod monitor;
mod provider;
mod provider_rules;
#[cfg(test)]
mod provider_tests;
mod recipients;
mod redis;
mod route;
mod routing;
mod secret;
mod shutdown;
mod source;
mod startup;
mod supervision;
#[cfg(test)]
mod tests;

pub use auth::AuthConfig;
pub use breaker::BreakerConfig;
pub use database::DatabaseConfig;
pub use dedup::{DedupConfig, DedupStore};
pub use delivery::{DeliveryConfig, DeliveryRetryConfig};
pub use http::HttpConfig;
pub use kafka::{AutoOffsetReset, KafkaConfig, Partitions};
pub use logging::{LogFormat, LoggingConfig};
pub use mistake::{ConfigError, Mistake};
pub use monitor::MonitorConfig;
pub use provider::{DkimConfig, OnUnknown, ProviderConfig, ProviderKind, ReportFormat, ReportsConfig};
pub use recipients::RecipientsConfig;
pub use redis::RedisConfig;
pub use route::{PointerText, RouteConfig};
pub use routing::{Guarantee, RoutingConfig};
pub use secret::{Secret, SecretUrl};
pub use shutdown::ShutdownConfig;
pub use source::{SourceConfig, SourceKind};
pub use startup::StartupConfig;
pub use supervision::SupervisionConfig;

use crate::domain::groups;
use mistake::rule;

/// The effective configuration. Printed or serialized, its secrets are masked.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[allow(missing_docs)]
pub struct Config {
    pub kafka: KafkaConfig,
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub http: HttpConfig,
    pub auth: AuthConfig,
    pub logging: LoggingConfig,
    pub startup: StartupConfig,
    pub shutdown: ShutdownConfig,
    pub routing: RoutingConfig,
    pub breaker: BreakerConfig,
    pub delivery: DeliveryConfig,
    pub supervision: SupervisionConfig,
    pub monitor: MonitorConfig,
}

impl Config {
    /// Reads the defaults, the file and the environment, the later over the earlier ones. Of the environment only the
    /// documented variables are looked at.
    ///
    /// # Errors
    /// Every mistake of every layer, each with its key.
    pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        load::load(file, env)
    }

    /// The configuration as TOML, with secrets masked.
    pub fn show(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }

    /// What deserves a look at start but is no mistake.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.delivery.warnings();
        warnings.extend(self.auth.warnings());
        warnings
    }

    fn validate(&self, mistakes: &mut Vec<Mistake>) {
        self.kafka.validate(mistakes);
        self.database.validate(mistakes);
        self.redis.validate(mistakes);
        self.http.validate(mistakes);
        self.auth.validate(mistakes);
        self.logging.validate(mistakes);
        self.startup.validate(mistakes);
        self.shutdown.validate(mistakes);
        self.routing.validate(mistakes);
        self.routing.dedup.validate(self.redis.url.is_some(), mistakes);
        self.breaker.validate(mistakes);
        self.delivery.validate(mistakes);
        self.supervision.validate(mistakes);
        self.monitor.validate(mistakes);
        let possible = self.routing.guarantee == Guarantee::AtLeastOnce || !self.kafka.is_embedded();
        let problem = "`exactly_once` needs a real Kafka: the embedded one has no transactions";
        rule(mistakes, possible, "routing.guarantee", problem);
        self.validate_sources(mistakes);
        let busy = self.routing.enabled || self.delivery.enabled;
        rule(mistakes, busy, "delivery.enabled", "must not be false while routing.enabled is false too");
    }

    fn validate_sources(&self, mistakes: &mut Vec<Mistake>) {
        let there = self.redis.url.is_some() || self.routing.sources.is_empty();
        rule(mistakes, there, "redis.url", "is missing: routing.sources[0] reads from Redis");
        // Groups have actors and metrics under their names.
        let kafka: Vec<String> = groups::ALL.iter().map(|logical| self.kafka.group(logical)).collect();
        for (index, source) in self.routing.sources.iter().enumerate() {
            let problem = format!("`{}` is the name of a Kafka group", source.group());
            rule(mistakes, !kafka.contains(&source.group()), &format!("routing.sources[{index}].group"), problem);
        }
    }
}
