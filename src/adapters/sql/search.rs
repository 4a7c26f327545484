//! Looking through the ledger.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{Row as _, query};

use super::database::{Database, bounded, sql};
use super::ledger::id_rows;
use super::rows::{VIEW_COLUMNS, attempt, millis, view};
use crate::ports::ledger::{AttemptView, LedgerError, NotificationView, Search};

/// A condition and the value that it is bound to.
enum Value {
    Text(String),
    Number(i64),
}

fn conditions(search: &Search) -> Vec<(&'static str, Value)> {
    let text = |column, value: &Option<String>| value.clone().map(|value| (column, Value::Text(value)));
    let number = |column, value: Option<i64>| value.map(|value| (column, Value::Number(value)));
    [
        search.state.map(|state| ("state =", Value::Text(state.as_str().to_owned()))),
        search.channel.map(|channel| ("channel =", Value::Text(channel.as_str().to_owned()))),
        text("recipient =", &search.recipient),
        text("template =", &search.template),
        text("causation_id =", &search.causation_id),
        number("created_at >=", search.from.map(millis)),
        number("created_at <", search.to.map(millis)),
        number("seq <", search.before),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) async fn search(database: &Database, search: &Search) -> Result<Vec<(i64, NotificationView)>, LedgerError> {
    let conditions = conditions(search);
    let numbered = conditions.iter().enumerate().map(|(index, (condition, _))| format!("{condition} ${}", index + 1));
    let mut narrowed = numbered.collect::<Vec<_>>().join(" AND ");
    if !narrowed.is_empty() {
        narrowed.insert_str(0, "WHERE ");
    }
    let statement = format!(
        "SELECT {VIEW_COLUMNS} FROM notifications {narrowed} ORDER BY seq DESC LIMIT ${}",
        conditions.len() + 1
    );
    let row = |row: &AnyRow| Ok((row.try_get("seq")?, view(row)?));
    bounded(async {
        let mut query = query(sql(statement));
        for (_, value) in conditions {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
            };
        }
        let rows = query.bind(search.limit as i64).fetch_all(&database.read).await?;
        let mut found = rows.iter().map(row).collect::<Result<Vec<(i64, NotificationView)>, sqlx::Error>>()?;
        with_attempts(database, &mut found).await?;
        Ok(found)
    })
    .await
}

async fn with_attempts(database: &Database, found: &mut [(i64, NotificationView)]) -> Result<(), sqlx::Error> {
    let statement = format!(
        "SELECT a.* FROM {} JOIN notification_attempts a ON a.notification_id = r.id ORDER BY a.number",
        database.dialect.rows(&[("id", "text")])
    );
    let ids = id_rows(found.iter().map(|(_, view)| view.id.as_str()));
    let rows = query(sql(statement)).bind(ids).fetch_all(&database.read).await?;
    let mut attempts: HashMap<String, Vec<AttemptView>> = HashMap::new();
    for row in &rows {
        attempts.entry(row.try_get("notification_id")?).or_default().push(attempt(row)?);
    }
    for (_, view) in found {
        view.attempts = attempts.remove(&view.id).unwrap_or_default();
    }
    Ok(())
}
