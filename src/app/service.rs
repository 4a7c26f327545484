//! The whole service: started in order, drained in order.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::Actor as _;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::breakers::Breakers;
use super::groups::{GroupParts, GroupPlan};
use super::kafka::{client_settings, topic_plans};
use super::wiring::Wiring;
use super::{auth, delivery, exposed, startup};
use crate::actors::circuit_breaker::BreakerDuty;
use crate::actors::consumer_group::ConsumerGroupActor;
use crate::actors::dead_letter::{DeadLetterDuty, DeadLetterHandle};
use crate::actors::dispatch::DispatchActor;
use crate::actors::messages::{Drain, StopSupervising};
use crate::actors::monitor::{MonitorDuty, Picture};
use crate::actors::outbox::{OutboxActor, OutboxDuty};
use crate::actors::slot::Slot;
use crate::actors::supervisor::{RestartBudget, ServiceSupervisor};
use crate::adapters::kafka::{ClientSettings, EmbeddedCluster, KafkaAdmin, KafkaPublisher};
use crate::adapters::redis::{RedisLink, RedisProbe};
use crate::adapters::sql::Database;
use crate::config::{Config, SecretUrl};
use crate::consume::durable_publish::DurablePublisher;
use crate::consume::letters::LetterPress;
use crate::delivery::backlog::Backlog;
use crate::delivery::outbox_relay::OutboxRelay;
use crate::delivery::retention::Retention;
use crate::delivery::rules::TemplateRules;
use crate::delivery::templates::Templates;
use crate::domain::channel::Channel;
use crate::handlers::Registry;
use crate::http::{self, Gate, HttpServerHandle, Limits, Phase, RunningParts, SharedState};
use crate::ports::clock::{SharedClock, SystemClock};
use crate::ports::ledger::NotificationLedger;
use crate::ports::probe::Probe;
use crate::ports::publisher::EventPublisher as _;
use crate::resilience::retry::RetryPolicy;
use crate::telemetry::metrics_server::MetricsPage;

/// The service cannot start. The words name the setting.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// What a caller brings.
pub struct Setup {
    /// Checked.
    pub config: Config,
    /// The handlers; the configuration's routes are added to them.
    pub registry: Registry,
    /// Runs all I/O: arbiters have runtimes of their own, and a connection must not live on one that may end.
    pub io: Handle,
    /// The text that Prometheus scrapes.
    pub metrics: MetricsPage,
}

/// The dependencies, connected.
struct Connections {
    /// Lives as long as its clients.
    _cluster: Option<EmbeddedCluster>,
    client: ClientSettings,
    admin: KafkaAdmin,
    publisher: Arc<KafkaPublisher>,
    database: Database,
}

/// The actors, at work.
struct Actors {
    wiring: Wiring,
    groups: Vec<(String, Slot<ConsumerGroupActor>)>,
    dispatchers: Vec<Slot<DispatchActor>>,
    outbox: Slot<OutboxActor>,
}

/// The running service.
pub struct Service {
    config: Config,
    phase: watch::Sender<Phase>,
    server: HttpServerHandle,
    connections: Connections,
    actors: Actors,
}

