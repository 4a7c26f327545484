//! Payloads that the dead letter topic cannot hold.

use async_trait::async_trait;
use sqlx::{Row as _, query};

use super::database::{Database, bounded};
use crate::ports::dead_letters::{DeadLetterError, ParkedPayload, PayloadStore};

#[async_trait]
impl PayloadStore for Database {
    async fn park_payload(&self, parked: ParkedPayload) -> Result<(), DeadLetterError> {
        let statement = "INSERT INTO dead_letters (id, letter, payload, parked_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (id) DO NOTHING";
        bounded(async {
            query(statement)
                .bind(parked.id)
                .bind(parked.letter_json)
                .bind(parked.payload)
                .bind(parked.parked_at_ms)
                .execute(&self.write)
                .await?;
            Ok(())
        })
        .await
        .map_err(|e| DeadLetterError(e.to_string()))
    }

    async fn parked_payload(&self, id: &str) -> Result<Option<Vec<u8>>, DeadLetterError> {
        bounded(async {
            let row = query("SELECT payload FROM dead_letters WHERE id = $1")
                .bind(id.to_owned())
                .fetch_optional(&self.read)
                .await?;
            row.map(|row| row.try_get("payload")).transpose()
        })
        .await
        .map_err(|e| DeadLetterError(e.to_string()))
    }
}
