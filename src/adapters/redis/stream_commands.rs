//! The commands of a consumer group of a Redis stream, on a connection of its own that is made anew when it breaks.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, Value, cmd};

use super::stream_entry::{Entry, EntryId};
use super::stream_replies::{self as replies, Group, Pending, TakenOver, Unreadable};

/// One step for Redis: nothing is delivered between the look and the removal.
const LEAVE: &str = "
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return 0";

/// An answer takes no longer than this, or the connection is given up; a wait that the command asks for comes on top.
const DEADLINE: Duration = Duration::from_secs(2);

/// Who asks about what.
#[derive(Debug, Clone)]
pub struct Names {
    /// The stream's key.
    pub stream: Arc<str>,
    /// The consumer group.
    pub group: String,
    /// This consumer.
    pub consumer: String,
}

/// Why Redis did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// The group does not exist: the stream was deleted, or Redis lost its data.
    #[error("the consumer group does not exist")]
    NoGroup,
    /// The server answers, and refuses.
    #[error("Redis refuses: {reason}")]
    Refused {
        /// The first word of its answer.
        code: String,
        /// The whole of it.
        reason: String,
    },
    /// No answer.
    #[error("Redis does not answer: {0}")]
    Away(String),
}

impl From<Unreadable> for StreamError {
    fn from(reason: Unreadable) -> Self {
        Self::Refused { code: "unreadable".to_owned(), reason }
    }
}

type Answer<T> = Result<T, StreamError>;

/// See the module.
pub struct StreamCommands {
    client: Client,
    names: Names,
    connection: Option<MultiplexedConnection>,
}

impl StreamCommands {
    /// Connects with the first command.
    pub fn new(client: Client, names: Names) -> Self {
        Self { client, names, connection: None }
    }

