//! One connection that is made anew after a failure, with a deadline for everything.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisError};
use tokio::sync::Mutex;

/// A command must be answered within this time, and a connection be had.
const DEADLINE: Duration = Duration::from_secs(1);

/// See the module.
pub struct RedisLink {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// Why Redis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RedisFailure {
    #[error("Redis: {0}")]
    Refused(#[from] RedisError),
    #[error("Redis did not answer within {} ms", DEADLINE.as_millis())]
    Silent,
}

impl RedisLink {
    /// A link that connects when it is first used.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(url: &str) -> Result<Self, String> {
        let client = Client::open(url).map_err(|e| e.to_string())?;
        Ok(Self { client, connection: Mutex::new(None) })
    }

    /// Asks with a pipeline.
    ///
    /// # Errors
    /// See [`RedisFailure`]. What was asked may have been done.
    pub async fn ask<T: FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T, RedisFailure> {
        let answer = async {
            let mut connection = self.connected().await?;
            Ok(pipeline.query_async(&mut connection).await?)
        };
        let answer = tokio::time::timeout(DEADLINE, answer).await.unwrap_or(Err(RedisFailure::Silent));
        if answer.is_err() {
            *self.connection.lock().await = None;
        }
        answer
    }

    async fn connected(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok(connection.clone());
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(DEADLINE)).set_response_timeout(Some(DEADLINE));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        *kept = Some(connection.clone());
        Ok(connection)
    }
}
