//! `demo`: the whole service on embedded parts, fed with sample events or the user's own.

mod feed;
mod screen;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde_json::json;

use self::feed::{Feeder, LINE_HEADER, Line, read};
use self::screen::Screen;
use super::account::{Account, Fed, account};
use super::serve::{Signals, drain};
use super::{CliError, context};
use crate::actors::messages::GroupStatus;
use crate::adapters::kafka::Follower;
use crate::app::{Service, Setup};
use crate::config::Config;
use crate::domain::record::Headers;
use crate::handlers::Registry;
use crate::ports::cluster::ClusterView as _;
use crate::ports::ledger::{Brief, NotificationLedger as _};
use crate::telemetry::logging;
use crate::telemetry::metrics_server::MetricsPage;

const SAMPLE: &str = include_str!("../../config/demo/events.jsonl");
/// Without progress for so long, the demo ends with what it has.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the mail provider is away in the sample.
const OUTAGE: Duration = Duration::from_secs(3);
/// Lines fed at once. The embedded cluster drops old records silently, so it is fed no faster than it is emptied.
const CHUNK: usize = 500;
const CHUNK_BYTES: usize = 1 << 20;

#[derive(ClapArgs)]
pub struct Args {
    /// Your own events, one envelope a line
    #[arg(long, value_name = "FILE.jsonl")]
    events: Option<PathBuf>,
    /// End when the input is delivered
    #[arg(long)]
    exit: bool,
    /// Print the account as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(file: Option<&Path>, args: &Args) -> Result<(), CliError> {
    let input = match &args.events {
        Some(path) => std::fs::read(path).map_err(|e| CliError::Usage(format!("--events {}: {e}", path.display())))?,
        None => SAMPLE.as_bytes().to_vec(),
    };
    let folder = std::env::temp_dir().join(format!("notification-service-demo-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&folder).map_err(|e| CliError::Failed(format!("{}: {e}", folder.display())))?;
    let config = context::load_with(file, overrides(&folder))?;
    // The screen tells the story; the log would tell it twice. RUST_LOG brings it back.
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned());
    logging::init(logging::Format::Pretty, &filter);
    let lines = read(&config, &input);
    let io = context::runtime()?;
    let metrics = MetricsPage::install().map_err(|e| CliError::Failed(format!("metrics: {e}")))?;
    let timeout = config.shutdown.timeout();
    let setup = Setup { config: config.clone(), registry: Registry::built_in(), io: io.handle().clone(), metrics };
    let demo = Demo { args, config, folder, lines, outage: args.events.is_none() };
    let result = actix::System::new().block_on(demo.run(setup, timeout));
    io.shutdown_background();
    result
}

/// Embedded parts and short waits, over whatever else is configured.
fn overrides(folder: &Path) -> impl Iterator<Item = (String, String)> + use<> {
    let file = |name: &str| folder.join(name).display().to_string();
    let providers: Vec<String> = ["email", "sms", "push", "webhook", "in_app", "admin_alert"]
        .iter()
        .map(|channel| {
            let url = format!("file:{}", file(&format!("{channel}.jsonl")));
            format!("{{ name = \"{channel}-file\", channel = \"{channel}\", kind = \"file\", url = {url:?} }}")
        })
        .collect();
    [
        ("NOTIFICATION__KAFKA__BROKERS", "embedded".to_owned()),
        ("NOTIFICATION__KAFKA__PREFIX", String::new()),
        ("NOTIFICATION__KAFKA__REPLICATION_FACTOR", "1".to_owned()),
        ("NOTIFICATION__DATABASE__URL", format!("sqlite://{}", file("notifications.db"))),
        ("NOTIFICATION__ROUTING__ENABLED", "true".to_owned()),
        ("NOTIFICATION__ROUTING__GUARANTEE", "at_least_once".to_owned()),
        ("NOTIFICATION__DELIVERY__ENABLED", "true".to_owned()),
        ("NOTIFICATION__DELIVERY__PROVIDERS", format!("[{}]", providers.join(", "))),
        ("NOTIFICATION__DELIVERY__RETRY__SCHEDULE_MS", "[500, 1000, 2000, 4000]".to_owned()),
        ("NOTIFICATION__BREAKER__RECOVERY_TIMEOUT_MS", "1500".to_owned()),
        ("NOTIFICATION__MONITOR__INTERVAL_MS", "500".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
}

struct Demo<'a> {
    args: &'a Args,
    config: Config,
    folder: PathBuf,
    lines: Vec<Line>,
    outage: bool,
}

impl Demo<'_> {
    async fn run(self, setup: Setup, timeout: Duration) -> Result<(), CliError> {
        let mut signals = Signals::new()?;
        let screen = Screen::new(self.args.json);
        screen.say("starting Kafka (embedded), the database (SQLite) and the service");
        let service = tokio::select! {
            service = Service::start(setup) => service.map_err(|e| CliError::Failed(e.to_string()))?,
            () = signals.next() => return Ok(()),
        };
        screen.say(&format!("health and metrics at http://{0}/health and http://{0}/metrics", service.http_address()));
        screen.say(&format!("deliveries go to the files in {}", self.folder.display()));
        let journal = screen.follow_journal();
        let told = tokio::select! {
            told = self.tell(&service, &screen) => told,
            () = signals.next() => Err(CliError::Failed("interrupted before the input was delivered".into())),
        };
        // The journal's last lines are on their way while the account is already there.
        tokio::time::sleep(Duration::from_millis(50)).await;
        screen.finish();
        if let Ok(account) = &told {
            self.print(account);
            if !self.args.exit {
                screen.say("the service goes on; Ctrl-C ends it");
                signals.next().await;
            }
        }
        journal.abort();
        drain(service, &mut signals, timeout).await;
        let account = told?;
        if account.is_complete() {
            return Ok(());
        }
        Err(CliError::Failed(format!("{} events are not accounted for", account.open)))
    }

    /// Feeds everything and waits until it is accounted for.
    async fn tell(&self, service: &Service, screen: &Screen) -> Result<Account, CliError> {
        let feeder = Feeder::new(service.client()).map_err(CliError::Failed)?;
        let mut watcher = Watcher::start(&self.config, service).await?;
        screen.say("waiting for the consumer groups to get their partitions");
        watcher.assigned(service).await?;
        let mut chunks = self.chunks();
        let half = chunks.len() / 2;
        let mut result = Account::default();
        if chunks.is_empty() {
            return Ok(result);
        }
        for (number, chunk) in chunks.drain(..).enumerate() {
            if self.outage && number == half {
                self.mail_goes_away(screen)?;
            }
            feeder.feed(&chunk).await.map_err(CliError::Failed)?;
            watcher.fed(&chunk);
            if self.outage {
                // A pace that can be read.
                tokio::time::sleep(Duration::from_millis(60)).await;
                screen.progress(&watcher.account(service).await?);
            } else {
                result = self.settle(&mut watcher, service, screen).await?;
            }
        }
        if self.outage {
            tokio::time::sleep(OUTAGE).await;
            self.mail_comes_back(screen)?;
            result = self.settle(&mut watcher, service, screen).await?;
        }
        Ok(result)
    }

    /// One line at a time for the sample; as much as the embedded cluster can hold for the user's own.
    fn chunks(&self) -> Vec<Vec<Line>> {
        let mut chunks: Vec<Vec<Line>> = Vec::new();
        let mut bytes = 0;
        for line in &self.lines {
            bytes += line.value.len();
            let full = chunks.last().is_none_or(|c| self.outage || c.len() >= CHUNK || bytes > CHUNK_BYTES);
            if full {
                chunks.push(Vec::new());
                bytes = line.value.len();
            }
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(line.clone());
            }
        }
        chunks
    }

