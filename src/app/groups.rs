//! The consumer groups: which topics they read, through which stage.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::breakers::Breakers;
use super::kafka::topic_plans;
use crate::actors::consumer_group::{Running, StartGroup};
use crate::adapters::kafka::{ClientSettings, KafkaSource, SourceSettings};
use crate::adapters::memory::MemoryProcessedEvents;
use crate::adapters::redis::{RedisLink, RedisProcessedEvents};
use crate::adapters::sql::{Database, SqlProcessedEvents};
use crate::config::{AutoOffsetReset, Config, DedupStore, Guarantee};
use crate::consume::dedup::{Dedup, Reliance};
use crate::consume::durable_publish::DurablePublisher;
use crate::consume::engine::{Engine, Limits};
use crate::consume::letters::LetterPress;
use crate::consume::stage::{Stage, TransactionalStage};
use crate::consume::transactional::TransactionalEngine;
use crate::delivery::desk::Desk;
use crate::delivery::intake::IntakeStage;
use crate::delivery::rules::TemplateRules;
use crate::domain::dead_letter::Stage as StageName;
use crate::domain::error::ErrorClass;
use crate::domain::groups;
use crate::handlers::Registry;
use crate::ports::clock::SharedClock;
use crate::ports::dead_letters::DeadLetterSink;
use crate::ports::processed_events::ProcessedEvents;
use crate::ports::source::{EventSource, SourceEnded};
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::retry::RetryPolicy;
use crate::review::mirror::{EndOfTheLine, MirrorStage};
use crate::routing::{Directory, RoutingStage};
use crate::telemetry::group_metrics::GroupMetrics;
use crate::telemetry::metric_definitions::{HEAD_OF_LINE, LAG, STALLS};
use crate::telemetry::metrics_server::expose;

/// How long a rebalance waits for work in hand.
const REVOKE_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of records that a group holds in hand at most, so that large events cannot fill the memory.
const IN_FLIGHT_BYTES: usize = 16 << 20;

/// The same for dead letters: they are few, and each may be as large as its topic allows.
const LETTER_BYTES: usize = 4 << 20;

/// What the client library fetches of them ahead, in KiB, unless `kafka.properties` says otherwise.
const LETTERS_AHEAD: (&str, &str) = ("queued.max.messages.kbytes", "4096");

/// A group, ready to be started.
pub struct GroupPlan {
    /// Its id.
    pub id: String,
    /// Starts source and loop.
    pub start: StartGroup,
    /// It pauses while one of these is open.
    pub breakers: Vec<Arc<BreakerCell>>,
}

/// What groups are made from.
pub struct GroupParts<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The clients' settings.
    pub client: ClientSettings,
    /// The handlers.
    pub registry: Arc<Registry>,
    /// Writes requests.
    pub publisher: DurablePublisher,
    /// Where records go that cannot be processed.
    pub dead_letters: Arc<dyn DeadLetterSink>,
    /// Makes records of dead letters, for transactions.
    pub press: LetterPress,
    /// The ledger and the directory.
    pub database: Database,
    /// The breakers.
    pub breakers: Breakers,
    /// Redis, where something uses it.
    pub redis: Option<Arc<RedisLink>>,
    /// What templates decide about requests.
    pub template_rules: Arc<TemplateRules>,
    /// Time.
    pub clock: SharedClock,
    /// Runs sources that have no thread of their own.
    pub io: Handle,
}

/// Opens a group's source, whenever its actor is built.
pub type OpenSource = Box<dyn Fn() -> Result<Arc<dyn EventSource>, SourceEnded> + Send + Sync>;

