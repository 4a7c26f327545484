//! A database of the test's own, which ends with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, query};
use url::Url;

use super::servers::required;
use super::{runtime, unique, wait};

/// The databases that the service works on.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Postgres,
    Sqlite,
}

pub struct Database {
    pub url: String,
    name: String,
    /// Where it is to be dropped; a file goes with its folder.
    server: Option<String>,
}

/// A row of the table of dead letters.
#[derive(Debug)]
pub struct LetterRow {
    pub id: String,
    pub stage: String,
    pub error_class: String,
    pub error_code: String,
    pub fingerprint: String,
    pub event_type: Option<String>,
    pub reason: String,
    pub retry_count: i64,
    pub original_topic: String,
    pub original_partition: Option<i64>,
    pub original_offset: Option<i64>,
    pub first_failure_at: Option<i64>,
    pub last_failure_at: Option<i64>,
    pub letter: String,
    pub payload: Option<Vec<u8>>,
    pub state: String,
    pub recorded_at: i64,
}

/// What the ledger says of a notification.
#[derive(Debug)]
pub struct Fate {
    pub state: String,
    /// Of its attempts, in their order.
    pub outcomes: Vec<String>,
}

impl From<AnyRow> for LetterRow {
    fn from(row: AnyRow) -> Self {
        Self {
            id: row.get("id"),
            stage: row.get("stage"),
            error_class: row.get("error_class"),
            error_code: row.get("error_code"),
            fingerprint: row.get("fingerprint"),
            event_type: row.get("event_type"),
            reason: row.get("reason"),
            retry_count: row.get("retry_count"),
            original_topic: row.get("original_topic"),
            original_partition: row.get("original_partition"),
            original_offset: row.get("original_offset"),
            first_failure_at: row.get("first_failure_at"),
            last_failure_at: row.get("last_failure_at"),
            letter: row.get("letter"),
            payload: row.get("payload"),
            state: row.get("state"),
            recorded_at: row.get("recorded_at"),
        }
    }
}

impl Database {
    /// One on the server of the tests.
    pub fn fresh() -> Self {
        let server = required("TEST_DATABASE_URL");
        let name = format!("it_{}", unique());
        execute(&server, format!("CREATE DATABASE {name}")).unwrap_or_else(|e| panic!("TEST_DATABASE_URL: {e}"));
        let mut url = Url::parse(&server).expect("TEST_DATABASE_URL is a URL");
        url.set_path(&name);
        Self { url: url.into(), name, server: Some(server) }
    }

    /// A file in this folder, which the service makes.
    pub fn file(folder: &Path) -> Self {
        let name = folder.join("notifications.db").display().to_string();
        Self { url: format!("sqlite://{name}"), name, server: None }
    }

    /// The table of dead letters, in the order of their arrival.
    #[track_caller]
    pub fn dead_letters(&self) -> Vec<LetterRow> {
        let rows = self.ask("SELECT * FROM dead_letters ORDER BY recorded_at, id");
        rows.unwrap_or_else(|e| panic!("{}: {e}", self.name)).into_iter().map(LetterRow::from).collect()
    }

    /// How many dead letters are in the table.
    #[track_caller]
    pub fn dead_letter_count(&self) -> usize {
        self.count("SELECT count(*) FROM dead_letters")
    }

    /// What became of each notification: for more of them than can be asked for one by one.
    #[track_caller]
    pub fn fates(&self) -> BTreeMap<String, Fate> {
        let question = "SELECT q.id AS id, n.state AS state,
                 (SELECT string_agg(COALESCE(a.outcome, 'under way'), ',' ORDER BY a.number)
                  FROM attempts a WHERE a.seq = n.seq) AS outcomes
             FROM notifications n JOIN requests q ON q.seq = n.seq";
        let rows = self.ask(question).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let fate = |row: AnyRow| {
            let outcomes: Option<String> = row.get("outcomes");
            let outcomes = outcomes.iter().flat_map(|all| all.split(',')).map(str::to_owned).collect();
            (row.get("id"), Fate { state: row.get("state"), outcomes })
        };
        rows.into_iter().map(fate).collect()
    }

    /// How many notifications are not settled.
    #[track_caller]
    pub fn unsettled(&self) -> usize {
        self.count("SELECT count(*) FROM notifications WHERE settled_at IS NULL")
    }

    #[track_caller]
    pub fn wait_until_settled(&self, within: Duration) {
        wait::until("everything is settled", within, || (self.unsettled() == 0).then_some(()));
    }

    /// False while the server is away.
    pub fn answers(&self) -> bool {
        self.ask("SELECT 1").is_ok()
    }

    /// How many events are claimed and not yet processed.
    #[track_caller]
    pub fn claimed_events(&self) -> usize {
        self.count("SELECT count(*) FROM processed_events WHERE owner IS NOT NULL")
    }

    #[track_caller]
    fn count(&self, question: &'static str) -> usize {
        let rows = self.ask(question).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        usize::try_from(rows[0].get::<i64, _>(0)).expect("a count")
    }

    fn ask(&self, question: &'static str) -> Result<Vec<AnyRow>, sqlx::Error> {
        sqlx::any::install_default_drivers();
        runtime().block_on(async {
            let mut connection = AnyConnection::connect(&self.url).await?;
            let rows = query(question).fetch_all(&mut connection).await?;
            connection.close().await?;
            Ok(rows)
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(server) = &self.server else { return };
        if let Err(error) = execute(server, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)) {
            eprintln!("database {} stays behind: {error}", self.name);
        }
    }
}

fn execute(server: &str, statement: String) -> Result<(), sqlx::Error> {
    runtime().block_on(async {
        let mut connection = PgConnection::connect(server).await?;
        connection.execute(AssertSqlSafe(statement)).await?;
        connection.close().await
    })
}
