//! The running service between a real Kafka and a provider's server of this program.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::INTERRUPTED;
use crate::backlog::addressed_event;
use crate::cluster::{Cluster, Stall, Topics};
use crate::database::{Contents, Fresh, Kind};
use crate::machine::{cpu_seconds, peak_memory, thousands};
use crate::produce::Sender;
use crate::server::{Answers, Server};
use crate::service::Service;
use crate::sinks::Acceptances;

/// Orders of the measurement begin here; those of the warm-up are before.
const FIRST: u64 = 2_000_000;
const WARM_UP: u64 = 1_000_000;
/// Events a second of the warm-up, and for how long.
const WARM_UP_RATE: u32 = 200;
const WARM_UP_SECONDS: u64 = 5;
/// Between two looks at the provider.
const LOOK: Duration = Duration::from_millis(1);

/// When each event of a measurement was published, by its number, and accepted.
pub struct Times {
    pub published: Vec<Instant>,
    pub accepted: Vec<Instant>,
    pub cpu: f64,
    pub peak: u64,
}

/// How events come.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many a second, to all partitions.
    Steady(u32),
    /// As fast as the broker takes them, to one partition.
    OnePartition,
}

/// Runs the service over so many events, and checks that each was accepted exactly once. The cluster's client blocks, so
/// this is outside of the runtime, which only the database needs.
pub fn run(
    runtime: &Runtime,
    cluster: &Cluster,
    kind: Kind,
    pace: Pace,
    answers: Answers,
    events: u64,
) -> Result<Times> {
    let fresh = runtime.block_on(Fresh::create(kind))?;
    let prefix = format!("bench-{}.", &Uuid::new_v4().simple().to_string()[..12]);
    let topics = Topics { cluster, prefix: &prefix };
    let warm_up = u64::from(WARM_UP_RATE) * WARM_UP_SECONDS;
    let accepted = Arc::new(Acceptances::with_room(warm_up + events));
    let times = measure(&topics, &fresh, pace, answers, events, &accepted);
    let checked = times.and_then(|times| {
        runtime.block_on(check(&fresh, &accepted, warm_up + events))?;
        Ok(times)
    });
    runtime.block_on(fresh.close())?;
    checked
}

fn measure(
    topics: &Topics<'_>,
    fresh: &Fresh,
    pace: Pace,
    answers: Answers,
    events: u64,
    accepted: &Arc<Acceptances>,
) -> Result<Times> {
    topics.create()?;
    let (cluster, orders) = (topics.cluster, topics.orders());
    let warm_up = u64::from(WARM_UP_RATE) * WARM_UP_SECONDS;
    let server = Server::start(answers, Arc::clone(accepted))?;
    let provider = format!(
        "[[delivery.providers]]\nname = \"bench\"\nchannel = \"email\"\nkind = \"http\"\nurl = \"{}\"\n",
        server.url()
    );
    let settings = [("NOTIFICATION__DATABASE__URL", fresh.url.as_str())];
    let mut service = Service::start(&cluster.settings.brokers, topics.prefix, &provider, &settings)?;
    service.wait_until_ready()?;
    // A new producer needs half a second before its first record leaves.
    let mut sender = Sender::new(&cluster.settings)?;
    let mut work = || {
        publish(&mut sender, &orders, Pace::Steady(WARM_UP_RATE), WARM_UP, warm_up)?;
        wait_for(accepted, warm_up)?;
        let cpu = cpu_seconds(&service.id())?;
        let published = publish(&mut sender, &orders, pace, FIRST, events)?;
        wait_for(accepted, warm_up + events)?;
        Ok::<_, anyhow::Error>((published, cpu_seconds(&service.id())? - cpu, peak_memory(&service.id())?))
    };
    let (published, cpu, peak) =
        work().with_context(|| format!("the end of the service's log:\n{}", service.log_tail()))?;
    let exit = service.stop()?;
    ensure!(exit.success(), "the service ended with {exit}; its log:\n{}", service.log_tail());
    let mut times: Vec<Option<Instant>> = vec![None; events as usize];
    for one in accepted.all().into_iter().filter(|one| one.order >= FIRST) {
        times[(one.order - FIRST) as usize] = Some(one.at);
    }
    let accepted = times.into_iter().collect::<Option<Vec<_>>>().context("an event was not accepted")?;
    Ok(Times { published, accepted, cpu, peak })
}

async fn check(fresh: &Fresh, accepted: &Acceptances, events: u64) -> Result<()> {
    let (total, distinct) = accepted.total_and_distinct();
    let all = events as i64;
    let found = Contents::read(&mut fresh.connect().await?).await?;
    let expected = Contents { notifications: all, sent: all, accepted_attempts: all, attempts: all, outbox: 0 };
    let [events_text, total_text, distinct_text] = [events, total, distinct].map(thousands);
    ensure!(
        found == expected && (total, distinct) == (events, events),
        "{events_text} events, {total_text} accepted, {distinct_text} of them distinct; {found}"
    );
    Ok(())
}

fn publish(sender: &mut Sender, topic: &str, pace: Pace, first: u64, count: u64) -> Result<Vec<Instant>> {
    let events: Vec<_> = match pace {
        // Made before: the program must not compete with the service for more than it has to.
        Pace::OnePartition => (first..first + count).map(addressed_event).collect(),
        Pace::Steady(_) => Vec::new(),
    };
    let mut events = events.into_iter();
    let mut published = Vec::with_capacity(count as usize);
    let began = Instant::now();
    for number in 0..count {
        ensure!(!INTERRUPTED.load(std::sync::atomic::Ordering::Relaxed), "interrupted");
        if let Pace::Steady(rate) = pace {
            sender.wait_until(began, Duration::from_secs_f64(number as f64 / f64::from(rate)));
        }
        let event = events.next().unwrap_or_else(|| addressed_event(first + number));
        let key = match pace {
            Pace::OnePartition => "one",
            Pace::Steady(_) => event.key.as_str(),
        };
        published.push(Instant::now());
        sender.send(topic, Some(key.as_bytes()), Some(event.value.as_bytes()), Some(event.headers))?;
    }
    sender.finish()?;
    Ok(published)
}

fn wait_for(accepted: &Acceptances, count: u64) -> Result<()> {
    let mut stall = Stall::new();
    while accepted.count() < count {
        stall.check(accepted.count())?;
        thread::sleep(LOOK);
    }
    Ok(())
}
