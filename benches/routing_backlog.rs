//! How fast the routing stage works off a backlog, beside the fastest that this machine could do: a bare librdkafka
//! loop that copies the same records. Both run on a real Kafka, in turn, round by round; the program measures and
//! prints, and judges only whether every event arrived.
//!
//!     scripts/bench-routing.sh [--events N] [--rounds R]
//!
//! A round has topics and groups of its own. It feeds `order-events`, then measures, in odd rounds in this order and
//! in even ones the other way round:
//!
//! - bare: from the first record polled to the last copy acknowledged. The producer has the service's settings, the
//!   consumer librdkafka's.
//! - service: `serve` without delivery, from the first request visible on `notification-events` to the last. Begin and
//!   end are taken from looks a few milliseconds apart, and rounded against the service.
//!
//! `from consumed` is the service's rate from the first record that it counted as consumed instead. The CPU time of the
//! service includes its start.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Parser;
use notification_service::adapters::kafka::ClientSettings;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedHeaders, DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

const SERVICE: &str = env!("CARGO_BIN_EXE_notification-service");
/// Whatever makes no progress for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one question to the cluster.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two looks at the progress of the service.
const LOOK: Duration = Duration::from_millis(10);
/// The service promises its end within 20 s.
const STOP: Duration = Duration::from_secs(30);
/// Records between two looks for delivery reports.
const REPORTS_EVERY: u64 = 64;
const COPY_PARTITIONS: i32 = 3;
/// Of the CPU times in /proc.
const TICKS_PER_SECOND: f64 = 100.0;

/// Set by SIGINT and SIGTERM. Every loop ends, and what was started is ended on the way out.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Measures how fast the service routes a backlog, beside a bare librdkafka copy loop.
#[derive(Parser)]
#[command(name = "routing_backlog")]
struct Options {
    /// Events in the backlog of each round.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Rounds, each of which measures both.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benchmarks too, without this flag and with the filters of the tests.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("routing_backlog: measures only under `cargo bench`, see scripts/bench-routing.sh");
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    match heed_signals().and_then(|()| run(&options)) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("WRONG: {problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("routing_backlog: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first signal ends the work in an orderly way, a second one the process.
fn heed_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut int, mut term) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
                if INTERRUPTED.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

fn run(options: &Options) -> Result<Vec<String>> {
    let brokers = std::env::var("TEST_KAFKA_BROKERS")
        .context("TEST_KAFKA_BROKERS is not set: run scripts/bench-routing.sh, which starts a Kafka")?;
    let cluster = Cluster::new(brokers)?;
    println!(
        "backlog  {} OrderCreated events of about {} bytes",
        thousands(options.events),
        event(1_000_000).value.len()
    );
    println!("kafka    {}", cluster.settings.brokers);
    println!("machine  {}", machine());
    println!();
    let heads = ["round", "bare msg/s", "service msg/s", "ratio", "from consumed", "bare CPU s", "service CPU s"];
    print_row(heads.map(str::to_owned));
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let round = measure_round(&cluster, number, options.events).with_context(|| format!("round {number}"))?;
        round.print(&number.to_string());
        rounds.push(round);
    }
    Round::medians(&rounds).print("median");
    Ok(rounds.into_iter().flat_map(|round| round.problems).collect())
}

// ---- Rounds ----

/// Rates in records a second, CPU times in seconds.
struct Round {
    bare: f64,
    service: f64,
    ratio: f64,
    from_consumed: Option<f64>,
    bare_cpu: f64,
    service_cpu: f64,
    problems: Vec<String>,
}

impl Round {
    fn print(&self, name: &str) {
        print_row([
            name.to_owned(),
            thousands(self.bare as u64),
            thousands(self.service as u64),
            format!("{:.3}", self.ratio),
            self.from_consumed.map_or_else(|| "-".to_owned(), |rate| thousands(rate as u64)),
            format!("{:.2}", self.bare_cpu),
            format!("{:.2}", self.service_cpu),
        ]);
    }

    /// Each column for itself.
    fn medians(rounds: &[Self]) -> Self {
        let of = |column: fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(column).collect());
        Self {
            bare: of(|r| Some(r.bare)).unwrap_or_default(),
            service: of(|r| Some(r.service)).unwrap_or_default(),
            ratio: of(|r| Some(r.ratio)).unwrap_or_default(),
            from_consumed: of(|r| r.from_consumed),
            bare_cpu: of(|r| Some(r.bare_cpu)).unwrap_or_default(),
            service_cpu: of(|r| Some(r.service_cpu)).unwrap_or_default(),
            problems: Vec::new(),
        }
    }
}