impl Service {
    /// Starts everything, waiting for Kafka and the database. Needs a running actix system.
    ///
    /// # Errors
    /// When something is wrong for good, or the start deadline passes.
    pub async fn start(setup: Setup) -> Result<Self, StartError> {
        let Setup { config, mut registry, io, metrics } = setup;
        exposed::expose_all(&config);
        io.spawn(metrics.clone().upkeep());
        let (phase, phase_watch) = watch::channel(Phase::Starting);
        let (picture, picture_watch) = watch::channel(Picture::default());
        let running = Arc::new(OnceLock::new());
        // First of all: probes must be answered while the rest is waited for.
        let state = SharedState {
            phase: phase_watch,
            picture: picture_watch,
            running: Arc::clone(&running),
            metrics,
            io: io.clone(),
        };
        let http = &config.http;
        let gate = Gate {
            limits: Limits::new(http.max_body_bytes, http.rate_limit_per_second, http.rate_limit_burst),
            authority: auth::authority(&config.auth)
                .map_err(|e| StartError(format!("auth.jwt_public_key_file: {e}")))?,
        };
        let answers = match gate.authority {
            Some(_) => "the API asks for bearer tokens",
            None => "without authentication the API answers loopback clients only",
        };
        let server = http::start(config.http.address, gate, state).map_err(|e| StartError(e.to_string()))?;
        tracing::info!(address = %server.address(), "listening; {answers}");

        let templates = delivery::templates(&config).map_err(|e| StartError(format!("delivery.templates_dir: {e}")))?;
        let templates = Arc::new(templates);
        let template_rules = Arc::new(TemplateRules::new(Arc::clone(&templates)));
        let connections = connect(&config, &io).await?;
        for route in config.routing.routes() {
            registry.add_route(route);
        }
        let clock: SharedClock = Arc::new(SystemClock::default());
        let breakers = Breakers::new(&config, &clock);
        let (supervisor, statuses) = ServiceSupervisor::new(Arc::clone(&clock), budget(&config));
        let assembly = Assembly {
            config: &config,
            connections: &connections,
            breakers: &breakers,
            templates: Arc::clone(&templates),
            template_rules: Arc::clone(&template_rules),
            clock,
            picture,
        };
        let actors = assembly.actors(Wiring::new(supervisor.start(), io), registry).await?;

        let parts = RunningParts {
            ledger: Arc::new(connections.database.clone()),
            door: Arc::new(delivery::door(&config, &connections.database, templates, template_rules)),
            contacts: Arc::new(connections.database.clone()),
            inbox: Arc::new(connections.database.clone()),
            reports: Arc::new(delivery::report_desk(&config, &connections.database).map_err(StartError)?),
            unsubscribe: delivery::unsubscribe_links(&config.delivery.recipients),
            clock: Arc::new(SystemClock::default()),
            payloads: Arc::new(connections.database.clone()),
            breakers: breakers.all(),
            actors: statuses,
        };
        drop(running.set(parts));
        phase.send_replace(Phase::Running);
        tracing::info!(groups = actors.groups.len(), dispatchers = actors.dispatchers.len(), "running");
        Ok(Self { config, phase, server, connections, actors })
    }

    /// Where HTTP is answered.
    pub fn http_address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The brokers' addresses and properties that are really used.
    pub fn client(&self) -> &ClientSettings {
        &self.connections.client
    }

    /// A look at the cluster.
    pub fn admin(&self) -> &KafkaAdmin {
        &self.connections.admin
    }

    /// The ledger and what else is stored.
    pub fn database(&self) -> &Database {
        &self.connections.database
    }

    /// The consumer groups by id.
    pub fn groups(&self) -> &[(String, Slot<ConsumerGroupActor>)] {
        &self.actors.groups
    }

    /// Stops taking, finishes what is in hand, flushes, commits, leaves the groups, closes. What is not finished within
    /// the deadline comes again after the next start.
    pub async fn drain(self) {
        let deadline = Instant::now() + self.config.shutdown.timeout() - MARGIN;
        let left = || deadline.saturating_duration_since(Instant::now());
        self.phase.send_replace(Phase::Draining);
        tracing::info!("draining");
        let Actors { wiring, groups, dispatchers, outbox } = &self.actors;
        let _ = wiring.supervisor.send(StopSupervising).await;
        let share = self.config.shutdown.timeout() / 4;
        let drained = groups.iter().map(|(_, group)| group.send(Drain(share.min(left()))));
        let _ = tokio::time::timeout(left(), futures::future::join_all(drained)).await;
        // Sends that are under way get what time there is: cut off, they would be unknown, and sent again.
        let answers = left().saturating_sub(share / 2);
        let drained = dispatchers.iter().map(|dispatcher| dispatcher.send(Drain(answers)));
        let _ = tokio::time::timeout(left(), futures::future::join_all(drained)).await;
        let _ = tokio::time::timeout(left(), outbox.send(Drain(share.min(left())))).await;
        if !self.connections.publisher.flush(left().min(share)).await {
            tracing::warn!("records were left in the producer's queue; their events come again");
        }
        let _ = tokio::time::timeout(left(), self.connections.database.close()).await;
        let _ = tokio::time::timeout(left(), self.server.stop()).await;
        tracing::info!("drained");
    }
}

/// Kept back from the shutdown time-out for the end of the process itself.
const MARGIN: Duration = Duration::from_millis(500);

fn bad_redis_url(why: String) -> StartError {
    StartError(format!("REDIS_URL: {why}"))
}

fn budget(config: &Config) -> RestartBudget {
    RestartBudget {
        restarts: config.supervision.restart_budget,
        window: config.supervision.restart_window(),
        waits: RetryPolicy {
            max_retries: u32::MAX,
            initial: config.supervision.restart_initial(),
            max: config.supervision.restart_max(),
        },
    }
}