    /// Makes the group, and the stream with it, with all entries before it. False when it exists.
    pub async fn create_group(&mut self) -> Answer<bool> {
        let mut command = self.on("XGROUP", Some("CREATE"));
        command.arg("0").arg("MKSTREAM");
        match self.ask(&command).await {
            Ok(_) => Ok(true),
            Err(StreamError::Refused { code, .. }) if code == "BUSYGROUP" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Entries that nobody has had, at most so many; waits for the first at most this long.
    pub async fn read_new(&mut self, count: usize, wait: Duration) -> Answer<Vec<Entry>> {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.names.group).arg(&self.names.consumer).arg("COUNT").arg(count);
        command.arg("BLOCK").arg(wait.as_millis() as u64).arg("STREAMS").arg(&*self.names.stream).arg(">");
        let answer = self.ask_within(&command, wait + DEADLINE).await?;
        Ok(replies::read(answer)?)
    }

    /// What this consumer has had and not acknowledged, from this id on, at most so many.
    pub async fn pending(&mut self, from: EntryId, count: usize) -> Answer<Vec<Pending>> {
        let mut command = self.on("XPENDING", None);
        command.arg(from.to_string()).arg("+").arg(count).arg(&self.names.consumer);
        Ok(replies::pending(self.ask(&command).await?)?)
    }

    /// Delivers pending entries to this consumer once more. Those that are gone from the stream are missing.
    pub async fn claim(&mut self, ids: &[EntryId]) -> Answer<Vec<Entry>> {
        let command = self.claiming(ids);
        Ok(replies::entries(self.ask(&command).await?)?)
    }

    /// Says that pending entries are being worked on: they are idle for no time.
    pub async fn refresh(&mut self, ids: &[EntryId]) -> Answer<()> {
        let mut command = self.claiming(ids);
        command.arg("JUSTID");
        self.ask(&command).await.map(drop)
    }

    /// Leaves pending entries to whoever asks first, with this count of deliveries.
    pub async fn hand_back(&mut self, ids: &[EntryId], idle: Duration, deliveries: u64) -> Answer<()> {
        let mut command = self.claiming(ids);
        command.arg("IDLE").arg(idle.as_millis() as u64).arg("RETRYCOUNT").arg(deliveries).arg("JUSTID");
        self.ask(&command).await.map(drop)
    }

    fn claiming(&self, ids: &[EntryId]) -> Cmd {
        let mut command = self.on("XCLAIM", None);
        command.arg(&self.names.consumer).arg(0);
        add(&mut command, ids);
        command
    }

    /// Takes over, without delivering them, pending entries of any consumer that were idle for so long.
    pub async fn take_over(&mut self, idle: Duration, from: EntryId, count: usize) -> Answer<TakenOver> {
        let mut command = self.on("XAUTOCLAIM", None);
        command.arg(&self.names.consumer).arg(idle.as_millis() as u64).arg(from.to_string());
        command.arg("COUNT").arg(count).arg("JUSTID");
        Ok(replies::taken_over(self.ask(&command).await?)?)
    }

    /// Acknowledges entries; one that is acknowledged already is fine.
    pub async fn acknowledge(&mut self, ids: &[EntryId]) -> Answer<()> {
        let mut command = self.on("XACK", None);
        add(&mut command, ids);
        self.ask(&command).await.map(drop)
    }

    /// Removes this consumer from the group if it has nothing pending, which would go with it: an answer that was given
    /// up may still have been delivered to it.
    pub async fn leave(&mut self) -> Answer<()> {
        let mut command = cmd("EVAL");
        command.arg(LEAVE).arg(1).arg(&*self.names.stream).arg(&self.names.group).arg(&self.names.consumer);
        self.ask(&command).await.map(drop)
    }

    /// All consumer groups of the stream.
    pub async fn groups(&mut self) -> Answer<Vec<Group>> {
        let mut command = cmd("XINFO");
        command.arg("GROUPS").arg(&*self.names.stream);
        Ok(replies::groups(self.ask(&command).await?)?)
    }

    /// The oldest entry that is pending in a group.
    pub async fn oldest_pending(&mut self, group: &[u8]) -> Answer<Option<EntryId>> {
        let mut command = cmd("XPENDING");
        command.arg(&*self.names.stream).arg(group);
        Ok(replies::oldest_pending(self.ask(&command).await?)?)
    }

    /// How many entries the stream has.
    pub async fn length(&mut self) -> Answer<u64> {
        let mut command = cmd("XLEN");
        command.arg(&*self.names.stream);
        Ok(replies::number(&self.ask(&command).await?)?)
    }

    /// Whether the stream has an entry from this id on.
    pub async fn has_any_from(&mut self, id: EntryId) -> Answer<bool> {
        let mut command = cmd("XRANGE");
        command.arg(&*self.names.stream).arg(id.to_string()).arg("+").arg("COUNT").arg(1);
        Ok(!replies::entries(self.ask(&command).await?)?.is_empty())
    }

    /// Removes entries before this id, as far as Redis finds that cheap.
    pub async fn trim(&mut self, before: EntryId) -> Answer<u64> {
        let mut command = cmd("XTRIM");
        command.arg(&*self.names.stream).arg("MINID").arg("~").arg(before.to_string());
        Ok(replies::number(&self.ask(&command).await?)?)
    }

    /// A command about the group: `NAME [VERB] stream group`.
    fn on(&self, name: &str, verb: Option<&str>) -> Cmd {
        let mut command = cmd(name);
        command.arg(verb).arg(&*self.names.stream).arg(&self.names.group);
        command
    }

    async fn ask(&mut self, command: &Cmd) -> Answer<Value> {
        self.ask_within(command, DEADLINE).await
    }

    async fn ask_within(&mut self, command: &Cmd, deadline: Duration) -> Answer<Value> {
        // Out of its place while it is used: an answer that nobody waited for must not be taken for the next one's.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answer = tokio::time::timeout(deadline, command.query_async::<Value>(&mut connection)).await;
        let answer = answer.map_err(|_| StreamError::Away(format!("not within {} ms", deadline.as_millis())))?;
        let answer = answer.map_err(|error| failure(&error));
        if !matches!(answer, Err(StreamError::Away(_))) {
            self.connection = Some(connection);
        }
        answer
    }

    async fn connect(&self) -> Answer<MultiplexedConnection> {
        // Every command has its own deadline.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(DEADLINE)).set_response_timeout(None);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(DEADLINE * 2, connecting).await {
            Ok(connected) => connected.map_err(|error| failure(&error)),
            Err(_) => Err(StreamError::Away("no connection in time".to_owned())),
        }
    }
}

fn add(command: &mut Cmd, ids: &[EntryId]) {
    for id in ids {
        command.arg(id.to_string());
    }
}

/// Only what the server itself says is a refusal. A stream that is deleted while it is waited for unblocks the wait.
fn failure(error: &RedisError) -> StreamError {
    match error.code() {
        Some("NOGROUP" | "UNBLOCKED") => StreamError::NoGroup,
        Some(code) => StreamError::Refused { code: code.to_owned(), reason: error.to_string() },
        None => StreamError::Away(error.to_string()),
    }
}