fn measure_round(cluster: &Cluster, number: u32, events: u64) -> Result<Round> {
    let prefix = format!("bench-{}.", &Uuid::new_v4().simple().to_string()[..12]);
    let topics = Topics { cluster, prefix: &prefix };
    topics.create()?;
    let fed = feed(cluster, &topics.orders(), events).context("feeding order-events")?;
    progress(&format!("round {number}: {} events fed in {:.1} s", thousands(events), fed.as_secs_f64()));

    let mut problems = Vec::new();
    let measure_bare = |problems: &mut Vec<String>| -> Result<Bare> {
        let bare = copy(cluster, &topics, events).context("the bare loop")?;
        let found = cluster.end_of(&topics.copy())?;
        if found != events {
            problems.push(format!("round {number}: {} records copied by the bare loop", thousands(found)));
        }
        Ok(bare)
    };
    let measure_service = |problems: &mut Vec<String>| -> Result<Routing> {
        let routing = route(cluster, &topics, events).context("the service")?;
        if !routing.exit.success() {
            problems.push(format!("round {number}: the service ended with {} after SIGTERM", routing.exit));
        }
        let found = requests(cluster, &topics.requests()).context("reading the requests")?;
        progress(&format!("round {number}: {found}"));
        if found.distinct != events || found.others > 0 {
            problems.push(format!("round {number}: {} events, but {found}", thousands(events)));
        }
        Ok(routing)
    };
    let (bare, routing) = if number % 2 == 1 {
        let bare = measure_bare(&mut problems)?;
        (bare, measure_service(&mut problems)?)
    } else {
        let routing = measure_service(&mut problems)?;
        (measure_bare(&mut problems)?, routing)
    };

    let rate = |elapsed: Duration| events as f64 / elapsed.as_secs_f64();
    Ok(Round {
        bare: rate(bare.elapsed),
        service: rate(routing.elapsed),
        ratio: bare.elapsed.as_secs_f64() / routing.elapsed.as_secs_f64(),
        from_consumed: routing.from_consumed.map(rate),
        bare_cpu: bare.cpu,
        service_cpu: routing.cpu,
        problems,
    })
}

// ---- The cluster ----

struct Cluster {
    settings: ClientSettings,
    admin: AdminClient<DefaultClientContext>,
    /// In no group: answers questions about offsets.
    observer: BaseConsumer,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    fn new(brokers: String) -> Result<Self> {
        let client_id = "routing-backlog".to_owned();
        let settings = ClientSettings { brokers, client_id, properties: Default::default() };
        let admin = settings.admin().create()?;
        let observer = settings.admin().create()?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Self { settings, admin, observer, runtime })
    }

    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.settings.admin();
        config.set("group.id", group).set("auto.offset.reset", "earliest");
        Ok(config.create()?)
    }

    fn partitions(&self, topic: &str) -> Result<i32> {
        let metadata = self.observer.fetch_metadata(Some(topic), ANSWER)?;
        let count = metadata.topics().iter().map(|topic| topic.partitions().len()).sum::<usize>();
        ensure!(count > 0, "there is no topic {topic}");
        Ok(i32::try_from(count)?)
    }

    /// The sum of the end offsets; the number of records, as nothing here compacts, expires or uses transactions.
    fn end_of(&self, topic: &str) -> Result<u64> {
        self.end_of_partitions(topic, self.partitions(topic)?)
    }

    fn end_of_partitions(&self, topic: &str, partitions: i32) -> Result<u64> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..partitions {
            asked.add_partition_offset(topic, partition, Offset::End)?;
        }
        // One request for all partitions, other than with `fetch_watermarks`.
        let answer = self.observer.offsets_for_times(asked, ANSWER)?;
        let ends = answer.elements().into_iter().map(|element| match element.offset() {
            Offset::Offset(end) => Ok(u64::try_from(end)?),
            other => bail!("no end offset of {topic}: {:?}, {other:?}", element.error()),
        });
        ends.sum()
    }
}

/// The topics of a round, which exist until this is dropped.
struct Topics<'a> {
    cluster: &'a Cluster,
    prefix: &'a str,
}

