//! What is not settled, counted.

use sqlx::any::AnyRow;
use sqlx::{Error, Row as _, query};

use super::database::{Database, bounded, sql};
use super::rows::bad_column;
use crate::domain::channel::Channel;
use crate::ports::ledger::{LedgerError, State, Unsettled};

/// States that one index has together: by channel, which it begins with, so that nothing is sorted.
const TOGETHER: [(&[State], &str); 3] = [
    (&[State::Pending, State::Retrying], "state IN ('pending', 'retrying')"),
    (&[State::AwaitingContact], "state = 'awaiting_contact'"),
    (&[State::Sending], "state = 'sending'"),
];

pub(super) async fn unsettled(database: &Database) -> Result<Vec<Unsettled>, LedgerError> {
    let mut found = Vec::new();
    for (states, condition) in TOGETHER {
        let counts = states.iter().map(|state| {
            let state = state.as_str();
            format!("SUM(CASE WHEN state = '{state}' THEN 1 ELSE 0 END) AS {state}")
        });
        let counts = counts.collect::<Vec<_>>().join(", ");
        let statement = format!("SELECT channel, {counts} FROM notifications WHERE {condition} GROUP BY channel");
        let rows = bounded(async {
            let rows = query(sql(statement)).fetch_all(&database.read).await?;
            rows.iter().map(|row| counted(row, states)).collect::<Result<Vec<_>, _>>()
        });
        found.extend(rows.await?.into_iter().flatten());
    }
    Ok(found)
}

fn counted(row: &AnyRow, states: &[State]) -> Result<Vec<Unsettled>, Error> {
    let channel: String = row.try_get("channel")?;
    let channel: Channel = channel.parse().map_err(|e| bad_column("channel", format!("{e}")))?;
    let counts = states.iter().map(|state| {
        let count = row.try_get::<i64, _>(state.as_str())?.unsigned_abs();
        Ok(Unsettled { channel, state: *state, count })
    });
    counts.filter(|part| part.as_ref().is_ok_and(|part| part.count > 0) || part.is_err()).collect()
}
