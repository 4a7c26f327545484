//! Settled notifications leave the ledger in small steps; their counts stay. So do dead letters that were dealt with.

use jiff::Timestamp;
use sqlx::query;

use super::contents::{list, seqs_of};
use super::database::{Database, bounded, sql};
use super::rows::millis;
use crate::ports::ledger::LedgerError;

pub(super) async fn retire(database: &Database, before: Timestamp, limit: usize) -> Result<u64, LedgerError> {
    let choose = format!(
        "SELECT seq FROM notifications WHERE settled_at < $1 ORDER BY settled_at LIMIT $2 {}",
        database.dialect.skip_locked()
    );
    let rows = database.dialect.seqs();
    let day = 24 * 3600 * 1000;
    let count = format!(
        "INSERT INTO notification_totals (day, channel, template, state, total)
         SELECT n.settled_at - n.settled_at % {day}, n.channel, q.template, n.state, COUNT(*)
         FROM {rows} JOIN notifications n ON n.seq = r.seq JOIN requests q ON q.seq = n.seq WHERE true
         GROUP BY 1, 2, 3, 4
         ON CONFLICT (day, channel, template, state) DO UPDATE SET total = notification_totals.total + excluded.total"
    );
    let delete = |table: &str| format!("DELETE FROM {table} WHERE seq {}", database.dialect.among_seqs());
    let inbox = "DELETE FROM inbox WHERE seq IN (
             SELECT seq FROM (SELECT seq, created_at FROM inbox ORDER BY seq LIMIT $2) AS oldest WHERE created_at < $1)";
    // What was emptied stays: the letter may be read from its topic again, and with it what was erased. And it is asked
    // twice, for a letter may be opened again in between.
    let finished = "state <> 'open' AND letter <> '{}' AND recorded_at < $1";
    let oldest = format!("SELECT id FROM dead_letters WHERE {finished} ORDER BY recorded_at LIMIT $2");
    let letters = format!("DELETE FROM dead_letters WHERE {finished} AND id {}", database.dialect.among(&oldest));
    bounded(async {
        query(inbox).bind(millis(before)).bind(limit as i64).execute(&database.write).await?;
        // What was on its way when somebody was erased has arrived by now.
        query("DELETE FROM erasures WHERE erased_at < $1").bind(millis(before)).execute(&database.write).await?;
        query(sql(letters)).bind(millis(before)).bind(limit as i64).execute(&database.write).await?;
        let mut tx = database.begin().await?;
        let found = query(sql(choose)).bind(millis(before)).bind(limit as i64).fetch_all(&mut *tx).await?;
        if found.is_empty() {
            return Ok(0);
        }
        let seqs = list(&seqs_of(&found)?);
        query(sql(count)).bind(seqs.clone()).execute(&mut *tx).await?;
        // The requests first: whoever inserts a copy of one locks it before it looks for its notification.
        for table in ["requests", "attempts", "notifications"] {
            query(sql(delete(table))).bind(seqs.clone()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(found.len() as u64)
    })
    .await
}