impl GroupParts<'_> {
    /// The groups of the stages that are enabled.
    pub fn plans(&self) -> Vec<GroupPlan> {
        let topics = self.config.kafka.topics();
        let mut plans = Vec::new();
        if self.config.routing.enabled {
            plans.push(self.routing(groups::ORDERS, &topics.orders, None));
            plans.push(self.routing(groups::USERS, &topics.users, Some(self.directory())));
            plans.push(self.routing(groups::PRODUCTS, &topics.products, None));
            plans.extend(self.streams());
        }
        if self.config.delivery.enabled {
            plans.push(self.delivery(groups::DELIVERY, &topics.notifications));
        }
        if !plans.is_empty() {
            plans.push(self.dead_letters(groups::DEAD_LETTERS, &topics.dead_letters));
        }
        plans
    }

    /// The recipients directory, for a group whose events tell about recipients.
    pub(super) fn directory(&self) -> Directory {
        Directory { contacts: Arc::new(self.database.clone()), breaker: Arc::clone(&self.breakers.database) }
    }

    fn routing(&self, logical: &str, topic: &Arc<str>, directory: Option<Directory>) -> GroupPlan {
        let id = self.config.kafka.group(logical);
        let metrics = self.metrics(topic, &id, StageName::Routing);
        let stage = Arc::new(self.routing_stage(&id, directory, &metrics));
        match self.config.routing.guarantee {
            Guarantee::AtLeastOnce => self.at_least_once(id.clone(), self.topic(id, topic), stage, metrics),
            Guarantee::ExactlyOnce => self.transactional(id, topic, stage, metrics),
        }
    }

    pub(super) fn routing_stage(
        &self,
        group: &str,
        directory: Option<Directory>,
        metrics: &Arc<GroupMetrics>,
    ) -> RoutingStage {
        RoutingStage::new(
            Arc::clone(&self.registry),
            self.publisher.clone(),
            directory,
            self.dedup(group),
            Arc::clone(&self.config.kafka.topics().notifications),
            Arc::clone(&self.clock),
            Arc::clone(metrics),
        )
    }

    /// Each group remembers its own events.
    fn dedup(&self, group: &str) -> Option<Dedup> {
        let config = &self.config.routing.dedup;
        let (store, reliance): (Arc<dyn ProcessedEvents>, Reliance) = match config.store {
            DedupStore::Off => return None,
            DedupStore::Memory => {
                (Arc::new(MemoryProcessedEvents::new(config.capacity, Arc::clone(&self.clock))), Reliance::Local)
            }
            DedupStore::Redis => {
                let store = RedisProcessedEvents::new(Arc::clone(self.redis.as_ref()?), group, config.remember());
                (Arc::new(store), Reliance::Optional(Arc::clone(self.breakers.redis.as_ref()?)))
            }
            DedupStore::Sql => {
                let (database, clock) = (self.database.clone(), Arc::clone(&self.clock));
                let store = SqlProcessedEvents::new(database, group, config.remember(), clock);
                (Arc::new(store), Reliance::Required(Arc::clone(&self.breakers.database)))
            }
        };
        Some(Dedup::new(store, reliance, config.lease()))
    }

    fn delivery(&self, logical: &str, topic: &Arc<str>) -> GroupPlan {
        let id = self.config.kafka.group(logical);
        let metrics = self.metrics(topic, &id, StageName::Delivery);
        let channels: HashSet<_> = self.config.delivery.providers.iter().map(|p| p.channel).collect();
        let desk = Desk { ledger: Arc::new(self.database.clone()) };
        let rules = Arc::clone(&self.template_rules);
        let stage = IntakeStage::new(desk, Arc::clone(&self.breakers.database), channels, rules);
        self.at_least_once(id.clone(), self.topic(id, topic), Arc::new(stage), metrics)
    }

    /// The dead letters' own group. It begins at the start of the topic whatever the others do: the table knows what it
    /// has. And it writes no letters, which would come back to it.
    fn dead_letters(&self, logical: &str, topic: &Arc<str>) -> GroupPlan {
        let id = self.config.kafka.group(logical);
        let metrics = self.metrics(topic, &id, StageName::Review);
        let stage = MirrorStage::new(Arc::new(self.database.clone()), Arc::clone(&self.breakers.database));
        let mut settings = self.source(id.clone(), topic, false);
        settings.auto_offset_reset = AutoOffsetReset::Earliest.as_str().to_owned();
        let (property, value) = LETTERS_AHEAD;
        settings.client.properties.entry(property.to_owned()).or_insert_with(|| value.to_owned());
        let limits = Limits { in_flight_bytes: LETTER_BYTES, ..self.limits() };
        self.plan(id, opens(settings), limits, Arc::new(stage), Arc::new(EndOfTheLine), metrics)
    }

    fn topic(&self, group: String, topic: &Arc<str>) -> OpenSource {
        opens(self.source(group, topic, false))
    }

    fn metrics(&self, topic: &str, group: &str, stage: StageName) -> Arc<GroupMetrics> {
        let plans = topic_plans(self.config);
        let partitions = plans.iter().find(|p| p.name == topic).map_or(0, |p| p.partitions);
        group_metrics(topic, partitions, group, stage)
    }

    /// A group over any source that settles its records itself.
    pub(super) fn at_least_once<S: Stage>(
        &self,
        id: String,
        open: OpenSource,
        stage: Arc<S>,
        metrics: Arc<GroupMetrics>,
    ) -> GroupPlan {
        self.plan(id, open, self.limits(), stage, Arc::clone(&self.dead_letters), metrics)
    }

    fn plan<S: Stage>(
        &self,
        id: String,
        open: OpenSource,
        limits: Limits,
        stage: Arc<S>,
        dead_letters: Arc<dyn DeadLetterSink>,
        metrics: Arc<GroupMetrics>,
    ) -> GroupPlan {
        let (retry, clock) = (self.retry(), Arc::clone(&self.clock));
        let breakers = stage.breakers().to_vec();
        let start: StartGroup = Arc::new(move |stop: CancellationToken| {
            let source = open()?;
            let engine = Engine {
                source: Arc::clone(&source),
                stage: Arc::clone(&stage),
                dead_letters: Arc::clone(&dead_letters),
                retry,
                limits,
                clock: Arc::clone(&clock),
                metrics: Arc::clone(&metrics),
            };
            Ok(Running { source, engine: Box::pin(engine.run(stop)) })
        });
        GroupPlan { id, start, breakers }
    }

    fn transactional<S: TransactionalStage>(
        &self,
        id: String,
        topic: &Arc<str>,
        stage: Arc<S>,
        metrics: Arc<GroupMetrics>,
    ) -> GroupPlan {
        let settings = self.source(id.clone(), topic, true);
        // Every group has a producer of its own, and the name says whose.
        let instance = self.config.kafka.instance_id.clone();
        let name = format!("{id}-{}", instance.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()));
        let (retry, limits, ack_timeout) = (self.retry(), self.limits(), self.config.kafka.ack_timeout());
        let (press, clock) = (self.press.clone(), Arc::clone(&self.clock));
        let breaker = Arc::clone(&self.breakers.kafka);
        let breakers = stage.breakers().to_vec();
        let start: StartGroup = Arc::new(move |stop: CancellationToken| {
            let source = KafkaSource::start(settings.clone())?;
            let engine = TransactionalEngine {
                transactions: Arc::new(source.transactions(&settings.client, &name)),
                source: Arc::clone(&source) as Arc<dyn EventSource>,
                stage: Arc::clone(&stage),
                breaker: Arc::clone(&breaker),
                ack_timeout,
                press: press.clone(),
                retry,
                limits,
                clock: Arc::clone(&clock),
                metrics: Arc::clone(&metrics),
            };
            Ok(Running { source, engine: Box::pin(engine.run(stop)) })
        });
        GroupPlan { id, start, breakers }
    }

    fn source(&self, group: String, topic: &Arc<str>, transactional: bool) -> SourceSettings {
        SourceSettings {
            client: self.client.clone(),
            group,
            member: self.config.kafka.instance_id.clone(),
            topics: vec![Arc::clone(topic)],
            auto_offset_reset: self.config.kafka.auto_offset_reset.as_str().to_owned(),
            batch: self.config.routing.batch,
            revoke_patience: REVOKE_PATIENCE,
            transactional,
        }
    }

    fn retry(&self) -> RetryPolicy {
        let routing = &self.config.routing;
        RetryPolicy { max_retries: routing.max_retries, initial: routing.retry_initial(), max: routing.retry_max() }
    }

    fn limits(&self) -> Limits {
        let routing = &self.config.routing;
        Limits { batch: routing.batch, in_flight: routing.max_in_flight, in_flight_bytes: IN_FLIGHT_BYTES }
    }
}

/// The group's counters, and the lag of every partition, exposed before the first record.
pub(super) fn group_metrics(topic: &str, partitions: i32, group: &str, stage: StageName) -> Arc<GroupMetrics> {
    for partition in 0..partitions {
        let labels =
            [("topic", topic.to_owned()), ("partition", partition.to_string()), ("consumer_group", group.to_owned())];
        expose(LAG, &labels);
        expose(HEAD_OF_LINE, &labels);
    }
    expose(STALLS, &[("consumer_group", group.to_owned())]);
    Arc::new(GroupMetrics::new(topic, group, stage.as_str(), &ErrorClass::ALL.map(ErrorClass::as_str)))
}

/// Opens a topic of Kafka.
fn opens(settings: SourceSettings) -> OpenSource {
    Box::new(move || Ok(KafkaSource::start(settings.clone())?))
}