impl Topics<'_> {
    fn orders(&self) -> String {
        format!("{}order-events", self.prefix)
    }

    fn requests(&self) -> String {
        format!("{}notification-events", self.prefix)
    }

    fn dead_letters(&self) -> String {
        format!("{}dead-letter-queue", self.prefix)
    }

    fn copy(&self) -> String {
        format!("{}bare-copy", self.prefix)
    }

    fn create(&self) -> Result<()> {
        let output = service_command(&self.cluster.settings.brokers, self.prefix)
            .args(["topics", "create"])
            .output()
            .with_context(|| format!("{SERVICE} cannot be run"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`topics create` ended with {}: {said}", output.status);
        let copy = self.copy();
        let plan = NewTopic::new(&copy, COPY_PARTITIONS, TopicReplication::Fixed(1));
        let made = self.cluster.runtime.block_on(self.cluster.admin.create_topics([&plan], &admin_options()))?;
        made.into_iter().try_for_each(|made| made.map(drop)).map_err(|(topic, code)| anyhow!("topic {topic}: {code}"))
    }
}

impl Drop for Topics<'_> {
    fn drop(&mut self) {
        let names = self.cluster.observer.fetch_metadata(None, ANSWER).map(|metadata| {
            let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
            names.filter(|name| name.starts_with(self.prefix)).collect::<Vec<_>>()
        });
        let deleted = names.and_then(|names| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.cluster.runtime.block_on(self.cluster.admin.delete_topics(&names, &admin_options()))
        });
        if let Err(error) = deleted {
            progress(&format!("topics {}* could not be deleted: {error}", self.prefix));
        }
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER))
}

/// Notices when nothing moves any more, and when a signal asks for the end.
struct Stall {
    count: u64,
    since: Instant,
}

impl Stall {
    fn new() -> Self {
        Self { count: 0, since: Instant::now() }
    }

    fn check(&mut self, count: u64) -> Result<()> {
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        if count != self.count {
            *self = Self { count, since: Instant::now() };
        }
        ensure!(self.since.elapsed() < PATIENCE, "nothing moved for {PATIENCE:?} after {} records", thousands(count));
        Ok(())
    }
}

// ---- Producing ----

#[derive(Default)]
struct Reports {
    acknowledged: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
        }
    }
}

struct Sender {
    producer: BaseProducer<Reports>,
    sent: u64,
}

impl Sender {
    fn new(settings: &ClientSettings) -> Result<Self> {
        Ok(Self { producer: settings.producer().create_with_context(Reports::default())?, sent: 0 })
    }

    fn reports(&self) -> &Reports {
        use rdkafka::producer::Producer as _;
        self.producer.context()
    }

    fn acknowledged(&self) -> u64 {
        self.reports().acknowledged.load(Ordering::Relaxed)
    }

    fn send(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
    ) -> Result<()> {
        let mut stall = None;
        let mut record =
            BaseRecord { topic, partition: None, payload, key, timestamp: None, headers, delivery_opaque: () };
        while let Err((error, back)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error).with_context(|| format!("producing to {topic}"));
            }
            self.producer.poll(Duration::from_millis(1));
            stall.get_or_insert_with(Stall::new).check(self.acknowledged())?;
            record = back;
        }
        self.sent += 1;
        if self.sent.is_multiple_of(REPORTS_EVERY) {
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Waits until everything sent is acknowledged.
    fn finish(&self) -> Result<()> {
        let mut stall = Stall::new();
        while self.acknowledged() < self.sent {
            self.producer.poll(Duration::from_millis(1));
            if let Some(failure) = &*self.reports().failure.lock().unwrap_or_else(PoisonError::into_inner) {
                bail!("a record was not taken: {failure}");
            }
            stall.check(self.acknowledged())?;
        }
        Ok(())
    }
}

struct Event {
    key: String,
    value: String,
    headers: OwnedHeaders,
}

/// An order as a shop would announce it. Each order has one such event, so every key is another one.
fn event(order: u64) -> Event {
    let id = Uuid::new_v4();
    let timestamp = format!("{:.3}", jiff::Timestamp::now());
    let customer = order * 7_919 % 50_000;
    let product = order * 104_729 % 9_000 + 1_000;
    let (quantity, cents) = (order % 4 + 1, order * 31 % 90_000 + 995);
    let amount = quantity * cents;
    let value = format!(
        concat!(
            r#"{{"eventId":"{id}","eventType":"OrderCreated","aggregateId":"{order}","version":1,"#,
            r#""timestamp":"{timestamp}","data":{{"orderId":"{order}","customerId":"cust-{customer:05}","#,
            r#""amount":{}.{:02},"currency":"USD","items":[{{"productId":"prod-{product}","#,
            r#""name":"Stoneware Mug, 350 ml","quantity":{quantity},"unitPrice":{}.{:02}}}]}},"#,
            r#""metadata":{{"source":"order-service","correlationId":"req-{order:08x}"}}}}"#,
        ),
        amount / 100,
        amount % 100,
        cents / 100,
        cents % 100,
        id = id,
        order = order,
        timestamp = timestamp,
        customer = customer,
        product = product,
        quantity = quantity,
    );
    let key = order.to_string();
    let traceparent = format!("00-{:032x}-{:016x}-01", Uuid::new_v4().as_u128(), id.as_u64_pair().0);
    let headers = [
        ("eventType", "OrderCreated"),
        ("source", "order-service"),
        ("timestamp", &timestamp),
        ("aggregateId", &key),
        ("traceparent", &traceparent),
    ];
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
    Event { key, value, headers }
}

