//! Records that wait to be tried again, and those that wait behind them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::key_order::KeyOrder;
use crate::domain::dead_letter::Failure;
use crate::domain::recipient::mask_addresses;
use crate::domain::record::Record;
use crate::resilience::retry::RetryPolicy;
use crate::telemetry::events;
use crate::telemetry::group_metrics::GroupMetrics;

/// Another record's effect is durable within milliseconds, as a rule.
const POSTPONED: Duration = Duration::from_millis(50);

/// A record with what went wrong with it so far.
pub struct Attempt {
    /// The record.
    pub record: Record,
    /// Its last failure; few have one.
    pub earlier: Option<Box<Failure>>,
}

impl From<Record> for Attempt {
    fn from(record: Record) -> Self {
        Self { record, earlier: None }
    }
}

/// See the module.
pub struct Retries {
    order: KeyOrder,
    policy: RetryPolicy,
    metrics: Arc<GroupMetrics>,
    waiting: FuturesUnordered<BoxFuture<'static, Attempt>>,
    bytes: usize,
}

impl Retries {
    /// Nothing waits yet. The order says what may not pass a record that does.
    pub fn new(order: KeyOrder, policy: RetryPolicy, metrics: Arc<GroupMetrics>) -> Self {
        Self { order, policy, metrics, waiting: FuturesUnordered::new(), bytes: 0 }
    }

    /// See [`KeyOrder::hold`].
    pub fn hold(&mut self, record: Record) -> Option<Record> {
        self.order.hold(record)
    }

    /// Lets a record wait for its next try.
    pub fn schedule(&mut self, record: Record, failure: Failure) {
        let wait = self.policy.wait_before(failure.retries);
        self.metrics.retried();
        events::retry_scheduled(&record.at.topic, record.at.offset, &mask_addresses(&failure.reason), wait);
        self.order.block(&record);
        self.bytes += record.size();
        self.waiting.push(Box::pin(async move {
            tokio::time::sleep(wait).await;
            Attempt { record, earlier: Some(Box::new(failure)) }
        }));
    }

    /// Lets a record wait a little for another one that has its event in hand: no attempt is used. One that is not to
    /// come back is left, and what comes behind it with it.
    pub fn postpone(&mut self, record: Record, comes_back: bool) {
        self.order.block(&record);
        if comes_back {
            self.bytes += record.size();
            self.waiting.push(Box::pin(async move {
                tokio::time::sleep(POSTPONED).await;
                Attempt::from(record)
            }));
        }
    }

    /// The next record whose wait is over, and in order what waited behind it; `None` when none waits.
    pub async fn next(&mut self) -> Option<VecDeque<Attempt>> {
        let attempt = self.waiting.next().await?;
        self.bytes -= attempt.record.size();
        let behind = self.order.release(&attempt.record);
        Some(std::iter::once(attempt).chain(behind.into_iter().map(Attempt::from)).collect())
    }

    /// Records that wait, those behind others included.
    pub fn held(&self) -> usize {
        self.order.held() + self.waiting.len()
    }

    /// Bytes of these records.
    pub fn held_bytes(&self) -> usize {
        self.bytes + self.order.bytes()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
