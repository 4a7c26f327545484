//! `migrate`.

use std::path::Path;

use super::{CliError, context};
use crate::adapters::sql::Database;

pub fn run(file: Option<&Path>) -> Result<(), CliError> {
    let config = context::load(file)?;
    context::logs(&config);
    context::runtime()?.block_on(async {
        let database = Database::open(config.database.url.expose(), config.database.max_connections).await;
        let database = database.map_err(|e| CliError::Failed(e.to_string()))?;
        database.close().await;
        println!("the tables are up to date in {}", config.database.url.masked());
        Ok(())
    })
}