    async fn settle(&self, watcher: &mut Watcher, service: &Service, screen: &Screen) -> Result<Account, CliError> {
        let mut last = (Account::default(), Instant::now());
        loop {
            let account = watcher.account(service).await?;
            screen.progress(&account);
            if account.is_complete() {
                return Ok(account);
            }
            if account != last.0 {
                last = (account, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                return Ok(account);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A folder in the file's place: every write of the mail provider fails, and the service has to cope.
    fn mail_goes_away(&self, screen: &Screen) -> Result<(), CliError> {
        screen.say("the demo takes the mail provider away for a few seconds");
        let (file, aside) = self.mail_files();
        let moved = if file.exists() { std::fs::rename(&file, &aside) } else { Ok(()) };
        moved.and_then(|()| std::fs::create_dir(&file)).map_err(|e| CliError::Failed(e.to_string()))
    }

    fn mail_comes_back(&self, screen: &Screen) -> Result<(), CliError> {
        screen.say("the demo brings the mail provider back");
        let (file, aside) = self.mail_files();
        let back = std::fs::remove_dir(&file);
        back.and_then(|()| if aside.exists() { std::fs::rename(&aside, &file) } else { Ok(()) })
            .map_err(|e| CliError::Failed(e.to_string()))
    }

    fn mail_files(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("email.jsonl"), self.folder.join("email.jsonl.aside"))
    }

    fn print(&self, account: &Account) {
        if self.args.json {
            // Both spellings of the last one: that of the printed account and that of all other JSON.
            let object = json!({
                "events": account.events, "delivered": account.delivered, "skipped": account.skipped,
                "suppressed": account.suppressed, "waiting": account.waiting,
                "deadLettered": account.dead_lettered, "dead-lettered": account.dead_lettered,
            });
            println!("{object}");
            return;
        }
        println!();
        for (name, count) in account.lines() {
            println!("{name}: {count}");
        }
        if account.open > 0 {
            println!("not accounted for: {}", account.open);
        }
    }
}

/// Knows how far the fed events have come.
struct Watcher {
    dead_letters: Follower,
    fed: Vec<Fed>,
    dead: HashSet<usize>,
    /// What became of the events before this position, by notification.
    settled: usize,
    known: HashMap<String, Brief>,
    /// Topics and their partitions, in which everything fed must have been taken.
    inputs: Vec<(String, i32)>,
    notifications: (String, i32),
    dead_letter_topic: (String, i32),
}

impl Watcher {
    async fn start(config: &Config, service: &Service) -> Result<Self, CliError> {
        let names = config.kafka.topics();
        let (client, topic) = (service.client().clone(), names.dead_letters.to_string());
        let follower = tokio::task::spawn_blocking(move || Follower::start(&client, &topic, PATIENCE)).await;
        let follower = follower.map_err(|e| CliError::Failed(e.to_string()))?;
        let partitions = &config.kafka.partitions;
        Ok(Self {
            dead_letters: follower.map_err(|e| CliError::Failed(e.to_string()))?,
            fed: Vec::new(),
            dead: HashSet::new(),
            settled: 0,
            known: HashMap::new(),
            inputs: vec![
                (names.orders.to_string(), partitions.order_events),
                (names.users.to_string(), partitions.user_events),
                (names.products.to_string(), partitions.product_events),
            ],
            notifications: (names.notifications.to_string(), partitions.notification_events),
            dead_letter_topic: (names.dead_letters.to_string(), partitions.dead_letter_queue),
        })
    }

    /// Waits until every partition of every input has an owner.
    async fn assigned(&self, service: &Service) -> Result<(), CliError> {
        let others = [&self.notifications, &self.dead_letter_topic];
        let wanted: i32 = self.inputs.iter().chain(others).map(|(_, partitions)| partitions).sum();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut owned = 0;
            for (_, group) in service.groups() {
                owned += group.send(GroupStatus).await.flatten().map_or(0, |status| status.assigned.len());
            }
            if owned as i32 >= wanted {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(CliError::Failed("the consumer groups got no partitions".into()))
    }

    fn fed(&mut self, lines: &[Line]) {
        self.fed.extend(lines.iter().map(|line| line.event_id.clone()));
    }

    async fn account(&mut self, service: &Service) -> Result<Account, CliError> {
        while let Some(letter) = self.dead_letters.try_next() {
            self.dead.extend(line_of(&letter.headers));
        }
        let routed = self.is_routed(service).await;
        // A contact that arrives may still set a notification free; what is settled stays so.
        let moving = self.known.values().filter(|b| !b.state.is_settled());
        let moving = moving.filter_map(|b| b.causation_id.clone());
        let ids: Vec<String> = self.fed[self.settled..].iter().flatten().cloned().chain(moving).collect();
        let briefs = service.database().caused_by(&ids).await.map_err(|e| CliError::Failed(e.to_string()))?;
        self.known.extend(briefs.into_iter().map(|brief| (brief.id.clone(), brief)));
        let account = account(&self.fed, &self.dead, self.known.values(), routed);
        // Until routing is done with everything, an event may get a second notification.
        if routed && account.is_complete() {
            self.settled = self.fed.len();
        }
        Ok(account)
    }

    /// True when every record of the inputs has been settled, and then every request has reached the ledger.
    async fn is_routed(&self, service: &Service) -> bool {
        let mut topics: Vec<&(String, i32)> = self.inputs.iter().collect();
        topics.push(&self.notifications);
        for (topic, partitions) in topics {
            let offsets = service.admin().offsets(topic, *partitions, Duration::from_secs(2)).await;
            let Ok(offsets) = offsets else { return false };
            let end: i64 = offsets.iter().map(|(_, end)| end).sum();
            let mut settled = 0;
            for (_, group) in service.groups() {
                let status = group.send(GroupStatus).await.flatten().unwrap_or_default();
                let assigned = status.assigned.iter().filter(|p| p.topic == *topic);
                settled += assigned.filter_map(|p| p.position.or(p.committed)).sum::<i64>();
            }
            if settled < end {
                return false;
            }
        }
        // A dead letter is durable before its record is settled, but the follower may lag behind.
        let (topic, partitions) = &self.dead_letter_topic;
        let offsets = service.admin().offsets(topic, *partitions, Duration::from_secs(2)).await;
        offsets.is_ok_and(|o| o.iter().map(|(_, end)| end).sum::<i64>() <= self.dead_letters.seen() as i64)
    }
}

fn line_of(headers: &Headers) -> Option<usize> {
    std::str::from_utf8(headers.get(LINE_HEADER)?).ok()?.parse().ok()
}
