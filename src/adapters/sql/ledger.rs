//! The notification ledger over SQL.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{AnyConnection, Row as _, query};
use tokio::sync::watch;

use super::database::{Database, bounded, sql};
use super::insert::{insert, text};
use super::rows::{VIEW_COLUMNS, attempt, millis, state, timestamp, view};
use super::settle::settle;
use super::wake::Wake;
use super::{claims, digests, letters, preferences, retention, search, seize, superseded, wake};
use crate::domain::channel::Channel;
use crate::domain::envelope::to_json;
use crate::ports::ledger::{
    AttemptStart, Brief, ClaimRequest, Claimed, Inserted, Lease, LedgerError, NewNotification, NotificationLedger,
    NotificationView, Replaceable, Replacement, Search, Selection, Settlement, State, Verdict,
};

#[derive(Serialize)]
struct IdRow<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct ReportRow<'a> {
    id: &'a str,
    report: &'a str,
}

/// Ids as the JSON of one-column rows.
pub(super) fn id_rows<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let rows: Vec<IdRow<'_>> = ids.map(|id| IdRow { id }).collect();
    text(to_json(&rows))
}

/// A notification with its attempts, as this connection sees it.
async fn shown(connection: &mut AnyConnection, id: &str) -> Result<Option<NotificationView>, sqlx::Error> {
    let statement =
        format!("SELECT {VIEW_COLUMNS} FROM requests q JOIN notifications n ON n.seq = q.seq WHERE q.id = $1");
    let found = query(sql(statement)).bind(id.to_owned()).fetch_optional(&mut *connection).await?;
    let Some(row) = found else { return Ok(None) };
    let mut view = view(&row)?;
    let attempts = query("SELECT * FROM attempts WHERE seq = $1 ORDER BY number")
        .bind(row.try_get::<i64, _>("seq")?)
        .fetch_all(&mut *connection)
        .await?;
    view.attempts = attempts.iter().map(attempt).collect::<Result<_, _>>()?;
    Ok(Some(view))
}

#[async_trait]
impl NotificationLedger for Database {
    fn work(&self) -> watch::Receiver<u64> {
        self.wakes.work.subscribe()
    }

    async fn follow_others(&self) -> Result<(), LedgerError> {
        wake::follow_others(self).await
    }

