//! The service by itself, with Kafka inside the process and SQLite: no server is needed.

use std::fs;

use tempfile::TempDir;

use super::command::Invocation;
use super::service::Service;

pub struct Alone {
    pub service: Service,
    _folder: TempDir,
}

impl Alone {
    /// Starts it with this configuration, which is TOML; it is ready for work.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::with(config, &[])
    }

    /// The same with variables in its environment.
    #[track_caller]
    pub fn with(config: &str, env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("service.toml"), config).expect("the configuration is written");
        let serve = Invocation::new(folder.path(), &["serve", "--config", "service.toml"])
            .env("KAFKA_BROKERS", "embedded")
            .env("DATABASE_URL", "sqlite://notifications.db");
        let serve = env.iter().fold(serve, |serve, (name, value)| serve.env(name, value));
        let mut service = Service::spawn(serve);
        service.wait_until_ready();
        Self { service, _folder: folder }
    }
}
