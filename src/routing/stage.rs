//! Decodes a record, runs its handlers, and publishes what they ask for.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use jiff::Timestamp;
use metrics::{Histogram, counter, histogram};

use crate::consume::dedup::{Admission, Dedup};
use crate::consume::durable_publish::{DurablePublisher, refusal};
use crate::consume::stage::{Decision, Durable, Stage, TransactionalStage};
use crate::domain::channel::Channel;
use crate::domain::dead_letter::{Failure, Stage as StageName};
use crate::domain::envelope::{Envelope, non_empty};
use crate::domain::notification::{Draft, SOURCE};
use crate::domain::recipient::{Recipient, mask_addresses};
use crate::domain::record::{Headers, OutboundRecord, Record};
use crate::domain::time::format_utc;
use crate::domain::trace::TraceContext;
use crate::handlers::{HandlerError, Registry, directory_entry};
use crate::ports::clock::SharedClock;
use crate::ports::contacts::Contacts;
use crate::ports::ledger::LedgerError;
use crate::ports::processed_events::Candidate;
use crate::resilience::breaker::CallOutcome;
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::retry::Waits;
use crate::telemetry::group_metrics::GroupMetrics;
use crate::telemetry::metric_definitions::{REQUESTS_PUBLISHED, ROUTING_SECONDS};

