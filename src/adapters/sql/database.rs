//! The connection pool, its migrations, and the deadline that every statement has.

use std::future::Future;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::MigrateError;
use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Transaction,
};

use super::dialect::Dialect;
use super::outbox::OwnMessages;
use super::wake::Wakes;
use crate::ports::ledger::LedgerError;
use crate::ports::probe::Probe;

/// No operation takes longer; the connection of one that does is given up.
const OPERATION_DEADLINE: Duration = Duration::from_secs(20);
/// A migration may move all that there is.
const MIGRATION_DEADLINE: Duration = Duration::from_secs(3600);
/// A connection that is given back must answer within this time.
const ALIVE_DEADLINE: Duration = Duration::from_secs(2);
/// A connection must be had within this time.
const ACQUIRE_DEADLINE: Duration = Duration::from_secs(5);

/// Of each connection. A checkpoint every 1,000 pages would write pages back several times within one backlog, and wait
/// for the disk each time; what is committed is in the log all the same. What a statement needs to undo itself is small,
/// and kept in memory.
const SQLITE_SETUP: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000;
     PRAGMA wal_autocheckpoint = 10000; PRAGMA temp_store = MEMORY;";
/// Of the one that writes, in KiB: ids are spread over their whole index. The many that read keep to SQLite's own 2,000.
const SQLITE_WRITE_CACHE: &str = "PRAGMA cache_size = -8000";
/// Of each connection. Every statement finds its rows by looking each up in an index, however few there are: a plan that
/// reads a table or an index whole is right for the table as it was, and would stay while a backlog builds up. So each
/// statement gets one plan, for to make it anew for each call takes longer than most calls. A process that stands still
/// must not hold what it has locked.
const POSTGRES_SETUP: &str = "SET statement_timeout = '15s'; SET application_name = 'notification-service';
     SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off;
     SET enable_mergejoin = off; SET enable_hashjoin = off; SET random_page_cost = 0.1; SET jit = off;
     SET idle_in_transaction_session_timeout = '20s';";
/// Plans are as old as their connection: what was planned for a small table is not kept for a large one.
const POSTGRES_LIFETIME: Duration = Duration::from_secs(20);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL or the folder in it is wrong: trying again will not help.
    #[error("DATABASE_URL: {0}")]
    Unusable(String),
    /// It does not answer; it may later.
    #[error("the database does not answer (DATABASE_URL): {0}")]
    Unreachable(String),
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pub(super) dialect: Dialect,
    /// Reads, and on PostgreSQL writes as well.
    pub(super) read: AnyPool,
    /// SQLite has one writer; a pool of one makes writers queue here instead of failing there.
    pub(super) write: AnyPool,
    /// As it was given.
    pub(super) url: String,
    /// Who is woken by what happens here.
    pub(super) wakes: Wakes,
    /// What this process put into the outbox.
    pub(super) own_messages: OwnMessages,
}

impl Database {
    /// Opens the database and brings its tables up to date.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn open(url: &str, max_connections: u32) -> Result<Self, DatabaseError> {
        sqlx::any::install_default_drivers();
        let dialect = if url.starts_with("sqlite:") { Dialect::Sqlite } else { Dialect::Postgres };
        let url = match dialect {
            Dialect::Sqlite => prepare_file(url)?,
            Dialect::Postgres => url.to_owned(),
        };
        let options = AnyConnectOptions::from_str(&url)
            .map_err(|e| DatabaseError::Unusable(e.to_string()))?
            .disable_statement_logging();
        let pool = |size: u32, setup: &'static [&'static str]| {
            AnyPoolOptions::new()
                .max_connections(size)
                .acquire_timeout(ACQUIRE_DEADLINE)
                .max_lifetime((dialect == Dialect::Postgres).then_some(POSTGRES_LIFETIME))
                .after_connect(move |connection: &mut AnyConnection, _| {
                    Box::pin(async move {
                        for statements in setup {
                            connection.execute(*statements).await?;
                        }
                        Ok(())
                    })
                })
                .after_release(move |connection: &mut AnyConnection, _| Box::pin(is_fit(connection, dialect)))
                .connect_lazy_with(options.clone())
        };
        let (write, read) = match dialect {
            Dialect::Sqlite => {
                (pool(1, &[SQLITE_SETUP, SQLITE_WRITE_CACHE]), pool(max_connections.max(2), &[SQLITE_SETUP]))
            }
            Dialect::Postgres => {
                let pool = pool(max_connections, &[POSTGRES_SETUP]);
                (pool.clone(), pool)
            }
        };
        let database = Self { dialect, url, read, write, wakes: Wakes::new(), own_messages: OwnMessages::new() };
        database.migrate().await?;
        Ok(database)
    }

    async fn migrate(&self) -> Result<(), DatabaseError> {
        let migrator = match self.dialect {
            Dialect::Postgres => sqlx::migrate!("migrations/postgres"),
            Dialect::Sqlite => sqlx::migrate!("migrations/sqlite"),
        };
        match tokio::time::timeout(MIGRATION_DEADLINE, migrator.run(&self.write)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))) => {
                Err(self.cannot_open(&error))
            }
            Ok(Err(error)) => Err(DatabaseError::Unusable(format!("migrations: {error}"))),
            Err(_) => Err(DatabaseError::Unreachable("migrations take too long".to_owned())),
        }
    }

    fn cannot_open(&self, error: &sqlx::Error) -> DatabaseError {
        // A file that cannot be opened stays so; a server may come up.
        match (self.dialect, error) {
            (Dialect::Sqlite, _) => DatabaseError::Unusable(error.to_string()),
            (_, sqlx::Error::Configuration(_)) => DatabaseError::Unusable(error.to_string()),
            _ => DatabaseError::Unreachable(error.to_string()),
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.write.close().await;
        self.read.close().await;
    }

    /// Begins a transaction that the machine may forget if it dies within moments: the answer does not wait for the disk.
    /// For what nobody relies on before a later transaction is durable, which makes those before it durable too.
    pub(super) async fn begin_lazily(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.write.begin_with(self.dialect.begin_lazily()).await
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.write.begin_with(self.dialect.begin()).await
    }
}

