//! `load-test`: publishes events, follows each to its request or to its acceptance, and reports.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::{Args as ClapArgs, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::publish::record;
use super::sample::sample;
use super::{CliError, context};
use crate::adapters::kafka::{Follower, KafkaPublisher};
use crate::app;
use crate::config::Config;
use crate::domain::catalog::{NOTIFICATION_REQUESTED, NOTIFICATION_SENT};
use crate::domain::record::OutboundRecord;

/// Without news for so long, what is missing is missing.
const SILENCE: Duration = Duration::from_secs(15);

#[derive(ClapArgs)]
pub struct Args {
    /// Events to publish
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    count: u32,
    /// Events acknowledged together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Events a second [default: as fast as acknowledged]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// All event types instead of OrderCreated alone
    #[arg(long)]
    mix: bool,
    /// How far each event is followed
    #[arg(long, value_enum, default_value = "requested")]
    follow: Follow,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Follow {
    /// To its NotificationRequested
    Requested,
    /// To its provider's acceptance
    Delivered,
}

#[derive(Serialize)]
struct Report {
    published: usize,
    expected: usize,
    seconds: f64,
    throughput: f64,
    p50: f64,
    p95: f64,
    p99: f64,
    missing: usize,
    duplicates: usize,
}

pub fn run(file: Option<&Path>, args: &Args) -> Result<(), CliError> {
    let config = context::load(file)?;
    context::logs(&config);
    context::real_kafka(&config)?;
    let report = context::runtime()?.block_on(measure(&config, args))?;
    if args.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        print(&report, args.follow);
    }
    match report.missing {
        0 => Ok(()),
        missing => Err(CliError::Failed(format!("{missing} events are missing their effect"))),
    }
}

fn print(report: &Report, follow: Follow) {
    let effect = if follow == Follow::Delivered { "accepted" } else { "requested" };
    println!("published   {} events, {} expected to be {effect}", report.published, report.expected);
    println!("throughput  {:.0} events/s over {:.2} s, until the last was {effect}", report.throughput, report.seconds);
    println!("p50         {:.1} ms from published to {effect}", report.p50);
    println!("p95         {:.1} ms", report.p95);
    println!("p99         {:.1} ms", report.p99);
    println!("missing     {}", report.missing);
    println!("duplicates  {}", report.duplicates);
}

async fn measure(config: &Config, args: &Args) -> Result<Report, CliError> {
    let publisher = context::publisher(config).await?;
    let settings = app::client_settings(config);
    let topic = config.kafka.topics().notifications.to_string();
    let follower = tokio::task::spawn_blocking(move || Follower::start(&settings, &topic, context::PATIENCE)).await;
    let follower = follower.map_err(|e| CliError::Failed(e.to_string()))?;
    let mut follower = follower.map_err(|e| CliError::Failed(format!("notification-events: {e}")))?;

    let (sent_in, mut sent) = tokio::sync::mpsc::unbounded_channel();
    let began = Instant::now();
    let bar = progress(args.count);
    let mut tally = Tally::new(args.follow);
    let mut feeding = std::pin::pin!(feed(config, args, &publisher, sent_in));
    let mut fed = false;
    loop {
        let quiet_for = tally.last.elapsed();
        let silence = if fed && tally.is_complete() { Duration::ZERO } else { SILENCE.saturating_sub(quiet_for) };
        tokio::select! {
            biased;
            Some((id, at)) = sent.recv() => tally.published(id, at),
            result = &mut feeding, if !fed => {
                result?;
                fed = true;
                // From here on silence counts.
                tally.last = tally.last.max(Instant::now());
            }
            record = follower.next() => match record {
                Some(record) => {
                    tally.seen(&record.value, record.seen);
                    bar.set_position(tally.effects.len() as u64);
                }
                None => return Err(CliError::Failed("the follower ended".into())),
            },
            () = tokio::time::sleep(silence), if fed => break,
        }
    }
    bar.finish_and_clear();
    Ok(tally.report(args.count as usize, began))
}

