//! Settled notifications leave the ledger in small steps; their counts stay.

use jiff::Timestamp;
use sqlx::{Row as _, query};

use super::database::{Database, bounded, sql};
use super::ledger::id_rows;
use super::rows::millis;
use crate::ports::ledger::LedgerError;

pub(super) async fn retire(database: &Database, before: Timestamp, limit: usize) -> Result<u64, LedgerError> {
    let choose = format!(
        "SELECT id FROM notifications WHERE settled_at < $1 ORDER BY settled_at LIMIT $2 {}",
        database.dialect.skip_locked()
    );
    let rows = database.dialect.rows(&[("id", "text")]);
    let day = 24 * 3600 * 1000;
    let count = format!(
        "INSERT INTO notification_totals (day, channel, template, state, total)
         SELECT n.settled_at - n.settled_at % {day}, n.channel, n.template, n.state, COUNT(*)
         FROM {rows} JOIN notifications n ON n.id = r.id WHERE true
         GROUP BY 1, 2, 3, 4
         ON CONFLICT (day, channel, template, state) DO UPDATE SET total = notification_totals.total + excluded.total"
    );
    let delete = |table: &str, column: &str| format!("DELETE FROM {table} WHERE {column} IN (SELECT r.id FROM {rows})");
    let inbox = "DELETE FROM inbox WHERE seq IN (
             SELECT seq FROM (SELECT seq, created_at FROM inbox ORDER BY seq LIMIT $2) AS oldest WHERE created_at < $1)";
    bounded(async {
        query(inbox).bind(millis(before)).bind(limit as i64).execute(&database.write).await?;
        let mut tx = database.begin().await?;
        let found = query(sql(choose)).bind(millis(before)).bind(limit as i64).fetch_all(&mut *tx).await?;
        if found.is_empty() {
            return Ok(0);
        }
        let ids = found.iter().map(|row| row.try_get("id")).collect::<Result<Vec<String>, _>>()?;
        let ids = id_rows(ids.iter().map(String::as_str));
        query(sql(count)).bind(ids.clone()).execute(&mut *tx).await?;
        query(sql(delete("notification_attempts", "notification_id"))).bind(ids.clone()).execute(&mut *tx).await?;
        query(sql(delete("notifications", "id"))).bind(ids).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(found.len() as u64)
    })
    .await
}
