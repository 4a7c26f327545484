//! A database that nobody else uses, and looks into it from outside of the service.

use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use notification_service::adapters::sql::Database;
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _};
use uuid::Uuid;

/// The default of `database.max_connections`.
const CONNECTIONS: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Sqlite,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

/// With tables and nothing in them. To be closed: a PostgreSQL database would stay.
pub struct Fresh {
    pub kind: Kind,
    pub url: String,
    server: Option<(String, String)>,
    _folder: Option<tempfile::TempDir>,
}

impl Fresh {
    pub async fn create(kind: Kind) -> Result<Self> {
        if kind == Kind::Sqlite {
            let folder = tempfile::tempdir()?;
            let url = format!("sqlite://{}", folder.path().join("notifications.db").display());
            return Ok(Self { kind, url, server: None, _folder: Some(folder) });
        }
        let server = std::env::var("TEST_DATABASE_URL")
            .context("TEST_DATABASE_URL is not set: run scripts/bench-delivery.sh, which starts a PostgreSQL")?;
        let name = format!("bench_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&server).await.context("PostgreSQL")?;
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
        let mut url = url::Url::parse(&server)?;
        url.set_path(&name);
        Ok(Self { kind, url: url.into(), server: Some((server, name)), _folder: None })
    }

    pub async fn open(&self) -> Result<Database> {
        Ok(Database::open(&self.url, CONNECTIONS).await?)
    }

    /// One more connection, with the settings of the service's own.
    pub async fn connect(&self) -> Result<AnyConnection> {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnectOptions::from_str(&self.url)?.disable_statement_logging().connect().await?;
        if self.kind == Kind::Sqlite {
            let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000;";
            connection.execute(settings).await?;
        }
        Ok(connection)
    }

    pub async fn close(self) -> Result<()> {
        if let Some((server, name)) = self.server {
            let mut admin = PgConnection::connect(&server).await?;
            admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
        }
        Ok(())
    }
}

/// What the tables say in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    pub notifications: i64,
    pub sent: i64,
    pub accepted_attempts: i64,
    pub attempts: i64,
    pub outbox: i64,
}

impl Contents {
    pub async fn read(connection: &mut AnyConnection) -> Result<Self> {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM notifications) AS notifications,
                    (SELECT COUNT(*) FROM notifications WHERE state = 'sent') AS sent,
                    (SELECT COUNT(*) FROM attempts WHERE outcome = 'accepted') AS accepted_attempts,
                    (SELECT COUNT(*) FROM attempts) AS attempts,
                    (SELECT COUNT(*) FROM outbox) AS outbox",
        )
        .fetch_one(connection)
        .await?;
        Ok(Self {
            notifications: row.try_get("notifications")?,
            sent: row.try_get("sent")?,
            accepted_attempts: row.try_get("accepted_attempts")?,
            attempts: row.try_get("attempts")?,
            outbox: row.try_get("outbox")?,
        })
    }
}

impl std::fmt::Display for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { notifications, sent, accepted_attempts, attempts, outbox } = self;
        write!(
            f,
            "{sent} of {notifications} notifications sent, {accepted_attempts} of {attempts} attempts accepted, \
             {outbox} messages in the outbox"
        )
    }
}
