//! Waking whoever waits: in this process at once, in others through PostgreSQL's LISTEN and NOTIFY. Nobody depends on it:
//! what is missed is found by the next look.

use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::query;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::database::{Database, bounded};
use super::dialect::Dialect;
use crate::ports::ledger::LedgerError;

/// The name under which instances that share a database hear of each other.
const CHANNEL: &str = "notification_service";
/// Changes that a slow listener may fall behind before it misses some.
const CHANGES: usize = 1024;
/// Between two messages to the other instances; what comes meanwhile goes into the next one.
const GATHER: Duration = Duration::from_millis(5);

/// What others may want to know at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wake {
    /// There is something to send.
    Work,
    /// This recipient's inbox changed.
    Inbox(String),
}

impl Wake {
    fn payload(&self, from: &str) -> String {
        match self {
            Self::Work => format!("{from} work"),
            Self::Inbox(recipient) => format!("{from} inbox {recipient}"),
        }
    }

    /// What a payload says, unless it is this instance's own.
    fn heard(payload: &str, own: &str) -> Option<Self> {
        let (from, rest) = payload.split_once(' ')?;
        match rest.split_once(' ') {
            _ if from == own => None,
            None if rest == "work" => Some(Self::Work),
            Some(("inbox", recipient)) => Some(Self::Inbox(recipient.to_owned())),
            _ => None,
        }
    }
}

/// Who is woken.
#[derive(Clone)]
pub(super) struct Wakes {
    /// Names this instance.
    own: String,
    /// Changes when there is something to send.
    pub work: watch::Sender<u64>,
    /// Whose inbox changed.
    pub inboxes: broadcast::Sender<String>,
    /// What this instance has to tell the others.
    told: broadcast::Sender<Wake>,
}

impl Wakes {
    pub fn new() -> Self {
        Self {
            own: uuid::Uuid::new_v4().simple().to_string(),
            work: watch::Sender::new(0),
            inboxes: broadcast::Sender::new(CHANGES),
            told: broadcast::Sender::new(CHANGES),
        }
    }

    /// Wakes whoever waits, here and elsewhere.
    pub fn announce(&self, wake: Wake) {
        self.wake(wake.clone());
        // Nobody hears it when there is no other instance to tell.
        drop(self.told.send(wake));
    }

    /// Wakes whoever waits in this process.
    pub fn wake(&self, wake: Wake) {
        match wake {
            Wake::Work => self.work.send_modify(|version| *version += 1),
            Wake::Inbox(recipient) => drop(self.inboxes.send(recipient)),
        }
    }
}

/// Hears other instances and tells them of what happens here. SQLite has one instance: then there is nobody.
pub(super) async fn follow_others(database: &Database) -> Result<(), LedgerError> {
    if database.dialect == Dialect::Sqlite {
        return std::future::pending().await;
    }
    let away = |error: sqlx::Error| LedgerError::Unavailable(error.to_string());
    let mut told = database.wakes.told.subscribe();
    let mut listener = PgListener::connect(&database.url).await.map_err(away)?;
    listener.listen(CHANNEL).await.map_err(away)?;
    loop {
        tokio::select! {
            heard = listener.try_recv() => match heard.map_err(away)? {
                Some(heard) => {
                    if let Some(wake) = Wake::heard(heard.payload(), &database.wakes.own) {
                        database.wakes.wake(wake);
                    }
                }
                // The connection broke and is had again: what was told meanwhile is not known.
                None => database.wakes.wake(Wake::Work),
            },
            wake = told.recv() => tell(database, wake, &mut told).await?,
        }
    }
}

async fn tell(
    database: &Database,
    first: Result<Wake, RecvError>,
    told: &mut broadcast::Receiver<Wake>,
) -> Result<(), LedgerError> {
    tokio::time::sleep(GATHER).await;
    // Those that were missed were work, or inboxes that somebody looks at again anyway.
    let mut wakes = vec![first.unwrap_or(Wake::Work)];
    while let Ok(wake) = told.try_recv() {
        if !wakes.contains(&wake) {
            wakes.push(wake);
        }
    }
    for wake in wakes {
        let payload = wake.payload(&database.wakes.own);
        let notify = query("SELECT pg_notify($1, $2)::text AS told").bind(CHANNEL).bind(payload);
        bounded(async { notify.fetch_one(&database.write).await.map(drop) }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_what_it_said_to_others_only() {
        for wake in [Wake::Work, Wake::Inbox("someone with spaces".into())] {
            assert_eq!(Wake::heard(&wake.payload("a"), "b"), Some(wake.clone()));
            assert_eq!(Wake::heard(&wake.payload("a"), "a"), None);
        }
        assert_eq!(Wake::heard("nonsense", "b"), None);
        assert_eq!(Wake::heard("a dances", "b"), None);
    }
}
