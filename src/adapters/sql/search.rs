//! Looking through the ledger.

use sqlx::any::AnyRow;
use sqlx::{Row as _, query};

use super::database::{Database, bounded, sql};
use super::rows::{millis, view};
use crate::ports::ledger::{LedgerError, NotificationView, Search};

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
    let statement = format!("SELECT * FROM notifications {narrowed} ORDER BY seq DESC LIMIT ${}", conditions.len() + 1);
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
        rows.iter().map(row).collect()
    })
    .await
}
