//! Digests: notifications of one recipient and template that are collected and travel as one, which leads them.

use jiff::Timestamp;
use sqlx::{Any, Transaction, query};

use super::database::{Database, bounded, sql};
use super::ledger::id_rows;
use super::rows::millis;
use crate::domain::channel::Channel;
use crate::ports::ledger::LedgerError;

/// Lets new notifications travel with the one of their kind that collects already: the oldest that nobody has touched
/// yet. Without one, the first of them begins to collect.
///
/// Whoever calls this holds the contacts' lock, so that two transactions cannot begin two digests at once. The leader's
/// row is locked: it cannot be claimed while somebody joins it, and one that was claimed is led no more.
pub(super) async fn join(
    database: &Database,
    tx: &mut Transaction<'static, Any>,
    ids: &[&str],
) -> Result<(), sqlx::Error> {
    let same = |other: &str| {
        format!(
            "{other}.recipient = n.recipient AND {other}.channel = n.channel AND {other}.template = n.template
             AND {other}.state = 'pending' AND {other}.attempts = 0 AND {other}.digest_id IS NULL
             AND {other}.settled_at IS NULL"
        )
    };
    let fresh = format!(
        "SELECT n.seq AS seq FROM {} JOIN notifications n ON n.id = r.id
         WHERE n.state = 'pending' AND n.attempts = 0 AND n.digest_id IS NULL AND n.recipient IS NOT NULL
         ORDER BY n.seq",
        database.dialect.rows(&[("id", "text")])
    );
    let leader = format!(
        "SELECT l.id AS id FROM notifications n JOIN notifications l ON {} AND l.seq < n.seq
         WHERE n.seq = $1 ORDER BY l.seq LIMIT 1 {}",
        same("l"),
        database.dialect.for_update_of("l")
    );
    let follow = "UPDATE notifications SET digest_id = $2, next_attempt_at = NULL WHERE seq = $1";
    let rows = query(sql(fresh)).bind(id_rows(ids.iter().copied())).fetch_all(&mut **tx).await?;
    for row in rows {
        let seq: i64 = sqlx::Row::try_get(&row, "seq")?;
        if let Some(found) = query(sql(leader.clone())).bind(seq).fetch_optional(&mut **tx).await? {
            let leader: String = sqlx::Row::try_get(&found, "id")?;
            query(follow).bind(seq).bind(leader).execute(&mut **tx).await?;
        }
    }
    Ok(())
}

/// Lets followers go on whose leader is settled without them: the first of them leads the others now.
pub(super) async fn release(database: &Database, channel: Channel, now: Timestamp) -> Result<u64, LedgerError> {
    let statement = "UPDATE notifications
         SET digest_id = CASE WHEN notifications.seq = g.head THEN NULL ELSE g.leader END,
             next_attempt_at = CASE WHEN notifications.seq = g.head THEN $1 ELSE NULL END
         FROM (SELECT head.digest_id AS gone, head.seq AS head, head.id AS leader
               FROM (SELECT MIN(f.seq) AS seq FROM notifications f
                     WHERE f.digest_id IS NOT NULL AND f.settled_at IS NULL AND f.state IN ('pending', 'retrying')
                       AND f.channel = $2
                       AND NOT EXISTS (SELECT 1 FROM notifications l WHERE l.id = f.digest_id AND l.settled_at IS NULL)
                     GROUP BY f.digest_id) AS orphans
               JOIN notifications head ON head.seq = orphans.seq) AS g
         WHERE notifications.digest_id = g.gone AND notifications.settled_at IS NULL
           AND notifications.state IN ('pending', 'retrying')";
    bounded(async {
        let released = query(statement).bind(millis(now)).bind(channel.as_str()).execute(&database.write).await?;
        Ok(released.rows_affected())
    })
    .await
}