    async fn insert(&self, batch: &[NewNotification], replaced: &Replacement<'_>) -> Result<Inserted, LedgerError> {
        if batch.is_empty() {
            return Ok(Inserted::default());
        }
        insert(self, batch, replaced).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, LedgerError> {
        claims::claim(self, request).await
    }

    async fn call_off(
        &self,
        selection: &Selection,
        limit: usize,
        verdict: &Verdict<'_>,
    ) -> Result<Vec<Settlement>, LedgerError> {
        seize::call_off(self, selection, limit, verdict).await
    }

    async fn superseded(&self, old: &[Replaceable<'_>]) -> Result<HashMap<String, String>, LedgerError> {
        superseded::superseded(self, old).await
    }

    async fn unsettled_of(&self, recipient: &str) -> Result<u64, LedgerError> {
        let statement = "SELECT COUNT(*) AS waiting FROM requests q JOIN notifications n ON n.seq = q.seq
             WHERE q.recipient = $1 AND n.settled_at IS NULL";
        bounded(async {
            let row = query(statement).bind(recipient.to_owned()).fetch_one(&self.read).await?;
            Ok(row.try_get::<i64, _>("waiting")?.unsigned_abs())
        })
        .await
    }

    async fn seize(
        &self,
        selection: &Selection,
        owner: &str,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claimed>, LedgerError> {
        seize::seize(self, selection, owner, lease_until, limit).await
    }

    async fn suppressed(&self, channel: Channel, addresses: &[&str]) -> Result<HashMap<String, String>, LedgerError> {
        preferences::suppressed(self, channel, addresses).await
    }

    async fn sent_since(
        &self,
        channel: Channel,
        recipients: &[&str],
        since: Timestamp,
    ) -> Result<HashMap<String, (u64, Timestamp)>, LedgerError> {
        let statement = format!(
            "SELECT q.recipient AS recipient, COUNT(*) AS sent, MIN(n.settled_at) AS oldest
             FROM {} JOIN requests q ON q.recipient = r.id JOIN notifications n ON n.seq = q.seq
             WHERE n.settled_at > $2 AND n.state = 'sent' AND n.channel = $3 AND q.critical = 0
               AND n.digest_id IS NULL
             GROUP BY q.recipient",
            self.dialect.rows(&[("id", "text")])
        );
        bounded(async {
            let rows = query(sql(statement))
                .bind(id_rows(recipients.iter().copied()))
                .bind(millis(since))
                .bind(channel.as_str())
                .fetch_all(&self.read)
                .await?;
            rows.iter()
                .map(|row| {
                    let sent: i64 = row.try_get("sent")?;
                    Ok((row.try_get("recipient")?, (sent.unsigned_abs(), timestamp(row.try_get("oldest")?))))
                })
                .collect()
        })
        .await
    }

    async fn retire(&self, before: Timestamp, limit: usize) -> Result<u64, LedgerError> {
        retention::retire(self, before, limit).await
    }

    async fn release_followers(&self, channel: Channel, now: Timestamp) -> Result<u64, LedgerError> {
        let released = digests::release(self, channel, now).await?;
        if released > 0 {
            self.wakes.announce(Wake::Work);
        }
        Ok(released)
    }

    async fn reopen(&self, id: &str, now: Timestamp) -> Result<Option<NotificationView>, LedgerError> {
        let statement = "UPDATE notifications
             SET state = 'pending', next_attempt_at = $2, round = 0, lane = 0, unknowns = 0, reason = NULL,
                 receipt = NULL, first_failure_at = NULL, settled_at = NULL, digest_id = NULL,
                 expires_at = CASE WHEN expires_at > $2 THEN expires_at END,
                 awaiting_since = NULL, reopened = reopened + 1
             WHERE seq = (SELECT seq FROM requests WHERE id = $1 AND request <> '{}')
               AND state IN ('failed', 'suppressed', 'expired', 'cancelled')";
        let reopened = bounded(async {
            let mut tx = self.begin().await?;
            let result = query(statement).bind(id.to_owned()).bind(millis(now)).execute(&mut *tx).await?;
            // An erasure that was in the way may have come to its end since the statement looked.
            if result.rows_affected() == 0 || !letters::replayed(&mut tx, id).await? {
                return Ok(None);
            }
            // After the commit somebody may have it already.
            let reopened = shown(&mut tx, id).await?;
            tx.commit().await?;
            Ok(reopened)
        })
        .await?;
        if reopened.is_some() {
            self.wakes.announce(Wake::Work);
        }
        Ok(reopened)
    }

    async fn search(&self, search: &Search) -> Result<Vec<(i64, NotificationView)>, LedgerError> {
        search::search(self, search).await
    }

    async fn note_reports(&self, provider: &str, reports: &[(&str, &str)]) -> Result<u64, LedgerError> {
        // Of several attempts with one provider only the last one can be meant: for it they were the same message.
        let statement = format!(
            "UPDATE attempts SET report = r.report FROM {} JOIN requests q ON q.id = r.id
             WHERE attempts.seq = q.seq
               AND attempts.number = (SELECT MAX(a.number) FROM attempts a
                                      WHERE a.seq = q.seq AND a.provider = $2
                                        AND (a.outcome IS NULL OR a.outcome IN ('accepted', 'unknown')))",
            self.dialect.rows(&[("id", "text"), ("report", "text")])
        );
        // The notifications before their attempts, as everybody locks them.
        let lock = format!(
            "SELECT n.seq FROM {} JOIN requests q ON q.id = r.id JOIN notifications n ON n.seq = q.seq ORDER BY n.seq {}",
            self.dialect.rows(&[("id", "text")]),
            self.dialect.for_update_of("n")
        );
        if reports.is_empty() {
            return Ok(0);
        }
        let rows: Vec<ReportRow<'_>> = reports.iter().map(|(id, report)| ReportRow { id, report }).collect();
        let rows = text(to_json(&rows));
        bounded(async {
            let mut tx = self.begin().await?;
            query(sql(lock)).bind(rows.clone()).fetch_all(&mut *tx).await?;
            let update = query(sql(statement)).bind(rows).bind(provider.to_owned());
            let noted = update.execute(&mut *tx).await?.rows_affected();
            tx.commit().await?;
            Ok(noted)
        })
        .await
    }

    async fn request_of(&self, id: &str) -> Result<Option<String>, LedgerError> {
        let statement = "SELECT request FROM requests WHERE id = $1";
        bounded(async {
            let row = query(statement).bind(id.to_owned()).fetch_optional(&self.read).await?;
            row.map(|row| row.try_get("request")).transpose()
        })
        .await
    }

    async fn next_due(&self, channel: Channel, lane: u16) -> Result<Option<Timestamp>, LedgerError> {
        let statement = "SELECT MIN(next_attempt_at) AS due FROM notifications
             WHERE channel = $1 AND lane = $2 AND state IN ('pending', 'retrying') AND digest_id IS NULL";
        bounded(async {
            let row = query(statement).bind(channel.as_str()).bind(i64::from(lane)).fetch_one(&self.read).await?;
            Ok(row.try_get::<Option<i64>, _>("due")?.map(timestamp))
        })
        .await
    }

    async fn begin_attempts(&self, owner: &str, attempts: &[AttemptStart]) -> Result<Vec<String>, LedgerError> {
        claims::begin_attempts(self, owner, attempts).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<String>, LedgerError> {
        settle(self, settlements).await
    }

    async fn renew(&self, owner: &str, ids: &[String], until: Timestamp) -> Result<u64, LedgerError> {
        claims::renew(self, owner, ids, until).await
    }

    async fn leases(&self, channel: Channel, limit: usize) -> Result<Vec<Lease>, LedgerError> {
        claims::leases(self, channel, limit).await
    }

    async fn take_over(
        &self,
        owner: &str,
        leases: &[Lease],
        lingering: &[Lease],
        lease_until: Timestamp,
    ) -> Result<Vec<(Claimed, Option<String>)>, LedgerError> {
        claims::take_over(self, owner, leases, lingering, lease_until).await
    }

    async fn fold_lanes(&self, channel: Channel, lanes: u16, limit: usize) -> Result<u64, LedgerError> {
        let stranded = "channel = $1 AND lane >= $2 AND state IN ('pending', 'retrying')";
        let some = format!("SELECT seq FROM notifications WHERE {stranded} LIMIT $3");
        // Meanwhile one may have been claimed.
        let statement =
            format!("UPDATE notifications SET lane = 0 WHERE seq {} AND {stranded}", self.dialect.among(&some));
        bounded(async {
            let update = query(sql(statement)).bind(channel.as_str()).bind(i64::from(lanes)).bind(limit as i64);
            Ok(update.execute(&self.write).await?.rows_affected())
        })
        .await
    }

    async fn unsettled(&self, channel: Channel) -> Result<Vec<(State, u64)>, LedgerError> {
        // Each state by the index that has it; two of them share one, which is gone through once and not sorted.
        let statement = "SELECT due.pending, due.retrying,
                 (SELECT COUNT(*) FROM notifications WHERE channel = $1 AND state = 'awaiting_contact') AS awaiting_contact,
                 (SELECT COUNT(*) FROM notifications WHERE channel = $1 AND state = 'sending') AS sending
             FROM (SELECT COUNT(CASE WHEN state = 'pending' THEN 1 END) AS pending,
                       COUNT(CASE WHEN state = 'retrying' THEN 1 END) AS retrying
                   FROM notifications WHERE channel = $1 AND state IN ('pending', 'retrying')) AS due";
        bounded(async {
            let row = query(statement).bind(channel.as_str()).fetch_one(&self.read).await?;
            let unsettled = State::ALL.into_iter().filter(|state| !state.is_settled());
            unsettled.map(|state| Ok((state, row.try_get::<i64, _>(state.as_str())?.unsigned_abs()))).collect()
        })
        .await
    }

    async fn notification(&self, id: &str) -> Result<Option<NotificationView>, LedgerError> {
        bounded(async {
            let mut connection = self.read.acquire().await?;
            shown(&mut connection, id).await
        })
        .await
    }

    async fn caused_by(&self, events: &[String]) -> Result<Vec<Brief>, LedgerError> {
        let events = id_rows(events.iter().map(String::as_str));
        let statement = format!(
            "SELECT q.id AS id, q.causation_id AS causation_id, n.state AS state
             FROM {} JOIN requests q ON q.causation_id = r.id JOIN notifications n ON n.seq = q.seq",
            self.dialect.rows(&[("id", "text")])
        );
        bounded(async {
            let rows = query(sql(statement)).bind(events).fetch_all(&self.read).await?;
            rows.iter()
                .map(|row| {
                    Ok(Brief { id: row.try_get("id")?, causation_id: row.try_get("causation_id")?, state: state(row)? })
                })
                .collect()
        })
        .await
    }
}
