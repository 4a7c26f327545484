//! A PostgreSQL database of the test's own, which ends with it.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use url::Url;

use super::servers::required;
use super::{runtime, unique};

pub struct Database {
    pub url: String,
    name: String,
    server: String,
}

impl Database {
    pub fn fresh() -> Self {
        let server = required("TEST_DATABASE_URL");
        let name = format!("it_{}", unique());
        execute(&server, format!("CREATE DATABASE {name}")).unwrap_or_else(|e| panic!("TEST_DATABASE_URL: {e}"));
        let mut url = Url::parse(&server).expect("TEST_DATABASE_URL is a URL");
        url.set_path(&name);
        Self { url: url.into(), name, server }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(error) = execute(&self.server, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)) {
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