async fn connect(config: &Config, io: &Handle) -> Result<Connections, StartError> {
    let deadline = config.startup.deadline().map(|d| Instant::now() + d);
    let cluster = match config.kafka.is_embedded() {
        true => {
            let started = EmbeddedCluster::start(topic_plans(config));
            Some(started.map_err(|e| StartError(format!("the embedded Kafka does not start: {e}")))?)
        }
        false => None,
    };
    let brokers = cluster.as_ref().map_or(config.kafka.brokers.clone(), |c| c.brokers().to_owned());
    let client = ClientSettings { brokers, ..client_settings(config) };
    let refused = |e: crate::adapters::kafka::InvalidProperty| StartError(e.to_string());
    let admin = KafkaAdmin::new(&client).map_err(refused)?;
    let opening = {
        let config = config.clone();
        io.spawn(async move { startup::database(&config, deadline).await })
    };
    let waiting = {
        let (config, admin) = (config.clone(), admin.clone());
        io.spawn(async move {
            startup::topics(&config, &admin, deadline).await?;
            Ok(startup::fitting_batches(&config, &admin, client).await)
        })
    };
    let lost = |e: tokio::task::JoinError| StartError(e.to_string());
    // The first failure ends the wait for the other.
    let opening = async { opening.await.map_err(lost)? };
    let waiting = async { waiting.await.map_err(lost)? };
    let (database, client) = futures::try_join!(opening, waiting)?;
    let publisher = KafkaPublisher::new(client.clone()).map_err(refused)?;
    Ok(Connections { _cluster: cluster, client, admin, publisher, database })
}

/// Everything the actors are made from.
struct Assembly<'a> {
    templates: Arc<Templates>,
    template_rules: Arc<TemplateRules>,
    config: &'a Config,
    connections: &'a Connections,
    breakers: &'a Breakers,
    clock: SharedClock,
    picture: watch::Sender<Picture>,
}

