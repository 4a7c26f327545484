//! Which events a consumer group has processed already.
//!
//! Two phases: a claim before the effect, a mark after it is durable. A crash in between leaves a claim that its own
//! record passes at once when it comes again, and any other record once its lease is over: never a lost effect.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::record::Coordinates;

/// An event that is about to have its effect, and the record that brings it: the owner of the claim.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The event's id.
    pub id: &'a str,
    /// Where the record stands. Redelivered, it is the same owner, whichever process has it.
    pub at: &'a Coordinates,
}

/// What a claim came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The record may have its effect, until the lease is over.
    Granted,
    /// The event had its effect before.
    Processed,
    /// Another record has the event in hand: its effect may come, or not.
    Held,
}

/// The store cannot be used now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("processed events are unknown: {0}")]
pub struct StoreError(pub String);

/// The processed events of one consumer group.
#[async_trait]
pub trait ProcessedEvents: Send + Sync {
    /// Claims events, whose ids are distinct, for as long as the lease. The answers are in the candidates' order.
    ///
    /// # Errors
    /// When it is not known what was claimed; claims made all the same are the same records' own.
    async fn claim(&self, candidates: &[Candidate<'_>], lease: Duration) -> Result<Vec<Claim>, StoreError>;

    /// Marks events whose effects are durable as processed, for every record.
    ///
    /// # Errors
    /// When it is not known what was marked; marking again is harmless.
    async fn mark(&self, ids: &[&str]) -> Result<(), StoreError>;
}
