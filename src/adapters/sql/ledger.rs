//! The notification ledger over SQL.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Row as _, query};
use tokio::sync::watch;

use super::database::{Database, bounded, sql};
use super::dialect::being_sent;
use super::insert::{insert, text};
use super::rows::{CLAIM_COLUMNS, VIEW_COLUMNS, attempt, claimed, millis, state, timestamp, view};
use super::settle::settle;
use super::wake::Wake;
use super::{contacts, digests, preferences, retention, search, seize, wake};
use crate::domain::channel::Channel;
use crate::domain::envelope::to_json;
use crate::ports::ledger::{
    AttemptStart, Brief, ClaimRequest, Claimed, Inserted, LedgerError, NewNotification, NotificationLedger,
    NotificationView, Replacement, Search, Selection, Settlement, Verdict,
};

#[derive(Serialize)]
struct StartRow<'a> {
    id: &'a str,
    number: u32,
    provider: &'a str,
    template_version: Option<&'a str>,
    started_at: i64,
}

#[derive(Serialize)]
struct IdRow<'a> {
    id: &'a str,
}

/// Ids as the JSON of one-column rows.
pub(super) fn id_rows<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let rows: Vec<IdRow<'_>> = ids.map(|id| IdRow { id }).collect();
    text(to_json(&rows))
}

