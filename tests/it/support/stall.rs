//! An output that stands still while everything else goes on.

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use super::kafka::{Kafka, NOTIFICATIONS};
use super::runtime;
use super::wait::secs;

/// The requests' topic takes no records: it has fewer replicas than it wants in sync.
pub struct Stall {
    admin: AdminClient<DefaultClientContext>,
    topic: String,
}

impl Stall {
    #[track_caller]
    pub fn of(kafka: &Kafka) -> Self {
        let admin = ClientConfig::new().set("bootstrap.servers", &kafka.brokers).create().expect("a client");
        let stall = Self { admin, topic: kafka.named(NOTIFICATIONS) };
        stall.want_in_sync("2");
        stall
    }

    #[track_caller]
    pub fn end(self) {
        self.want_in_sync("1");
    }

    #[track_caller]
    fn want_in_sync(&self, replicas: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(&self.topic)).set("min.insync.replicas", replicas);
        let options = AdminOptions::new().operation_timeout(Some(secs(20)));
        let changed = runtime().block_on(self.admin.alter_configs(&[change], &options)).expect("Kafka answers");
        assert!(changed.iter().all(Result::is_ok), "{changed:?}");
    }
}
