//! What the tests are made of: the service as a process, servers of their own, a provider, and an independent judge.

pub mod alone;
pub mod broken;
pub mod certificates;
pub mod clients;
pub mod command;
pub mod database;
pub mod events;
pub mod health_watch;
pub mod http_client;
pub mod json_object;
pub mod kafka;
pub mod listener;
pub mod mail_server;
pub mod metrics_text;
pub mod mix;
pub mod oracle;
pub mod producer;
pub mod provider;
pub mod published;
pub mod random;
pub mod redis_stream;
pub mod secured_broker;
pub mod servers;
pub mod service;
pub mod setup;
pub mod verify;
pub mod wait;

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// Tests are plain functions; what has to be asynchronous runs here.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime"));
    &RUNTIME
}

/// A short name that no other test and no earlier run has used.
pub fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
}
