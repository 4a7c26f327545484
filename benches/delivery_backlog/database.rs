//! A database that nobody else uses, and looks into it from outside of the service.

use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use notification_service::adapters::sql::Database;
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::machine::{progress, thousands};

/// The default of `database.max_connections`.
pub const CONNECTIONS: u32 = 10;

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

/// Settled notifications that are made at once.
const STEP: u64 = 250_000;

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

    /// Puts settled notifications into the ledger, all sent within the last day.
    pub async fn settle(&self, notifications: u64) -> Result<()> {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        let numbers = match self.kind {
            Kind::Postgres => "SELECT n FROM generate_series($1::bigint, $2::bigint) AS n".to_owned(),
            Kind::Sqlite => "WITH RECURSIVE numbers(n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $2)
                 SELECT n FROM numbers"
                .to_owned(),
        };
        let began = jiff::Timestamp::now().as_millisecond() - DAY_MS as i64;
        let at = format!("{began} + n * {DAY_MS} / {notifications}");
        let requests = format!(
            "INSERT INTO requests (seq, id, aggregate_id, recipient, template, category, correlation_id, causation_id,
                 caused_at, created_at, request, origin_topic, headers)
             SELECT n, 'settled-' || n, 'order', 'customer-' || n % 100000, 'order_confirmation', 'transactional', 'c',
                 'event-' || n, {at}, {at}, '{{}}', 'notification-events', '[]' FROM ({numbers}) AS numbers"
        );
        let ends = format!(
            "INSERT INTO notifications (seq, channel, recipient, state, attempts, settled_at)
             SELECT n, 'email', 'customer-' || n % 100000, 'sent', 1, {at} FROM ({numbers}) AS numbers"
        );
        let mut connection = self.connect().await?;
        for from in (1..=notifications).step_by(STEP as usize) {
            let to = notifications.min(from + STEP - 1);
            for statement in [&requests, &ends] {
                let insert = sqlx::query(AssertSqlSafe(statement.clone())).bind(from as i64).bind(to as i64);
                insert.execute(&mut connection).await?;
            }
            progress(&format!("{} of {} settled notifications", thousands(to), thousands(notifications)));
        }
        if self.kind == Kind::Postgres && notifications > 0 {
            let next = "SELECT setval(pg_get_serial_sequence('requests', 'seq'), (SELECT MAX(seq) FROM requests))";
            connection.execute(next).await?;
            connection.execute("VACUUM ANALYZE").await?;
        }
        connection.close().await?;
        Ok(())
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