/// What a request is counted under.
type Counted = (Channel, Cow<'static, str>);

/// What an event makes the routing stage do.
pub struct Routed {
    outputs: Vec<OutboundRecord>,
    counted: Vec<Counted>,
    contact: Option<Recipient>,
    /// The event's id, where duplicates are looked for.
    event: Option<Box<str>>,
}

/// The recipients directory, which learns from user events, behind the database's breaker.
pub struct Directory {
    /// Where contacts are kept.
    pub contacts: Arc<dyn Contacts>,
    /// In front of the database.
    pub breaker: Arc<BreakerCell>,
}

/// The routing stage of one consumer group.
pub struct RoutingStage {
    registry: Arc<Registry>,
    publisher: DurablePublisher,
    directory: Option<Directory>,
    dedup: Option<Dedup>,
    output_topic: Arc<str>,
    clock: SharedClock,
    metrics: Arc<GroupMetrics>,
    breakers: Vec<Arc<BreakerCell>>,
    routing_seconds: Histogram,
    last_timestamp: Mutex<(Timestamp, Arc<str>)>,
}

impl RoutingStage {
    /// A stage that publishes to `output_topic`. Only a group with a directory lets it learn from its events; without
    /// de-duplication a repeated event has its effect again, under the same ids.
    pub fn new(
        registry: Arc<Registry>,
        publisher: DurablePublisher,
        directory: Option<Directory>,
        dedup: Option<Dedup>,
        output_topic: Arc<str>,
        clock: SharedClock,
        metrics: Arc<GroupMetrics>,
    ) -> Self {
        let mut breakers = vec![Arc::clone(publisher.breaker())];
        breakers.extend(directory.iter().map(|d| Arc::clone(&d.breaker)));
        breakers.extend(dedup.iter().filter_map(Dedup::required_breaker).cloned());
        Self {
            registry,
            publisher,
            directory,
            dedup,
            output_topic,
            clock,
            metrics,
            breakers,
            routing_seconds: histogram!(ROUTING_SECONDS),
            last_timestamp: Mutex::new((Timestamp::UNIX_EPOCH, Arc::from(format_utc(Timestamp::UNIX_EPOCH)))),
        }
    }

    fn route(&self, record: &Record, now: Timestamp) -> Decision<Routed> {
        let envelope = match Envelope::decode(record.value.as_deref()) {
            Ok(envelope) => envelope,
            Err(error) => return Decision::Fail(failure(&HandlerError::Invalid(error), now)),
        };
        let contact = match self.directory.as_ref().map(|_| directory_entry(&envelope)).transpose() {
            Ok(contact) => contact.flatten(),
            Err(error) => return Decision::Fail(failure(&HandlerError::Invalid(error), now)),
        };
        let handlers = self.registry.handlers_of(&envelope.event_type);
        if handlers.is_empty() && contact.is_none() {
            return Decision::Skip;
        }
        let event = self.dedup.is_some().then(|| Box::from(&*envelope.event_id));
        let incoming = record.headers.get("traceparent").and_then(TraceContext::parse);
        let mut routed = Routed { outputs: Vec::with_capacity(1), counted: Vec::with_capacity(1), contact, event };
        for handler in handlers {
            match handler(&envelope) {
                Ok(output) => {
                    for draft in output.drafts {
                        // It is made from an identifier of the event, which may have its full length already.
                        if let Err(error) = non_empty("aggregateId of the request", &draft.aggregate_id) {
                            return Decision::Fail(failure(&HandlerError::Invalid(error), now));
                        }
                        routed.outputs.push(self.outbound(&draft, &envelope, incoming, now));
                        routed.counted.push((draft.channel, draft.template));
                    }
                }
                Err(error) => return Decision::Fail(failure(&error, now)),
            }
        }
        if routed.outputs.is_empty() && routed.contact.is_none() { Decision::Skip } else { Decision::Act(routed) }
    }

    fn outbound(
        &self,
        draft: &Draft,
        envelope: &Envelope<'_>,
        incoming: Option<TraceContext>,
        now: Timestamp,
    ) -> OutboundRecord {
        let timestamp = self.timestamp(now);
        let request = draft.to_request(envelope, &timestamp);
        let trace = TraceContext::continued(incoming, request.id);
        let mut headers = Headers::with_room();
        headers.push("eventType", Some(crate::domain::catalog::NOTIFICATION_REQUESTED.as_bytes()));
        headers.push("source", Some(SOURCE.as_bytes()));
        headers.push("timestamp", Some(timestamp.as_bytes()));
        headers.push("aggregateId", Some(draft.aggregate_id.as_bytes()));
        headers.push("traceparent", Some(trace.to_header().as_bytes()));
        OutboundRecord {
            topic: Arc::clone(&self.output_topic),
            key: Some(draft.aggregate_id.as_bytes().into()),
            value: request.json,
            headers,
        }
    }

    /// The text of a timestamp; a batch has one for all its records.
    fn timestamp(&self, now: Timestamp) -> Arc<str> {
        let mut last = self.last_timestamp.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != now {
            *last = (now, Arc::from(format_utc(now)));
        }
        Arc::clone(&last.1)
    }

    /// The directory learns before the event is settled, in order, however long the database is away.
    async fn learn(&self, recipients: Vec<Recipient>) {
        let Some(directory) = self.directory.as_ref().filter(|_| !recipients.is_empty()) else { return };
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let permit = directory.breaker.granted().await;
            match directory.contacts.learn(recipients.clone(), self.clock.now()).await {
                Ok(()) => return permit.report(CallOutcome::Success),
                // An event that is fine otherwise makes no dead letter for a directory entry: the refused one is told.
                Err(LedgerError::Rejected(reason)) if recipients.len() == 1 => {
                    permit.report(CallOutcome::Success);
                    tracing::error!(
                        recipient = mask_addresses(&recipients[0].id),
                        reason,
                        "the directory cannot hold this entry"
                    );
                    return;
                }
                Err(LedgerError::Rejected(_)) => {
                    permit.report(CallOutcome::Success);
                    for recipient in recipients {
                        Box::pin(self.learn(vec![recipient])).await;
                    }
                    return;
                }
                Err(error) => {
                    permit.report(CallOutcome::Failure(1));
                    tracing::warn!(%error, "the recipients directory cannot be written; user events wait");
                    tokio::time::sleep(waits.next_wait()).await;
                }
            }
        }
    }
}

#[async_trait]
impl Stage for RoutingStage {
    type Effect = Routed;

    fn name(&self) -> StageName {
        StageName::Routing
    }

    fn decide(&self, record: &Record, now: Timestamp) -> Decision<Routed> {
        self.route(record, now)
    }

