//! What is not settled, counted.

use sqlx::any::AnyRow;
use sqlx::{Error, Row as _, query};

use super::database::{Database, bounded, sql};
use super::rows::{bad_column, state, timestamp};
use crate::ports::ledger::{LedgerError, Unsettled};

/// Each state in the words of the index that has it, and the column with its due time.
const STATES: [(&str, &str); 3] = [
    ("state IN ('pending', 'retrying')", "next_attempt_at"),
    ("state = 'awaiting_contact'", "CAST(NULL AS BIGINT)"),
    ("state = 'sending'", "CAST(NULL AS BIGINT)"),
];

pub(super) async fn unsettled(database: &Database) -> Result<Vec<Unsettled>, LedgerError> {
    let counts = STATES.map(|(states, due)| {
        format!(
            "SELECT channel, state, COUNT(*) AS waiting, MIN({due}) AS due
             FROM notifications WHERE {states} GROUP BY channel, state"
        )
    });
    bounded(async {
        let rows = query(sql(counts.join(" UNION ALL "))).fetch_all(&database.read).await?;
        rows.iter().map(counted).collect()
    })
    .await
}

fn counted(row: &AnyRow) -> Result<Unsettled, Error> {
    let channel: String = row.try_get("channel")?;
    Ok(Unsettled {
        channel: channel.parse().map_err(|e| bad_column("channel", format!("{e}")))?,
        state: state(row)?,
        count: row.try_get::<i64, _>("waiting")?.unsigned_abs(),
        due: row.try_get::<Option<i64>, _>("due")?.map(timestamp),
    })
}
