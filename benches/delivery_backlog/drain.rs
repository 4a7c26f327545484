//! The drain: the service's own lane, lease keeper and outbox relay over a ledger full of due notifications.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use notification_service::adapters::sql::Database;
use notification_service::config::{BreakerConfig, Config};
use notification_service::consume::durable_publish::DurablePublisher;
use notification_service::delivery::context::{DispatchContext, LaneSettings};
use notification_service::delivery::decide::OnUnknown;
use notification_service::delivery::held::Held;
use notification_service::delivery::lane::Lane;
use notification_service::delivery::outbox_relay::OutboxRelay;
use notification_service::delivery::recovery::LeaseKeeper;
use notification_service::delivery::rules::{HouseRules, NamedZone, TemplateRules};
use notification_service::delivery::schedule::Schedule;
use notification_service::delivery::templates::Templates;
use notification_service::delivery::under_way::UnderWay;
use notification_service::domain::channel::Channel;
use notification_service::ports::clock::{SharedClock, SystemClock};
use notification_service::ports::provider::Provider;
use notification_service::resilience::breaker::BreakerPolicy;
use notification_service::resilience::breaker_cell::BreakerCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Stall;
use crate::sinks::{AcknowledgingPublisher, CountedLetters};

/// Between two looks at the progress.
const LOOK: Duration = Duration::from_millis(5);
const OWNER: &str = "delivery-backlog";

/// Everything that `serve` would make from its default configuration.
pub struct Stage {
    config: Config,
    templates: Arc<Templates>,
    clock: SharedClock,
}

impl Stage {
    pub fn new(batch: Option<u32>) -> Result<Self> {
        let mut config = Config::load(None, std::iter::empty())?;
        if let Some(batch) = batch {
            config.delivery.batch = batch as usize;
            config.delivery.max_in_flight = 2 * batch as usize;
        }
        let templates = Arc::new(Templates::built_in()?);
        Ok(Self { config, templates, clock: Arc::new(SystemClock::default()) })
    }

    pub fn rules(&self) -> TemplateRules {
        TemplateRules::new(Arc::clone(&self.templates))
    }

    /// Works everything off, lifecycle events included, and says how long that took.
    pub async fn drain(&self, database: &Database, provider: Arc<dyn Provider>, events: u64) -> Result<Duration> {
        let publisher = Arc::new(AcknowledgingPublisher::default());
        let letters = Arc::new(CountedLetters::default());
        let stop = CancellationToken::new();
        let began = Instant::now();
        let mut tasks = self.start(database, provider, Arc::clone(&publisher), Arc::clone(&letters), &stop);
        let mut stall = Stall::new();
        let published = || publisher.published.load(Ordering::Relaxed);
        while published() < events {
            stall.check(published())?;
            ensure!(letters.parked.load(Ordering::Relaxed) == 0, "there are dead letters");
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Some(ended) = tasks.join_next() => { ended??; anyhow::bail!("a part of the stage ended by itself") }
            }
        }
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        let took = began.elapsed();
        ensure!(published() == events, "{} lifecycle events for {events} notifications", published());
        Ok(took)
    }

    fn start(
        &self,
        database: &Database,
        provider: Arc<dyn Provider>,
        publisher: Arc<AcknowledgingPublisher>,
        letters: Arc<CountedLetters>,
        stop: &CancellationToken,
    ) -> JoinSet<Result<()>> {
        let context = Arc::new(self.context(database));
        let lane = Arc::new(self.lane(provider));
        let (held, under_way) = (Arc::new(Held::default()), Arc::new(UnderWay::default()));
        let (lane_context, lane_settings) = (Arc::clone(&context), Arc::clone(&lane));
        let work = Lane::new(lane_context, lane_settings, OWNER.to_owned(), Arc::clone(&held), under_way);
        let keeper = LeaseKeeper { context, channel: Channel::Email, owner: OWNER.to_owned(), held, lanes: vec![lane] };
        let relay = OutboxRelay {
            outbox: Arc::new(database.clone()),
            publisher: DurablePublisher::new(publisher, self.breaker("kafka"), self.config.kafka.ack_timeout()),
            dead_letters: letters,
            topic: Arc::from("notification-events"),
            clock: Arc::clone(&self.clock),
        };
        let mut tasks = JoinSet::new();
        let stopping = stop.clone();
        tasks.spawn(async move { work.run(stopping).await.map_err(|e| anyhow!(e)).context("the lane") });
        let stopping = stop.clone();
        tasks.spawn(async move {
            keeper.run(stopping).await;
            Ok(())
        });
        let stopping = stop.clone();
        tasks.spawn(async move {
            relay.run(stopping).await;
            Ok(())
        });
        tasks
    }

    fn context(&self, database: &Database) -> DispatchContext {
        let delivery = &self.config.delivery;
        DispatchContext {
            ledger: Arc::new(database.clone()),
            contacts: Arc::new(database.clone()),
            templates: Arc::clone(&self.templates),
            house: HouseRules {
                exempt_categories: delivery.recipients.exempt_categories.clone(),
                default_time_zone: NamedZone::default(),
            },
            throttle: None,
            unsubscribe: None,
            contact_patience: delivery.recipients.awaiting_contact(),
            schedule: Schedule::new(delivery.retry.schedule()),
            clock: Arc::clone(&self.clock),
            database: self.breaker("database"),
            lease: delivery.lease(),
            batch: delivery.batch,
            max_in_flight: delivery.max_in_flight,
            poll_interval: delivery.poll_interval(),
        }
    }

    fn lane(&self, provider: Arc<dyn Provider>) -> LaneSettings {
        LaneSettings {
            channel: Channel::Email,
            index: 0,
            lanes: 1,
            name: "bench".to_owned(),
            provider,
            timeout: Duration::from_secs(5),
            max_in_flight: self.config.delivery.max_in_flight,
            on_unknown: OnUnknown::Retry,
            max_per_second: None,
            shared_rate: None,
            breaker: self.breaker("provider:bench"),
            breakers_before: Vec::new(),
        }
    }

    fn breaker(&self, name: &str) -> Arc<BreakerCell> {
        BreakerCell::new(name, policy(&self.config.breaker), Arc::clone(&self.clock))
    }
}

fn policy(breaker: &BreakerConfig) -> BreakerPolicy {
    BreakerPolicy {
        failure_threshold: breaker.failure_threshold,
        failure_rate: breaker.failure_rate,
        minimum_calls: breaker.minimum_calls,
        window: breaker.window(),
        recovery_timeout: breaker.recovery_timeout(),
        success_threshold: breaker.success_threshold,
    }
}