/// In the order in which they are due.
pub(super) fn in_order(rows: &[AnyRow]) -> Result<Vec<Claimed>, sqlx::Error> {
    let mut all = rows.iter().map(claimed).collect::<Result<Vec<_>, _>>()?;
    all.sort_by_key(|(order, _)| *order);
    Ok(all.into_iter().map(|(_, claimed)| claimed).collect())
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
        let statement = format!(
            "WITH due AS MATERIALIZED (
                 SELECT seq AS due_seq FROM notifications
                 WHERE channel = $3 AND lane = $4 AND state IN ('pending', 'retrying') AND digest_id IS NULL
                   AND next_attempt_at <= $5
                 ORDER BY next_attempt_at, seq LIMIT $6 {})
             UPDATE notifications SET state = 'sending', lease_owner = $1, lease_until = $2
             WHERE seq IN (SELECT due_seq FROM due)
             RETURNING {CLAIM_COLUMNS}",
            self.dialect.skip_locked()
        );
        let mut claimed = bounded(async {
            let rows = query(sql(statement))
                .bind(request.owner)
                .bind(millis(request.lease_until))
                .bind(request.channel.as_str())
                .bind(i64::from(request.lane))
                .bind(millis(request.now))
                .bind(request.limit as i64)
                .fetch_all(&self.write)
                .await?;
            in_order(&rows)
        })
        .await?;
        contacts::attach(self, &mut claimed).await?;
        Ok(claimed)
    }

    async fn call_off(
        &self,
        selection: &Selection,
        limit: usize,
        verdict: &Verdict<'_>,
    ) -> Result<Vec<Settlement>, LedgerError> {
        seize::call_off(self, selection, limit, verdict).await
    }

    async fn unsettled_of(&self, recipient: &str) -> Result<u64, LedgerError> {
        let statement = "SELECT COUNT(*) AS waiting FROM notifications WHERE recipient = $1 AND settled_at IS NULL";
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
            "SELECT n.recipient AS recipient, COUNT(*) AS sent, MIN(n.settled_at) AS oldest
             FROM {} JOIN notifications n ON n.recipient = r.id
             WHERE n.settled_at > $2 AND n.state = 'sent' AND n.channel = $3 AND n.critical = 0
               AND n.digest_id IS NULL
             GROUP BY n.recipient",
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

    async fn reopen(&self, id: &str, now: Timestamp) -> Result<bool, LedgerError> {
        let statement = "UPDATE notifications
             SET state = 'pending', next_attempt_at = $2, round = 0, lane = 0, unknowns = 0, reason = NULL,
                 first_failure_at = NULL, settled_at = NULL, expires_at = NULL, digest_id = NULL,
                 awaiting_since = NULL, reopened = reopened + 1
             WHERE id = $1 AND state IN ('failed', 'suppressed', 'expired', 'cancelled') AND request <> '{}'";
        let reopened = bounded(async {
            let result = query(statement).bind(id.to_owned()).bind(millis(now)).execute(&self.write).await?;
            Ok(result.rows_affected() > 0)
        })
        .await?;
        if reopened {
            self.wakes.announce(Wake::Work);
        }
        Ok(reopened)
    }

    async fn search(&self, search: &Search) -> Result<Vec<(i64, NotificationView)>, LedgerError> {
        search::search(self, search).await
    }

    async fn note_report(&self, id: &str, provider: &str, report: &str) -> Result<bool, LedgerError> {
        let statement = "UPDATE notification_attempts SET report = $3
             WHERE notification_id = $1 AND provider = $2 AND (outcome IS NULL OR outcome IN ('accepted', 'unknown'))";
        bounded(async {
            let update = query(statement).bind(id.to_owned()).bind(provider.to_owned()).bind(report.to_owned());
            Ok(update.execute(&self.write).await?.rows_affected() > 0)
        })
        .await
    }

    async fn request_of(&self, id: &str) -> Result<Option<String>, LedgerError> {
        let statement = "SELECT request FROM notifications WHERE id = $1";
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
        let starts: Vec<StartRow<'_>> = attempts
            .iter()
            .map(|a| StartRow {
                id: &a.id,
                number: a.number,
                provider: &a.provider,
                template_version: a.template_version.as_deref(),
                started_at: millis(a.started_at),
            })
            .collect();
        let source = [
            ("id", "text"),
            ("number", "bigint"),
            ("provider", "text"),
            ("template_version", "text"),
            ("started_at", "bigint"),
        ];
        // Held while the attempt is written: a take-over under way is waited for, and then the owner is another one.
        let statement = format!(
            "INSERT INTO notification_attempts (notification_id, number, provider, template_version, started_at)
             SELECT r.id, r.number, r.provider, r.template_version, r.started_at
             FROM {} JOIN notifications n ON n.id = r.id
             WHERE n.lease_owner = $2 AND {}
             ORDER BY n.id {}
             RETURNING notification_id",
            self.dialect.rows(&source),
            being_sent("n"),
            self.dialect.for_update_of("n")
        );
        bounded(async {
            let rows = query(sql(statement))
                .bind(text(to_json(&starts)))
                .bind(owner.to_owned())
                .fetch_all(&self.write)
                .await?;
            rows.iter().map(|row| row.try_get("notification_id")).collect()
        })
        .await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<String>, LedgerError> {
        settle(self, settlements).await
    }

    async fn renew(&self, owner: &str, ids: &[String], until: Timestamp) -> Result<u64, LedgerError> {
        // One that is being settled at this moment needs no renewal; waiting for it could be a deadlock.
        let statement = format!(
            "WITH mine AS MATERIALIZED (
                 SELECT n.seq AS my_seq FROM {} JOIN notifications n ON n.id = r.id
                 WHERE n.lease_owner = $3 AND {} {})
             UPDATE notifications SET lease_until = $2 WHERE seq IN (SELECT my_seq FROM mine)",
            self.dialect.rows(&[("id", "text")]),
            being_sent("n"),
            self.dialect.skip_locked_of("n")
        );
        bounded(async {
            let result = query(sql(statement))
                .bind(id_rows(ids.iter().map(String::as_str)))
                .bind(millis(until))
                .bind(owner.to_owned())
                .execute(&self.write)
                .await?;
            Ok(result.rows_affected())
        })
        .await
    }

    async fn take_over(
        &self,
        channel: Channel,
        owner: &str,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Claimed, Option<String>)>, LedgerError> {
        let take = format!(
            "WITH expired AS MATERIALIZED (
                 SELECT seq AS expired_seq FROM notifications
                 WHERE state = 'sending' AND lease_until < $3 AND channel = $5
                 ORDER BY lease_until LIMIT $4 {})
             UPDATE notifications SET lease_owner = $1, lease_until = $2,
                 interrupted = COALESCE((SELECT MAX(provider) FROM notification_attempts a
                                         WHERE a.notification_id = notifications.id AND a.outcome IS NULL),
                                        interrupted),
                 unknowns = unknowns + (SELECT COUNT(*) FROM notification_attempts a
                                        WHERE a.notification_id = notifications.id AND a.outcome IS NULL),
                 attempts = COALESCE((SELECT MAX(number) FROM notification_attempts a
                                      WHERE a.notification_id = notifications.id), attempts)
             WHERE seq IN (SELECT expired_seq FROM expired)
             RETURNING {CLAIM_COLUMNS}, interrupted",
            self.dialect.skip_locked()
        );
        let interrupt = format!(
            "UPDATE notification_attempts SET outcome = 'unknown', error = 'the process ended before the answer'
             FROM {} WHERE notification_attempts.notification_id = r.id AND notification_attempts.outcome IS NULL",
            self.dialect.rows(&[("id", "text")])
        );
        bounded(async {
            let mut tx = self.begin().await?;
            let rows = query(sql(take))
                .bind(owner.to_owned())
                .bind(millis(lease_until))
                .bind(millis(now))
                .bind(limit as i64)
                .bind(channel.as_str())
                .fetch_all(&mut *tx)
                .await?;
            let mut interrupted: HashMap<String, String> = HashMap::new();
            for row in &rows {
                if let Some(provider) = row.try_get::<Option<String>, _>("interrupted")? {
                    interrupted.insert(row.try_get("id")?, provider);
                }
            }
            let taken = in_order(&rows)?;
            let ids = id_rows(taken.iter().map(|c| c.id.as_str()));
            if !taken.is_empty() {
                query(sql(interrupt)).bind(ids).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            let mut all = Vec::with_capacity(taken.len());
            for claimed in taken {
                let provider = interrupted.remove(&claimed.id);
                all.push((claimed, provider));
            }
            Ok(all)
        })
        .await
    }

    async fn fold_lanes(&self, channel: Channel, lanes: u16) -> Result<u64, LedgerError> {
        let statement = "UPDATE notifications SET lane = 0
             WHERE channel = $1 AND lane >= $2 AND state IN ('pending', 'retrying')";
        bounded(async {
            let result = query(statement).bind(channel.as_str()).bind(i64::from(lanes)).execute(&self.write).await?;
            Ok(result.rows_affected())
        })
        .await
    }

    async fn unsettled(&self, channel: Channel) -> Result<u64, LedgerError> {
        let statement = "SELECT COUNT(*) AS waiting FROM notifications
             WHERE channel = $1 AND settled_at IS NULL";
        bounded(async {
            let row = query(statement).bind(channel.as_str()).fetch_one(&self.read).await?;
            Ok(row.try_get::<i64, _>("waiting")?.unsigned_abs())
        })
        .await
    }

    async fn notification(&self, id: &str) -> Result<Option<NotificationView>, LedgerError> {
        bounded(async {
            let statement = format!("SELECT {VIEW_COLUMNS} FROM notifications WHERE id = $1");
            let found = query(sql(statement)).bind(id.to_owned()).fetch_optional(&self.read).await?;
            let Some(row) = found else { return Ok(None) };
            let mut view = view(&row)?;
            let attempts = query("SELECT * FROM notification_attempts WHERE notification_id = $1 ORDER BY number")
                .bind(id.to_owned())
                .fetch_all(&self.read)
                .await?;
            view.attempts = attempts.iter().map(attempt).collect::<Result<_, _>>()?;
            Ok(Some(view))
        })
        .await
    }

    async fn caused_by(&self, events: &[String]) -> Result<Vec<Brief>, LedgerError> {
        let events = id_rows(events.iter().map(String::as_str));
        let statement = format!(
            "SELECT n.id AS id, n.causation_id AS causation_id, n.state AS state
             FROM {} JOIN notifications n ON n.causation_id = r.id",
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