fn progress(count: u32) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}");
    ProgressBar::new(u64::from(count)).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

type Sent = tokio::sync::mpsc::UnboundedSender<(Option<String>, Instant)>;

async fn feed(config: &Config, args: &Args, publisher: &KafkaPublisher, sent: Sent) -> Result<(), CliError> {
    let run = uuid::Uuid::new_v4().simple().to_string();
    let names = config.kafka.topics();
    let began = Instant::now();
    let mut number = 0;
    while number < args.count {
        let size = args.batch.min(args.count - number);
        let mut records: Vec<OutboundRecord> = Vec::with_capacity(size as usize);
        for index in number..number + size {
            let sample = sample(&run[..8], index as usize, args.mix);
            let topic = names.named(sample.event_type.topic);
            // Told before it is sent: its effect may be seen before its acknowledgement.
            let _ = sent.send((sample.routed.then_some(sample.id), Instant::now()));
            records.push(record(topic, &sample.key, sample.json, sample.event_type.name, &sample.timestamp));
        }
        context::publish(publisher, &records, &config.kafka.brokers).await?;
        number += size;
        if let Some(rate) = args.rate {
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(rate));
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    Ok(())
}

/// Which effects have been seen.
struct Tally {
    follow: Follow,
    published: HashMap<String, Instant>,
    /// By request id: the event that caused it.
    requests: HashMap<String, String>,
    effects: HashMap<String, Duration>,
    duplicates: usize,
    last: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    event_id: String,
    event_type: String,
    metadata: SeenMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SeenMetadata {
    causation_id: Option<String>,
}

impl Tally {
    fn new(follow: Follow) -> Self {
        Self {
            follow,
            published: HashMap::new(),
            requests: HashMap::new(),
            effects: HashMap::new(),
            duplicates: 0,
            last: Instant::now(),
        }
    }

    fn published(&mut self, id: Option<String>, at: Instant) {
        if let Some(id) = id {
            self.published.insert(id, at);
        }
    }

    fn is_complete(&self) -> bool {
        self.effects.len() >= self.published.len()
    }

    fn seen(&mut self, value: &[u8], at: Instant) {
        let Ok(seen) = serde_json::from_slice::<Seen>(value) else { return };
        let Some(cause) = seen.metadata.causation_id else { return };
        if seen.event_type == NOTIFICATION_REQUESTED && self.published.contains_key(&cause) {
            // The same request twice; two requests of one event are two effects.
            self.duplicates += usize::from(self.requests.insert(seen.event_id, cause.clone()).is_some());
            if self.follow == Follow::Requested {
                self.effect(cause, at);
            }
        } else if seen.event_type == NOTIFICATION_SENT
            && self.follow == Follow::Delivered
            && let Some(event) = self.requests.get(&cause).cloned()
        {
            self.effect(event, at);
        }
    }

    fn effect(&mut self, event: String, at: Instant) {
        let since =
            self.published.get(&event).map_or(Duration::ZERO, |published| at.saturating_duration_since(*published));
        self.effects.entry(event).or_insert(since);
        self.last = at;
    }

    fn report(self, published: usize, began: Instant) -> Report {
        let mut latencies: Vec<f64> = self.effects.values().map(|d| d.as_secs_f64() * 1000.0).collect();
        latencies.sort_by(f64::total_cmp);
        let percentile = |p: f64| {
            let rank = (p * latencies.len() as f64).ceil() as usize;
            latencies.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        let seconds = self.last.saturating_duration_since(began).as_secs_f64().max(0.001);
        Report {
            published,
            expected: self.published.len(),
            seconds,
            throughput: latencies.len() as f64 / seconds,
            p50: percentile(0.50),
            p95: percentile(0.95),
            p99: percentile(0.99),
            missing: self.published.len().saturating_sub(latencies.len()),
            duplicates: self.duplicates,
        }
    }
}
