//! From an event's append to its request's, at an ordinary pace: what a transaction and every wait on the way cost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rdkafka::admin::{AlterConfig, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use uuid::Uuid;

use crate::cluster::{Cluster, Topics, admin_options};
use crate::produce::{Sender, event};
use crate::routing::start;
use crate::{Guarantee, INTERRUPTED};

/// Events before this time warm everything up and are not counted.
const WARM_UP: Duration = Duration::from_secs(5);
/// For what is still on its way when the last event was sent.
const LEFT: Duration = Duration::from_secs(10);

/// Milliseconds since 1970, by the clock of this machine, which is the broker's too.
type Millis = i64;

/// Where a request was when.
struct Seen {
    event: String,
    appended: Millis,
    read: Millis,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    event_id: String,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    causation_id: Option<String>,
}

/// Prints the distribution of both times over so many seconds at so many events a second.
pub fn measure(cluster: &Cluster, guarantee: Guarantee, rate: u32, seconds: u64) -> Result<()> {
    let prefix = format!("bench-{}.", &Uuid::new_v4().simple().to_string()[..12]);
    let topics = Topics { cluster, prefix: &prefix };
    topics.create()?;
    for topic in [topics.orders(), topics.requests()] {
        let by_broker = AlterConfig::new(ResourceSpecifier::Topic(&topic));
        let by_broker = by_broker.set("message.timestamp.type", "LogAppendTime");
        let changed = cluster.block_on(cluster.admin.alter_configs(&[by_broker], &admin_options()))?;
        changed.into_iter().try_for_each(|c| c.map(drop)).map_err(|(_, code)| anyhow!("{topic}: {code}"))?;
    }
    let mut service = start(cluster, &prefix, guarantee)?;
    service.wait_until_ready()?;
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (consumer, done) = (from_the_start(cluster, &topics.requests())?, Arc::clone(&done));
        thread::spawn(move || read(&consumer, &done))
    };
    let sent = send(cluster, &topics.orders(), rate, WARM_UP + Duration::from_secs(seconds));
    thread::sleep(LEFT);
    done.store(true, Ordering::Relaxed);
    let seen = reader.join().map_err(|_| anyhow!("the reader panicked"))??;
    let sent = sent?;
    ensure!(service.stop()?.success(), "the service did not end in an orderly way");
    let events = appended(cluster, &topics.orders(), sent).context("reading the events")?;
    ensure!(seen.len() as u64 >= sent, "{} requests for {sent} events", seen.len());
    let begin = events.values().min().copied().unwrap_or_default() + WARM_UP.as_millis() as Millis;
    let pairs: Vec<(Millis, Millis, Millis)> = seen
        .iter()
        .filter_map(|seen| Some((*events.get(&seen.event)?, seen.appended, seen.read)))
        .filter(|(event, ..)| *event >= begin)
        .collect();
    println!("{} requests at {rate} events a second, in milliseconds of the broker's clock", pairs.len());
    print("append to append", pairs.iter().map(|(event, appended, _)| appended - event).collect());
    print("append to reader", pairs.iter().map(|(event, _, read)| read - event).collect());
    Ok(())
}

fn print(name: &str, mut times: Vec<Millis>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    if !times.is_empty() {
        println!("{name}  p50 {:>4}  p95 {:>4}  p99 {:>4}  max {:>4}", at(0.5), at(0.95), at(0.99), at(1.0));
    }
}

/// At a steady pace, each event on its way at once.
fn send(cluster: &Cluster, topic: &str, rate: u32, length: Duration) -> Result<u64> {
    let mut sender = Sender::new(&cluster.settings)?;
    let began = Instant::now();
    let count = u64::from(rate) * length.as_secs();
    for number in 0..count {
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        sender.wait_until(began, Duration::from_secs_f64(number as f64 / f64::from(rate)));
        let event = event(1_000_000 + number);
        sender.send(topic, Some(event.key.as_bytes()), Some(event.value.as_bytes()), Some(event.headers))?;
    }
    sender.finish()?;
    Ok(count)
}

fn from_the_start(cluster: &Cluster, topic: &str) -> Result<BaseConsumer> {
    let mut config = cluster.settings.admin();
    config.set("group.id", format!("{topic}-latency")).set("isolation.level", "read_committed");
    config.set("fetch.wait.max.ms", "100").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..cluster.partitions(topic)? {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    Ok(consumer)
}

fn read(consumer: &BaseConsumer, done: &AtomicBool) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let message = match consumer.poll(Duration::from_millis(100)) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => continue,
            Some(message) => message?,
        };
        let read = jiff::Timestamp::now().as_millisecond();
        let request: Request = serde_json::from_slice(message.payload().unwrap_or_default())?;
        let cause = request.metadata.and_then(|metadata| metadata.causation_id);
        let event = cause.with_context(|| format!("{} names no cause", request.event_id))?;
        seen.push(Seen { event, appended: message.timestamp().to_millis().unwrap_or_default(), read });
    }
    Ok(seen)
}

/// When each event was appended.
fn appended(cluster: &Cluster, topic: &str, count: u64) -> Result<HashMap<String, Millis>> {
    let consumer = from_the_start(cluster, topic)?;
    let mut events = HashMap::new();
    let begun = Instant::now();
    while (events.len() as u64) < count {
        ensure!(begun.elapsed() < crate::PATIENCE, "only {} of {count} events are there", events.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let event: Request = serde_json::from_slice(message.payload().unwrap_or_default())?;
            events.insert(event.event_id, message.timestamp().to_millis().unwrap_or_default());
        }
    }
    Ok(events)
}
