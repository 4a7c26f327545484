//! Digests: notifications of one recipient and template that are collected and travel as one, which leads them.

use jiff::Timestamp;
use sqlx::{Any, Row as _, Transaction, query};

use super::database::{Database, bounded, sql};
use super::ledger::id_rows;
use super::rows::millis;
use crate::domain::channel::Channel;
use crate::ports::ledger::{LedgerError, NewNotification};

/// Lets new notifications travel with the one of their kind that collects already: the oldest that nobody has touched
/// yet, and that the same rules hold for. It leaves when the first of them would have: batches that are inserted at the
/// same moment may come in either order. Without one, the first of them begins to collect. One that has a time of its own
/// travels with nobody.
///
/// Whoever calls this holds the contacts' lock, so that two transactions cannot begin two digests at once. The leader's
/// row is locked: it cannot be claimed while somebody joins it, and one that was claimed is led no more.
pub(super) async fn join(
    database: &Database,
    tx: &mut Transaction<'static, Any>,
    batch: &[&NewNotification],
) -> Result<(), sqlx::Error> {
    let ids: Vec<&str> =
        batch.iter().filter(|new| new.collected_until().is_some()).map(|new| new.request.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let untouched = |row: &str| format!("{row}.state = 'pending' AND {row}.attempts = 0 AND {row}.digest_id IS NULL");
    let fresh = format!(
        "SELECT n.seq AS seq, n.next_attempt_at AS due FROM {} JOIN requests q ON q.id = r.id JOIN notifications n ON n.seq = q.seq
         WHERE {} AND n.recipient IS NOT NULL ORDER BY n.seq",
        database.dialect.rows(&[("id", "text")]),
        untouched("n")
    );
    let leader = format!(
        "SELECT l.seq AS seq, lq.id AS id FROM notifications n JOIN requests q ON q.seq = n.seq
         JOIN notifications l ON l.recipient = n.recipient AND l.channel = n.channel
             AND l.collects = 1 AND l.settled_at IS NULL
             AND l.seq < n.seq AND {}
         JOIN requests lq ON lq.seq = l.seq AND lq.template = q.template AND lq.category = q.category
             AND lq.critical = q.critical
         WHERE n.seq = $1 AND NOT EXISTS (SELECT 1 FROM notifications f
                                          WHERE f.digest_id = q.id AND f.settled_at IS NULL)
         ORDER BY l.seq LIMIT 1 {}",
        untouched("l"),
        database.dialect.for_update_of("l")
    );
    let follow = format!(
        "UPDATE notifications SET digest_id = $2, next_attempt_at = NULL WHERE seq = $1 AND {}",
        untouched("notifications")
    );
    let hurry = "UPDATE notifications SET next_attempt_at = $2 WHERE seq = $1 AND next_attempt_at > $2";
    let rows = query(sql(fresh)).bind(id_rows(ids.iter().copied())).fetch_all(&mut **tx).await?;
    for row in rows {
        let seq: i64 = row.try_get("seq")?;
        if let Some(found) = query(sql(leader.clone())).bind(seq).fetch_optional(&mut **tx).await? {
            let leader: String = found.try_get("id")?;
            query(sql(follow.clone())).bind(seq).bind(leader).execute(&mut **tx).await?;
            let (leads, due): (i64, i64) = (found.try_get("seq")?, row.try_get("due")?);
            query(hurry).bind(leads).bind(due).execute(&mut **tx).await?;
        }
    }
    Ok(())
}

/// Lets followers go on whose leader is settled without them: the first of them leads the others now.
pub(super) async fn release(database: &Database, channel: Channel, now: Timestamp) -> Result<u64, LedgerError> {
    // The inner condition on the state is not that of the index of what is due, or SQLite would go through all of it.
    let statement = "UPDATE notifications
         SET digest_id = CASE WHEN notifications.seq = g.head THEN NULL ELSE g.leader END,
             next_attempt_at = CASE WHEN notifications.seq = g.head THEN $1 ELSE NULL END
         FROM (SELECT head.digest_id AS gone, head.seq AS head, q.id AS leader
               FROM (SELECT MIN(f.seq) AS seq FROM notifications f
                     WHERE f.digest_id IS NOT NULL AND f.settled_at IS NULL
                       AND f.state NOT IN ('sending', 'awaiting_contact')
                       AND f.channel = $2
                       AND NOT EXISTS (SELECT 1 FROM requests lq JOIN notifications l ON l.seq = lq.seq
                                       WHERE lq.id = f.digest_id AND l.settled_at IS NULL)
                     GROUP BY f.digest_id) AS orphans
               JOIN notifications head ON head.seq = orphans.seq JOIN requests q ON q.seq = head.seq) AS g
         WHERE notifications.digest_id = g.gone AND notifications.settled_at IS NULL
           AND notifications.state IN ('pending', 'retrying')";
    bounded(async {
        let released = query(statement).bind(millis(now)).bind(channel.as_str()).execute(&database.write).await?;
        Ok(released.rows_affected())
    })
    .await
}