    fn event<'a>(&self, routed: &'a Routed) -> Option<&'a str> {
        routed.event.as_deref()
    }

    async fn admit(&self, candidates: &[Candidate<'_>]) -> Vec<Admission> {
        match &self.dedup {
            Some(dedup) => dedup.admit(candidates).await,
            None => vec![Admission::Now; candidates.len()],
        }
    }

    async fn begin(&self, mut effects: Vec<Routed>) -> Durable {
        let begun = self.clock.monotonic();
        self.prepare(&mut effects.iter_mut().collect::<Vec<_>>()).await;
        let (mut records, mut effect_of, mut kinds) = (Vec::with_capacity(effects.len()), Vec::new(), Vec::new());
        let (mut events, mut silent) = (Vec::with_capacity(effects.len()), 0);
        for (index, routed) in effects.into_iter().enumerate() {
            // The directory learnt from it, but nobody is notified: for the account it is a skip.
            silent += usize::from(routed.outputs.is_empty());
            effect_of.resize(effect_of.len() + routed.outputs.len(), index);
            records.extend(routed.outputs);
            kinds.extend(routed.counted);
            events.push(routed.event);
        }
        let in_flight = if records.is_empty() { None } else { Some(self.publisher.begin(records).await) };
        let (clock, histogram, dedup) = (Arc::clone(&self.clock), self.routing_seconds.clone(), self.dedup.clone());
        let metrics = Arc::clone(&self.metrics);
        async move {
            let refused = match in_flight {
                Some(in_flight) => in_flight.durable().await,
                None => Vec::new(),
            };
            histogram.record_many((clock.monotonic() - begun).as_secs_f64(), kinds.len());
            let lost: HashSet<usize> = refused.iter().map(|(index, _)| *index).collect();
            count_published(kinds.iter().enumerate().filter(|(i, _)| !lost.contains(i)).map(|(_, kind)| kind));
            (0..silent).for_each(|_| metrics.skipped());
            for (index, _) in &refused {
                // A dead letter that is mended and sent again must not be taken for a duplicate.
                events[effect_of[*index]] = None;
            }
            remember(dedup.as_ref(), events.iter().flatten().map(|id| &**id)).await;
            let now = clock.now();
            refused.into_iter().map(|(index, error)| (effect_of[index], refusal(error, "request", now))).collect()
        }
        .boxed()
    }

    fn breakers(&self) -> &[Arc<BreakerCell>] {
        &self.breakers
    }
}

#[async_trait]
impl TransactionalStage for RoutingStage {
    async fn prepare(&self, effects: &mut [&mut Routed]) {
        let recipients = effects.iter_mut().filter_map(|routed| routed.contact.take()).collect();
        self.learn(recipients).await;
    }

    fn records(effect: &Routed) -> &[OutboundRecord] {
        &effect.outputs
    }

    async fn committed(&self, effects: &[&Routed], took: Duration) {
        let kinds: Vec<&Counted> = effects.iter().flat_map(|routed| &routed.counted).collect();
        self.routing_seconds.record_many(took.as_secs_f64(), kinds.len());
        count_published(kinds.into_iter());
        effects.iter().filter(|routed| routed.counted.is_empty()).for_each(|_| self.metrics.skipped());
        remember(self.dedup.as_ref(), effects.iter().filter_map(|routed| routed.event.as_deref())).await;
    }
}

/// The effects are durable: their events need not have them again.
async fn remember<'a>(dedup: Option<&Dedup>, events: impl Iterator<Item = &'a str>) {
    if let Some(dedup) = dedup {
        dedup.processed(&events.collect::<Vec<_>>()).await;
    }
}

fn count_published<'a>(kinds: impl Iterator<Item = &'a Counted>) {
    let mut published: HashMap<&Counted, u64> = HashMap::new();
    for kind in kinds {
        *published.entry(kind).or_default() += 1;
    }
    for ((channel, template), count) in published {
        counter!(REQUESTS_PUBLISHED, "channel" => channel.as_str(), "template" => template.to_string())
            .increment(count);
    }
}

fn failure(error: &HandlerError, now: Timestamp) -> Failure {
    Failure::of(error.class(), error.code(), error, now)
}
