//! Redis: whether it answers, its streams as sources of events, and the events that were processed.

mod link;
mod processed_events;
mod rate;
pub mod stream_commands;
pub mod stream_entry;
mod stream_hand;
#[cfg(test)]
mod stream_hand_tests;
mod stream_keeper;
mod stream_reader;
mod stream_replies;
pub mod stream_source;

pub use link::RedisLink;
pub use processed_events::RedisProcessedEvents;
pub use rate::RedisRate;

use std::time::Duration;

use async_trait::async_trait;
use redis::AsyncConnectionConfig;

use crate::ports::probe::Probe;

/// Asks Redis with a PING on a fresh connection.
pub struct RedisProbe(redis::Client);

impl RedisProbe {
    /// A probe of this URL.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(url: &str) -> Result<Self, String> {
        redis::Client::open(url).map(Self).map_err(|e| e.to_string())
    }
}

#[async_trait]
impl Probe for RedisProbe {
    async fn check(&self, deadline: Duration) -> Result<(), String> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(deadline)).set_response_timeout(Some(deadline));
        let ask = async {
            let mut connection = self.0.get_multiplexed_async_connection_with_config(&config).await?;
            redis::cmd("PING").exec_async(&mut connection).await
        };
        match tokio::time::timeout(deadline, ask).await {
            Ok(answer) => answer.map_err(|e| e.to_string()),
            Err(_) => Err(format!("no answer within {} ms", deadline.as_millis())),
        }
    }
}