fn feed(cluster: &Cluster, topic: &str, events: u64) -> Result<Duration> {
    let began = Instant::now();
    let mut sender = Sender::new(&cluster.settings)?;
    for order in 0..events {
        let event = event(1_000_000 + order);
        sender.send(topic, Some(event.key.as_bytes()), Some(event.value.as_bytes()), Some(event.headers))?;
    }
    sender.finish()?;
    Ok(began.elapsed())
}

// ---- The bare loop ----

struct Bare {
    elapsed: Duration,
    cpu: f64,
}

fn copy(cluster: &Cluster, topics: &Topics<'_>, events: u64) -> Result<Bare> {
    let (from, to) = (topics.orders(), topics.copy());
    let cpu_before = cpu_seconds("self")?;
    let consumer = cluster.consumer(&to)?;
    let mut sender = Sender::new(&cluster.settings)?;
    consumer.subscribe(&[&from])?;
    let mut began = None;
    let mut stall = Stall::new();
    while sender.sent < events {
        match consumer.poll(Duration::from_millis(1)) {
            Some(Ok(message)) => {
                began.get_or_insert_with(Instant::now);
                let headers = message.headers().map(BorrowedHeaders::detach);
                sender.send(&to, message.key(), message.payload(), headers)?;
            }
            Some(Err(error)) => progress(&format!("the bare loop's consumer goes on after an error: {error}")),
            None => {
                sender.producer.poll(Duration::ZERO);
                stall.check(sender.sent)?;
            }
        }
    }
    sender.finish()?;
    let elapsed = began.map(|began| began.elapsed()).context("no record")?;
    Ok(Bare { elapsed, cpu: cpu_seconds("self")? - cpu_before })
}

// ---- The service ----

struct Routing {
    elapsed: Duration,
    from_consumed: Option<Duration>,
    cpu: f64,
    exit: ExitStatus,
}

fn route(cluster: &Cluster, topics: &Topics<'_>, events: u64) -> Result<Routing> {
    let requests = topics.requests();
    let partitions = cluster.partitions(&requests)?;
    let mut service = Service::start(&cluster.settings.brokers, topics.prefix)?;
    let done = Arc::new(AtomicBool::new(false));
    let consumed = {
        let (port, done) = (service.port, Arc::clone(&done));
        thread::spawn(move || first_consumed(port, &done))
    };
    let watched = watch(cluster, &mut service, &requests, partitions, events);
    done.store(true, Ordering::Relaxed);
    let first_consumed = consumed.join().map_err(|_| anyhow!("the metrics' reader panicked"))?;
    let (began, ended) = watched.map_err(|error| {
        let letters = cluster.end_of(&topics.dead_letters()).map_or_else(|e| e.to_string(), thousands);
        anyhow!("{error:#}; dead letters: {letters}; the end of its log:\n{}", service.log_tail())
    })?;
    let cpu = cpu_seconds(&service.child.id().to_string())?;
    let exit = service.stop()?;
    if !exit.success() {
        progress(&format!("the end of the service's log:\n{}", service.log_tail()));
    }
    let from_consumed = first_consumed.map(|first| ended.saturating_duration_since(first));
    Ok(Routing { elapsed: ended - began, from_consumed, cpu, exit })
}

/// The last moment at which no request was visible, and the first at which all were.
fn watch(
    cluster: &Cluster,
    service: &mut Service,
    topic: &str,
    partitions: i32,
    events: u64,
) -> Result<(Instant, Instant)> {
    let mut stall = Stall::new();
    let mut began = Instant::now();
    loop {
        let asked = Instant::now();
        let visible = cluster.end_of_partitions(topic, partitions)?;
        if visible >= events {
            return Ok((began, Instant::now()));
        }
        if visible == 0 {
            began = asked;
        }
        stall.check(visible)?;
        if let Some(status) = service.child.try_wait()? {
            bail!("it ended by itself with {status}");
        }
        thread::sleep(LOOK);
    }
}

