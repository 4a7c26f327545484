//! A stream of the test's own on the real Redis, as its publishers and other consumers see it.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::{Client, Cmd, Connection, FromRedisValue, Value, cmd};

use super::events::Input;
use super::producer::Sent;
use super::servers::required;
use super::wait;

/// An entry's sequence number within its offset.
const SEQUENCE_BITS: u32 = 20;

pub struct Stream {
    pub key: String,
    pub group: String,
    pub url: String,
}

/// Entries on their way, at a steady pace.
pub struct StreamLoad(JoinHandle<Vec<Sent>>);

impl StreamLoad {
    #[track_caller]
    pub fn finish(self) -> Vec<Sent> {
        self.0.join().expect("the load is on its stream")
    }
}

impl Stream {
    pub fn fresh() -> Self {
        Self::at(required("TEST_REDIS_URL"))
    }

    /// In a database of its own, which may be flushed.
    pub fn apart() -> Self {
        Self::at(format!("{}/9", required("TEST_REDIS_URL").trim_end_matches('/')))
    }

    fn at(url: String) -> Self {
        let key = format!("it-{}", super::unique());
        Self { group: format!("notification-service-{key}"), key, url }
    }

    /// The service's settings for it.
    pub fn settings(&self, more: &str) -> String {
        let Self { key, url, .. } = self;
        format!("[redis]\nurl = \"{url}\"\n[[routing.sources]]\nkind = \"redis_stream\"\nstream = \"{key}\"\n{more}\n")
    }

    /// Adds all of it as fast as Redis takes it.
    #[track_caller]
    pub fn add(&self, inputs: Vec<Input>) -> Vec<Sent> {
        let mut connection = self.connection();
        inputs.into_iter().map(|input| add(&mut connection, &self.key, input)).collect()
    }

    /// Adds so many entries a second, in the background.
    pub fn add_steadily(&self, inputs: Vec<Input>, per_second: u32) -> StreamLoad {
        let (key, mut connection) = (self.key.clone(), self.connection());
        StreamLoad(thread::spawn(move || {
            let began = Instant::now();
            let mut sent = Vec::with_capacity(inputs.len());
            for (number, input) in inputs.into_iter().enumerate() {
                let due = Duration::from_secs_f64(number as f64 / f64::from(per_second));
                thread::sleep(due.saturating_sub(began.elapsed()));
                sent.push(add(&mut connection, &key, input));
            }
            sent
        }))
    }

    /// Runs `NAME key ARGS…`.
    #[track_caller]
    pub fn run<T: FromRedisValue>(&self, name: &str, args: &[&str]) -> T {
        self.query(cmd(name).arg(&self.key).arg(args))
    }

    #[track_caller]
    pub fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query(&mut self.connection()).unwrap_or_else(|e| panic!("Redis: {e}"))
    }

    /// Makes the service's group before the service does.
    #[track_caller]
    pub fn create_group(&self) {
        self.query::<()>(cmd("XGROUP").arg("CREATE").arg(&self.key).arg(&self.group).arg("0").arg("MKSTREAM"));
    }

    /// Another consumer of the service's group takes entries, and never says what became of them.
    #[track_caller]
    pub fn take_as(&self, consumer: &str, count: usize) {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(consumer).arg("COUNT").arg(count);
        let answer: Value = self.query(command.arg("STREAMS").arg(&self.key).arg(">"));
        assert_ne!(answer, Value::Nil, "it got something");
        assert_eq!(self.pending(), count as u64);
    }

    /// Makes it look as if an entry had been delivered so often.
    #[track_caller]
    pub fn count_as_delivered(&self, consumer: &str, entry: &Sent, times: u64) {
        let (id, times) = (id_of(entry), times.to_string());
        let args = [&self.group, consumer, "0", &id, "RETRYCOUNT", &times, "JUSTID"];
        assert_eq!(self.run::<Vec<String>>("XCLAIM", &args), [id]);
    }

    /// How often each pending entry was delivered, in the stream's order.
    pub fn deliveries(&self) -> Vec<u64> {
        self.each_pending().into_iter().map(|(_, _, _, deliveries)| deliveries).collect()
    }

    /// How long each pending entry was without a sign of life.
    pub fn idle_times(&self) -> Vec<Duration> {
        self.each_pending().into_iter().map(|(_, _, ms, _)| Duration::from_millis(ms)).collect()
    }

    #[track_caller]
    fn each_pending(&self) -> Vec<(String, String, u64, u64)> {
        self.run("XPENDING", &[&self.group, "-", "+", "1000"])
    }

    /// The names of the group's consumers.
    #[track_caller]
    pub fn consumers(&self) -> Vec<String> {
        let consumers: Vec<Value> = self.query(cmd("XINFO").arg("CONSUMERS").arg(&self.key).arg(&self.group));
        consumers.into_iter().map(|consumer| text_of(consumer, "name").expect("its name")).collect()
    }

    /// Entries that were delivered and not acknowledged.
    #[track_caller]
    pub fn pending(&self) -> u64 {
        let answer: (u64, Value, Value, Value) = self.run("XPENDING", &[&self.group]);
        answer.0
    }

    /// Waits until every entry was delivered and acknowledged.
    #[track_caller]
    pub fn wait_until_acknowledged(&self, within: Duration) {
        let mut connection = self.connection();
        wait::until("every entry is acknowledged", within, || {
            let last =
                text_of(cmd("XINFO").arg("STREAM").arg(&self.key).query(&mut connection).ok()?, "last-generated-id")?;
            let groups: Vec<Value> = cmd("XINFO").arg("GROUPS").arg(&self.key).query(&mut connection).ok()?;
            let own = groups.into_iter().find(|group| text_of(group.clone(), "name").as_ref() == Some(&self.group))?;
            (text_of(own, "last-delivered-id")? == last && self.pending() == 0).then_some(())
        });
    }

    fn connection(&self) -> Connection {
        let client = Client::open(self.url.as_str()).expect("TEST_REDIS_URL is a URL");
        client.get_connection_with_timeout(Duration::from_secs(5)).expect("Redis answers")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.run::<()>("DEL", &[]);
        }
    }
}

/// A text within the answer of XINFO, a list of names and values.
fn text_of(answer: Value, name: &str) -> Option<String> {
    let Value::Array(parts) = answer else { return None };
    let at = parts.iter().position(|part| *part == Value::BulkString(name.as_bytes().to_vec()))?;
    match parts.get(at + 1)? {
        Value::BulkString(text) => String::from_utf8(text.clone()).ok(),
        _ => None,
    }
}

/// The id that Redis gave to an entry.
pub fn id_of(entry: &Sent) -> String {
    format!("{}-{}", entry.offset >> SEQUENCE_BITS, entry.offset & ((1 << SEQUENCE_BITS) - 1))
}

fn add(connection: &mut Connection, key: &str, input: Input) -> Sent {
    let mut command = cmd("XADD");
    command.arg(key).arg("*");
    for (name, value) in &input.headers {
        command.arg(name).arg(value.as_deref().unwrap_or_default());
    }
    if let Some(key) = &input.key {
        command.arg("key").arg(key);
    }
    if let Some(value) = &input.value {
        command.arg("event").arg(value);
    }
    let id: String = command.query(connection).expect("Redis takes it");
    let (ms, seq) = id.split_once('-').expect("an entry id");
    let number = |text: &str| text.parse::<i64>().expect("a number");
    Sent { input, topic: key.to_owned(), partition: 0, offset: (number(ms) << SEQUENCE_BITS) + number(seq) }
}
