//! One test's own topics, database and configuration.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::command::Invocation;
use super::database::{Database, Kind};
use super::kafka::Kafka;
use super::oracle::Oracle;
use super::provider::FakeProvider;
use super::published::Story;
use super::service::Service;
use super::wait::{self, secs};

pub struct Setup {
    pub kafka: Kafka,
    pub database: Database,
    config: PathBuf,
    folder: TempDir,
}

impl Setup {
    /// Creates topics and a PostgreSQL database, and writes the configuration: settings and providers, both TOML.
    #[track_caller]
    pub fn new(settings: &str, providers: &str) -> Self {
        Self::on(Kind::Postgres, settings, providers)
    }

    /// The same on either database.
    #[track_caller]
    pub fn on(kind: Kind, settings: &str, providers: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("service.toml");
        fs::write(&config, format!("{settings}\n{providers}")).expect("the configuration is written");
        let database = match kind {
            Kind::Postgres => Database::fresh(),
            Kind::Sqlite => Database::file(folder.path()),
        };
        let setup = Self { kafka: Kafka::corner(), database, config, folder };
        setup.command(&["topics", "create"]).run(secs(60)).expect_code(0);
        setup
    }

    /// The same topics and database under another configuration.
    #[track_caller]
    pub fn with_settings(self, settings: &str) -> Self {
        fs::write(&self.config, settings).expect("the configuration is written");
        self
    }

    /// The service, whatever becomes of it.
    pub fn spawn(&self) -> Service {
        Service::spawn(self.command(&["serve", "--config", &self.config_file()]))
    }

    /// The path of the configuration.
    pub fn config_file(&self) -> String {
        self.config.to_str().expect("UTF-8").to_owned()
    }

    /// A command of the real binary that works on these topics and this database.
    pub fn command(&self, args: &[&str]) -> Invocation {
        Invocation::new(self.folder.path(), args)
            .env("KAFKA_BROKERS", &self.kafka.brokers)
            .env("NOTIFICATION__KAFKA__PREFIX", &self.kafka.prefix)
            .env("DATABASE_URL", &self.database.url)
    }

    /// The service, ready for work.
    #[track_caller]
    pub fn start(&self) -> Service {
        let mut service = self.spawn();
        service.wait_until_ready();
        service
    }

    /// Waits until all that must come of an input has come: accepted, told on the topic, committed.
    #[track_caller]
    pub fn wait_for_the_end(&self, oracle: &Oracle<'_>, provider: &FakeProvider, within: Duration) -> Story {
        let expected = oracle.requests.len();
        provider.wait_for_accepted(expected, within);
        wait::until("a lifecycle event for each notification", secs(60), || {
            (Story::of(&self.kafka).lifecycle_by_request().len() >= expected).then_some(())
        });
        self.kafka.wait_until_drained(secs(60));
        Story::of(&self.kafka)
    }
}
