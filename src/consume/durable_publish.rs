//! Publishing that ends only when every record is durable or refused for good.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::dead_letter::Failure;
use crate::domain::error::ErrorClass;
use crate::domain::record::OutboundRecord;
use crate::ports::publisher::{Acks, EventPublisher, PublishError};
use crate::resilience::breaker::CallOutcome;
use crate::resilience::breaker_cell::{BreakerCell, Permit};
use crate::resilience::retry::Waits;

/// A publisher behind its breaker.
#[derive(Clone)]
pub struct DurablePublisher {
    publisher: Arc<dyn EventPublisher>,
    breaker: Arc<BreakerCell>,
    /// Acknowledgements that take longer count as failures of the broker; the records stay in hand all the same.
    ack_timeout: Duration,
}

/// Records on their way.
pub struct InFlight {
    publisher: DurablePublisher,
    records: Vec<OutboundRecord>,
    acks: Acks,
    permit: Option<Permit>,
}

/// A record that the broker refuses for good, by its position.
pub type Refused = (usize, PublishError);

impl DurablePublisher {
    /// Puts a breaker in front of a publisher.
    pub fn new(publisher: Arc<dyn EventPublisher>, breaker: Arc<BreakerCell>, ack_timeout: Duration) -> Self {
        Self { publisher, breaker, ack_timeout }
    }

    /// The breaker in front of it.
    pub fn breaker(&self) -> &Arc<BreakerCell> {
        &self.breaker
    }

    /// Hands records to the producer, in order, as soon as the breaker lets them pass.
    pub async fn begin(&self, records: Vec<OutboundRecord>) -> InFlight {
        let permit = self.breaker.granted().await;
        let acks = self.publisher.publish(&records).await;
        InFlight { publisher: self.clone(), records, acks, permit: Some(permit) }
    }

    /// Publishes and waits. The refused ones, by position.
    pub async fn publish(&self, records: Vec<OutboundRecord>) -> Vec<Refused> {
        self.begin(records).await.durable().await
    }

    /// Publishes records that need not keep their order, and waits. Those that are refused, each by itself: a broker
    /// that refuses one record refuses its whole batch.
    pub async fn publish_each(&self, records: Vec<OutboundRecord>) -> Vec<(OutboundRecord, PublishError)> {
        let in_company = records.len() > 1;
        let mut in_flight = self.begin(records).await;
        let mut refused = in_flight.settled().await;
        refused.sort_unstable_by_key(|(position, _)| *position);
        let mut alone = Vec::new();
        for (position, error) in refused {
            let record = in_flight.records[position].clone();
            let last = if in_company { self.publish(vec![record.clone()]).await.pop() } else { Some((0, error)) };
            alone.extend(last.map(|(_, error)| (record, error)));
        }
        alone
    }
}

impl InFlight {
    /// Resolves when every record is durable or refused for good, however long the broker is away.
    pub async fn durable(mut self) -> Vec<Refused> {
        self.settled().await
    }

    async fn settled(&mut self) -> Vec<Refused> {
        let mut refused = Vec::new();
        let mut positions: Vec<usize> = (0..self.records.len()).collect();
        let mut waits = Waits::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            let failures = self.acknowledged(positions.len()).await;
            let mut again = Vec::new();
            for (index, error) in failures {
                match error {
                    PublishError::Rejected { .. } => refused.push((positions[index], error)),
                    PublishError::Unavailable(_) => again.push(index),
                }
            }
            self.report(again.len());
            if again.is_empty() {
                return refused;
            }
            again.sort_unstable();
            positions = again.iter().map(|index| positions[*index]).collect();
            tokio::time::sleep(waits.next_wait()).await;
            let permit = self.publisher.breaker.granted().await;
            let records: Vec<_> = positions.iter().map(|p| self.records[*p].clone()).collect();
            self.acks = self.publisher.publisher.publish(&records).await;
            self.permit = Some(permit);
        }
    }

    async fn acknowledged(&mut self, waiting: usize) -> Vec<(usize, PublishError)> {
        loop {
            match tokio::time::timeout(self.publisher.ack_timeout, &mut self.acks).await {
                Ok(failures) => return failures,
                Err(_) => {
                    // Of an outage that the breaker knows already, the other batches need not tell.
                    if self.permit.is_some() {
                        tracing::warn!(
                            records = waiting,
                            "Kafka has not acknowledged in time; the records stay in hand"
                        );
                    }
                    self.report(waiting);
                    // The next time-out needs a permit of its own.
                    let breaker = &self.publisher.breaker;
                    self.permit = breaker.acquire_closed();
                }
            }
        }
    }

    fn report(&mut self, failures: usize) {
        if let Some(permit) = self.permit.take() {
            permit.report(match failures {
                0 => CallOutcome::Success,
                count => CallOutcome::Failure(count as u32),
            });
        }
    }
}

/// Why what Kafka refuses becomes a dead letter; `what` names it.
pub fn refusal(error: PublishError, what: &str, now: Timestamp) -> Failure {
    match error {
        PublishError::Rejected { code, reason } => {
            Failure::new(ErrorClass::Permanent, code, format!("Kafka refuses the {what}: {reason}"), now)
        }
        PublishError::Unavailable(reason) => Failure::new(ErrorClass::Transient, "kafka_unavailable", reason, now),
    }
}