/// The last moment before the service counted its first record; it is asked no more after that.
fn first_consumed(port: u16, done: &AtomicBool) -> Option<Instant> {
    let mut before = None;
    while !done.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match consumed(port) {
            Some(0.0) => before = Some(asked),
            Some(_) => return before,
            None => {}
        }
        thread::sleep(LOOK);
    }
    None
}

/// How many orders the service has consumed by its own count; `None` while it does not answer.
fn consumed(port: u16) -> Option<f64> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    let status = page.lines().next()?;
    if !status.contains(" 200 ") {
        return None;
    }
    let of_orders = |line: &&str| line.starts_with("kafka_messages_consumed_total{") && line.contains("order-events\"");
    Some(page.lines().filter(of_orders).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// The long names of the keys, which win over the short ones; what else the environment sets is left to experiments.
fn service_command(brokers: &str, prefix: &str) -> Command {
    let mut command = Command::new(SERVICE);
    command
        .stdin(Stdio::null())
        .env("NOTIFICATION__KAFKA__BROKERS", brokers)
        .env("NOTIFICATION__KAFKA__PREFIX", prefix);
    command
}

/// The running service, killed when dropped.
struct Service {
    child: Child,
    port: u16,
    log: PathBuf,
    /// Its database and its log; removed after the process has ended.
    _folder: tempfile::TempDir,
}

impl Service {
    fn start(brokers: &str, prefix: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let output = File::create(&log)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = service_command(brokers, prefix)
            .arg("serve")
            .env("NOTIFICATION__DELIVERY__ENABLED", "false")
            .env(
                "NOTIFICATION__DATABASE__URL",
                format!("sqlite://{}", folder.path().join("notifications.db").display()),
            )
            .env("NOTIFICATION__HTTP__ADDRESS", format!("127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{SERVICE} cannot be run"))?;
        Ok(Self { child, port, log, _folder: folder })
    }

    fn stop(&mut self) -> Result<ExitStatus> {
        // The standard library only knows SIGKILL. The number is the child's until it is waited for.
        let id = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", r#"kill -TERM "$0""#, &id]).status()?;
        ensure!(sent.success(), "SIGTERM could not be sent to the service");
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(asked.elapsed() < STOP, "it still runs {STOP:?} after SIGTERM; its log:\n{}", self.log_tail());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- Counting ----

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    event_id: &'a str,
    event_type: &'a str,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    distinct: u64,
    duplicates: u64,
    /// Records that are no requests.
    others: u64,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [distinct, duplicates, others] = [self.distinct, self.duplicates, self.others].map(thousands);
        write!(f, "{distinct} distinct requests (duplicates: {duplicates}, other records: {others})")
    }
}

fn requests(cluster: &Cluster, topic: &str) -> Result<Found> {
    let partitions = cluster.partitions(topic)?;
    let end = cluster.end_of_partitions(topic, partitions)?;
    let consumer = cluster.consumer(&format!("{topic}-count"))?;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut read, mut others, mut ids, mut stall) = (0, 0, HashSet::new(), Stall::new());
    while read < end {
        stall.check(read)?;
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        read += 1;
        match request_id(message?.payload().unwrap_or_default()) {
            Some(id) => {
                ids.insert(id);
            }
            None => others += 1,
        }
    }
    let distinct = ids.len() as u64;
    Ok(Found { distinct, duplicates: read - others - distinct, others })
}

fn request_id(value: &[u8]) -> Option<Uuid> {
    let request: Request<'_> = serde_json::from_slice(value).ok()?;
    (request.event_type == "NotificationRequested").then(|| Uuid::parse_str(request.event_id).ok())?
}

// ---- Machine and output ----

/// User and system time of a process, all threads.
fn cpu_seconds(process: &str) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name in parentheses may hold blanks; the times are the 12th and 13th field behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 2, "{path} has no CPU times");
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, model)| model.trim());
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn print_row(cells: [String; 7]) {
    let [round, bare, service, ratio, from_consumed, bare_cpu, service_cpu] = cells;
    println!(
        "{round:>6}  {bare:>10}  {service:>13}  {ratio:>5}  {from_consumed:>13}  {bare_cpu:>10}  {service_cpu:>13}"
    );
}

/// What happens meanwhile: not part of the result.
fn progress(text: &str) {
    eprintln!("# {text}");
}