impl Assembly<'_> {
    /// Starts the actors, consumers of events last.
    async fn actors(self, wiring: Wiring, registry: Registry) -> Result<Actors, StartError> {
        let database = &self.connections.database;
        let topics = self.config.kafka.topics();
        let durable = DurablePublisher::new(
            self.connections.publisher.clone(),
            Arc::clone(&self.breakers.kafka),
            self.config.kafka.ack_timeout(),
        );
        let dead_letters = DeadLetterHandle::default();
        let press = LetterPress {
            payloads: Arc::new(database.clone()),
            topic: Arc::clone(&topics.dead_letters),
            clock: Arc::clone(&self.clock),
        };
        let duty = DeadLetterDuty { press: press.clone(), publisher: durable.clone() };
        wiring.dead_letters(dead_letters.0.clone(), duty).await?;
        let plans = GroupParts {
            config: self.config,
            client: self.connections.client.clone(),
            press,
            registry: Arc::new(registry),
            publisher: durable.clone(),
            dead_letters: Arc::new(dead_letters.clone()),
            database: database.clone(),
            breakers: self.breakers.clone(),
            redis: self.redis()?,
            template_rules: Arc::clone(&self.template_rules),
            clock: Arc::clone(&self.clock),
            io: wiring.io.clone(),
        }
        .plans();
        for duty in self.breaker_duties(&plans)? {
            wiring.breaker(duty).await?;
        }
        let dispatchers = self.dispatchers(&wiring).await?;
        let relay = OutboxRelay {
            outbox: Arc::new(database.clone()),
            publisher: durable,
            dead_letters: Arc::new(dead_letters),
            topic: topics.notifications,
            clock: Arc::clone(&self.clock),
        };
        let retention = self.config.delivery.recipients.retention().filter(|_| self.config.delivery.enabled);
        let ledger: Arc<dyn NotificationLedger> = Arc::new(database.clone());
        let retention =
            retention.map(|keep| Retention { ledger: Arc::clone(&ledger), keep, clock: Arc::clone(&self.clock) });
        let duty = OutboxDuty {
            relay: Arc::new(relay),
            retention: retention.map(Arc::new),
            backlog: self.config.delivery.enabled.then(|| Arc::new(self.backlog(&ledger))),
            ledger,
        };
        let outbox = wiring.outbox(duty).await?;
        let mut groups = Vec::new();
        for plan in plans {
            groups.push((plan.id.clone(), wiring.group(plan).await?));
        }
        wiring.monitor(self.monitor(&groups)?).await?;
        Ok(Actors { wiring, groups, dispatchers, outbox })
    }

    fn backlog(&self, ledger: &Arc<dyn NotificationLedger>) -> Backlog {
        let providers = &self.config.delivery.providers;
        let of = |channel: Channel| providers.iter().filter(|provider| provider.channel == channel).count();
        Backlog {
            ledger: Arc::clone(ledger),
            // What has no provider waits in the first lane.
            lanes: Channel::ALL.into_iter().map(of).fold(1, usize::max) as u16,
            interval: self.config.monitor.interval(),
            clock: Arc::clone(&self.clock),
        }
    }

    fn redis(&self) -> Result<Option<Arc<RedisLink>>, StartError> {
        let link = |url: &SecretUrl| RedisLink::new(url.expose()).map(Arc::new).map_err(bad_redis_url);
        self.breakers.redis.as_ref().and(self.config.redis.url.as_ref()).map(link).transpose()
    }

    fn redis_probe(&self) -> Result<Option<Arc<dyn Probe>>, StartError> {
        let Some(url) = &self.config.redis.url else { return Ok(None) };
        Ok(Some(Arc::new(RedisProbe::new(url.expose()).map_err(bad_redis_url)?)))
    }

    /// The breakers of Kafka, the database and Redis have probes; a provider's next notification is its probe.
    fn breaker_duties(&self, plans: &[GroupPlan]) -> Result<Vec<BreakerDuty>, StartError> {
        self.breakers
            .all()
            .into_iter()
            .map(|cell| {
                let probe: Option<Arc<dyn Probe>> = match cell.name() {
                    "kafka" => Some(Arc::new(self.connections.admin.clone())),
                    "database" => Some(Arc::new(self.connections.database.clone())),
                    "redis" => self.redis_probe()?,
                    _ => None,
                };
                let needs = |plan: &&GroupPlan| plan.breakers.iter().any(|b| Arc::ptr_eq(b, &cell));
                let groups = plans.iter().filter(needs).map(|plan| plan.id.clone()).collect();
                Ok(BreakerDuty { cell, probe, groups })
            })
            .collect()
    }

    async fn dispatchers(&self, wiring: &Wiring) -> Result<Vec<Slot<DispatchActor>>, StartError> {
        let mut dispatchers = Vec::new();
        if !self.config.delivery.enabled {
            return Ok(dispatchers);
        }
        let instance = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        let database = &self.connections.database;
        let redis = self.redis()?;
        let duties = delivery::dispatchers(
            self.config,
            &instance,
            database,
            redis.as_ref(),
            self.breakers,
            &self.clock,
            &self.templates,
        );
        self.warn_of_stranded(wiring).await;
        for duty in duties.map_err(StartError)? {
            dispatchers.push(wiring.dispatcher(duty).await?);
        }
        Ok(dispatchers)
    }

    /// Requests that arrive for a channel without a provider become dead letters; what waits there since it had one
    /// goes on when it has one again.
    async fn warn_of_stranded(&self, wiring: &Wiring) {
        let served: HashSet<Channel> = self.config.delivery.providers.iter().map(|p| p.channel).collect();
        for channel in Channel::ALL.into_iter().filter(|channel| !served.contains(channel)) {
            let database = self.connections.database.clone();
            let counted = wiring.io.spawn(async move { database.unsettled(channel).await }).await;
            let Ok(Ok(counts)) = counted else { continue };
            let waiting: u64 = counts.iter().map(|(_, count)| count).sum();
            if waiting > 0 {
                tracing::warn!(%channel, waiting, "notifications wait for a provider of their channel");
            }
        }
    }

    fn monitor(&self, groups: &[(String, Slot<ConsumerGroupActor>)]) -> Result<MonitorDuty, StartError> {
        let mut probes: Vec<(String, Arc<dyn Probe>)> = vec![
            ("kafka".to_owned(), Arc::new(self.connections.admin.clone())),
            ("database".to_owned(), Arc::new(self.connections.database.clone())),
        ];
        probes.extend(self.redis_probe()?.map(|probe| ("redis".to_owned(), probe)));
        let plans = topic_plans(self.config);
        Ok(MonitorDuty {
            probes,
            topics: plans.into_iter().map(|plan| (Arc::from(plan.name), plan.partitions)).collect(),
            cluster: Arc::new(self.connections.admin.clone()),
            groups: groups.to_vec(),
            interval: self.config.monitor.interval(),
            deadline: self.config.monitor.probe_timeout(),
            stall_after: self.config.monitor.stall_after(),
            clock: Arc::clone(&self.clock),
            picture: self.picture.clone(),
        })
    }
}
