//! Looking through the ledger.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{Row as _, query};

use super::contents::list;
use super::database::{Database, bounded, sql};
use super::dialect::Dialect;
use super::rows::{VIEW_COLUMNS, attempt, millis, view};
use crate::ports::ledger::{AttemptView, LedgerError, NotificationView, Search, State};

/// A condition and the value that it is bound to.
enum Value {
    Text(String),
    Number(i64),
}

fn conditions(search: &Search) -> Vec<(&'static str, Value)> {
    let text = |column, value: &Option<String>| value.clone().map(|value| (column, Value::Text(value)));
    let number = |column, value: Option<i64>| value.map(|value| (column, Value::Number(value)));
    [
        search.channel.map(|channel| ("n.channel =", Value::Text(channel.as_str().to_owned()))),
        text("q.recipient =", &search.recipient),
        text("q.template =", &search.template),
        text("q.causation_id =", &search.causation_id),
        number("q.created_at >=", search.from.map(millis)),
        number("q.created_at <", search.to.map(millis)),
        number("n.seq <", search.before),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// That a notification is in a state, in the words of the index that has those in it. Those that were sent are most of
/// all: they are found without one.
fn in_state(state: State) -> String {
    let those_indexed = match state {
        State::Pending | State::Retrying => "n.state IN ('pending', 'retrying')",
        State::Sending => "n.state = 'sending'",
        State::AwaitingContact => "n.state = 'awaiting_contact'",
        State::Failed | State::Suppressed | State::Expired | State::Cancelled => {
            "n.state IN ('failed', 'suppressed', 'expired', 'cancelled')"
        }
        State::Sent => return "n.state = 'sent'".to_owned(),
    };
    format!("n.state = '{}' AND {those_indexed}", state.as_str())
}

pub(super) async fn search(database: &Database, search: &Search) -> Result<Vec<(i64, NotificationView)>, LedgerError> {
    let conditions = conditions(search);
    let numbered = conditions.iter().enumerate().map(|(index, (condition, _))| format!("{condition} ${}", index + 1));
    let mut narrowed = numbered.chain(search.state.map(in_state)).collect::<Vec<_>>().join(" AND ");
    if !narrowed.is_empty() {
        narrowed.insert_str(0, "WHERE ");
    }
    // SQLite has no statistics: it would go through all in their order rather than sort the few that wait.
    let waits = search.state.is_some_and(|state| !state.is_settled());
    let order = if waits && database.dialect == Dialect::Sqlite { "+n.seq" } else { "n.seq" };
    let statement = format!(
        "SELECT {VIEW_COLUMNS} FROM requests q JOIN notifications n ON n.seq = q.seq {narrowed}
         ORDER BY {order} DESC LIMIT ${}",
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
    let statement =
        format!("SELECT a.* FROM {} JOIN attempts a ON a.seq = r.seq ORDER BY a.number", database.dialect.seqs());
    let seqs: Vec<i64> = found.iter().map(|(seq, _)| *seq).collect();
    let rows = query(sql(statement)).bind(list(&seqs)).fetch_all(&database.read).await?;
    let mut attempts: HashMap<i64, Vec<AttemptView>> = HashMap::new();
    for row in &rows {
        attempts.entry(row.try_get("seq")?).or_default().push(attempt(row)?);
    }
    for (seq, view) in found {
        view.attempts = attempts.remove(seq).unwrap_or_default();
    }
    Ok(())
}