/// What is given back to the pool must still answer, and soon: the pool itself asks without a deadline, and a network
/// that swallows packets would keep every connection, that of an operation given up long ago included, for minutes.
async fn is_fit(connection: &mut AnyConnection, dialect: Dialect) -> Result<bool, sqlx::Error> {
    let silent = |_| sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut));
    let answer = async {
        match dialect {
            Dialect::Postgres => connection.ping().await,
            // A transaction that may be lost leaves the connection like this.
            Dialect::Sqlite => connection.execute("PRAGMA synchronous = FULL").await.map(drop),
        }
    };
    tokio::time::timeout(ALIVE_DEADLINE, answer).await.map_err(silent)?.map(|()| true)
}

/// Gives an operation its deadline and its error.
pub(super) async fn bounded<T>(operation: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LedgerError> {
    match tokio::time::timeout(OPERATION_DEADLINE, operation).await {
        Ok(result) => result.map_err(|error| classify(&error)),
        Err(_) => Err(LedgerError::Unavailable(format!("no answer within {} s", OPERATION_DEADLINE.as_secs()))),
    }
}

/// Content that the database refuses (SQLSTATE classes 22, 23 and 54: data, constraints, limits) will be refused for
/// ever; anything else may pass.
fn classify(error: &sqlx::Error) -> LedgerError {
    let refused = matches!(error, sqlx::Error::Encode(_))
        || error
            .as_database_error()
            .and_then(|e| e.code())
            .is_some_and(|code| code.len() == 5 && ["22", "23", "54"].iter().any(|class| code.starts_with(class)));
    if refused { LedgerError::Rejected(error.to_string()) } else { LedgerError::Unavailable(error.to_string()) }
}

/// A statement that was put together from constants.
pub(super) fn sql(text: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(text)
}

fn prepare_file(url: &str) -> Result<String, DatabaseError> {
    let rest = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path.is_empty() || path == ":memory:" {
        return Err(DatabaseError::Unusable("a file is needed, such as sqlite://data/notifications.db".to_owned()));
    }
    let file = Path::new(path);
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unusable = |e: std::io::Error| DatabaseError::Unusable(format!("{}: {e}", file.display()));
    std::fs::create_dir_all(folder).map_err(unusable)?;
    // SQLite reports a read-only folder only when it writes, and in words that do not name it.
    std::fs::OpenOptions::new().create(true).append(true).open(file).map_err(unusable)?;
    let probe = folder.join(format!(".{}.write-check", file.file_name().map_or("db".into(), |n| n.to_string_lossy())));
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(unusable)?;
    let separator = if query.is_empty() { "" } else { "&" };
    Ok(format!("sqlite://{path}?{query}{separator}mode=rwc"))
}

#[async_trait]
impl Probe for Database {
    async fn check(&self, deadline: Duration) -> Result<(), String> {
        let ask = sqlx::query("SELECT 1").execute(&self.read);
        match tokio::time::timeout(deadline, ask).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} ms", deadline.as_millis())),
        }
    }
}
