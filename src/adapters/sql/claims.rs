//! Who holds what: claims under a lease, attempts that begin, leases that are renewed and taken over.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Any, Row as _, Transaction, query};

use super::contents::{contents, list, seqs_of};
use super::database::{Database, bounded, sql};
use super::dialect::{Dialect, being_sent};
use super::insert::text;
use super::ledger::id_rows;
use super::rows::{millis, timestamp};
use crate::domain::channel::Channel;
use crate::domain::envelope::to_json;
use crate::ports::ledger::{AttemptStart, ClaimRequest, Claimed, Lease, LedgerError};

pub(super) async fn claim(database: &Database, request: ClaimRequest) -> Result<Vec<Claimed>, LedgerError> {
    let dialect = database.dialect;
    let pick = |condition: &str| {
        format!(
            "SELECT string_agg(CAST(seq AS TEXT), ',') AS seqs, COUNT(*) AS found FROM (
                 SELECT seq FROM notifications
                 WHERE channel = $1 AND lane = $2 AND state IN ('pending', 'retrying') AND digest_id IS NULL
                   AND next_attempt_at <= $3 {condition}
                 ORDER BY next_attempt_at, seq LIMIT $4 {}) AS due",
            dialect.skip_locked(),
        )
    };
    let take = format!(
        "UPDATE notifications SET state = 'sending', lease_owner = $2, lease_until = $3 WHERE seq {}",
        dialect.among_seqs()
    );
    bounded(async {
        // A claim that is forgotten was never made: no attempt can begin under it.
        let mut tx = database.begin_lazily().await?;
        let others = request.stands_in_for.iter().map(|lane| (*lane, "AND unknowns = 0"));
        let (mut picked, mut room) = (Vec::new(), request.limit as i64);
        for (lane, condition) in std::iter::once((request.lane, "")).chain(others) {
            let row = query(sql(pick(condition)))
                .bind(request.channel.as_str())
                .bind(i64::from(lane))
                .bind(millis(request.now))
                .bind(room)
                .fetch_one(&mut *tx)
                .await?;
            picked.extend(row.try_get::<Option<String>, _>("seqs")?);
            room -= row.try_get::<i64, _>("found")?;
            if room <= 0 {
                break;
            }
        }
        if picked.is_empty() {
            return Ok(Vec::new());
        }
        let due = picked.join(",");
        let take = query(sql(take)).bind(due.clone()).bind(request.owner).bind(millis(request.lease_until));
        take.execute(&mut *tx).await?;
        tx.commit().await?;
        // The contacts are read after the claim: one that comes later is newer than what was seen.
        contents(&database.read, dialect, due).await
    })
    .await
}

#[derive(Serialize)]
struct StartRow<'a> {
    seq: i64,
    number: u32,
    provider: &'a str,
    template_version: Option<&'a str>,
    started_at: i64,
}

pub(super) async fn begin_attempts(
    database: &Database,
    owner: &str,
    attempts: &[AttemptStart],
) -> Result<Vec<String>, LedgerError> {
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let starts: Vec<StartRow<'_>> = attempts
        .iter()
        .map(|a| StartRow {
            seq: a.seq,
            number: a.number,
            provider: &a.provider,
            template_version: a.template_version.as_deref(),
            started_at: millis(a.started_at),
        })
        .collect();
    let source = [
        ("seq", "bigint"),
        ("number", "bigint"),
        ("provider", "text"),
        ("template_version", "text"),
        ("started_at", "bigint"),
    ];
    // Held while the attempt is written: a take-over under way is waited for, and then the owner is another one.
    let statement = format!(
        "INSERT INTO attempts (seq, number, provider, template_version, started_at)
         SELECT r.seq, r.number, r.provider, r.template_version, r.started_at
         FROM {} JOIN notifications n ON n.seq = r.seq
         WHERE n.lease_owner = $2 AND {}
         ORDER BY n.seq {}",
        database.dialect.rows(&source),
        being_sent("n"),
        database.dialect.for_update_of("n")
    );
    let rows = text(to_json(&starts));
    bounded(async {
        // How many there were is known sooner than which.
        let mut tx = database.begin().await?;
        let begin = query(sql(statement.clone())).bind(rows.clone()).bind(owner.to_owned());
        if begin.execute(&mut *tx).await?.rows_affected() == attempts.len() as u64 {
            tx.commit().await?;
            return Ok(attempts.iter().map(|a| a.id.clone()).collect());
        }
        tx.rollback().await?;
        let begin = query(sql(format!("{statement} RETURNING seq"))).bind(rows).bind(owner.to_owned());
        let begun: HashSet<i64> = seqs_of(&begin.fetch_all(&database.write).await?)?.into_iter().collect();
        Ok(attempts.iter().filter(|a| begun.contains(&a.seq)).map(|a| a.id.clone()).collect())
    })
    .await
}

pub(super) async fn renew(
    database: &Database,
    owner: &str,
    ids: &[String],
    until: Timestamp,
) -> Result<u64, LedgerError> {
    // One that is being settled at this moment needs no renewal; waiting for it could be a deadlock.
    let statement = format!(
        "WITH mine AS MATERIALIZED (
             SELECT n.seq AS my_seq FROM {} JOIN requests q ON q.id = r.id JOIN notifications n ON n.seq = q.seq
             WHERE n.lease_owner = $3 AND {} {})
         UPDATE notifications SET lease_until = $2 WHERE seq {}",
        database.dialect.rows(&[("id", "text")]),
        being_sent("n"),
        database.dialect.skip_locked_of("n"),
        database.dialect.among("SELECT my_seq FROM mine")
    );
    bounded(async {
        let mut tx = database.begin_lazily().await?;
        let result = query(sql(statement))
            .bind(id_rows(ids.iter().map(String::as_str)))
            .bind(millis(until))
            .bind(owner.to_owned())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(result.rows_affected())
    })
    .await
}

pub(super) async fn leases(database: &Database, channel: Channel, limit: usize) -> Result<Vec<Lease>, LedgerError> {
    // A row that somebody repaired by hand may lack them.
    let statement = "SELECT seq, COALESCE(lease_owner, '') AS owner, COALESCE(lease_until, 0) AS until
         FROM notifications WHERE state = 'sending' AND channel = $1 ORDER BY lease_until LIMIT $2";
    bounded(async {
        let rows = query(statement).bind(channel.as_str()).bind(limit as i64).fetch_all(&database.read).await?;
        rows.iter()
            .map(|row| {
                let until = timestamp(row.try_get("until")?);
                Ok(Lease { seq: row.try_get("seq")?, owner: row.try_get("owner")?, until })
            })
            .collect()
    })
    .await
}

/// The columns of a [`LeaseRow`].
const LEASE: [(&str, &str); 3] = [("seq", "bigint"), ("owner", "text"), ("until", "bigint")];

#[derive(Serialize)]
struct LeaseRow {
    seq: i64,
    owner: String,
    until: i64,
}

/// Those that lead what has these leases.
const LEADERS: &str = "SELECT c.seq, c.lease_owner, c.lease_until
    FROM held h JOIN requests q ON q.id = h.digest_id JOIN notifications c ON c.seq = q.seq WHERE true";

/// A digest is taken over whole, for all of it fares as its leader does: the rest of it, as far as it has the same owner
/// and lingers.
async fn company_of(
    dialect: Dialect,
    tx: &mut Transaction<'static, Any>,
    leases: &[LeaseRow],
    lingering: &HashSet<(i64, &str, i64)>,
    of_leaders: bool,
) -> Result<Vec<LeaseRow>, sqlx::Error> {
    // Looked up by digests' index, never by a scan of what is settled.
    let followers = format!(
        "SELECT c.seq, c.lease_owner, c.lease_until FROM notifications c
         WHERE c.digest_id {} AND c.settled_at IS NULL",
        dialect.among("SELECT q.id FROM held h JOIN requests q ON q.seq = h.seq")
    );
    let statement = format!(
        "WITH held AS MATERIALIZED (
             SELECT n.seq, n.digest_id FROM {} JOIN notifications n ON n.seq = r.seq
             WHERE n.lease_owner = r.owner AND n.lease_until = r.until)
         {} AND c.lease_owner IS NOT NULL AND c.lease_until IS NOT NULL AND {}",
        dialect.rows(&LEASE),
        if of_leaders { LEADERS } else { &followers },
        being_sent("c")
    );
    let known: HashSet<i64> = leases.iter().map(|lease| lease.seq).collect();
    let owners: HashSet<&str> = leases.iter().map(|lease| lease.owner.as_str()).collect();
    let mut found = HashMap::new();
    for row in query(sql(statement)).bind(text(to_json(&leases))).fetch_all(&mut **tx).await? {
        let lease = LeaseRow {
            seq: row.try_get("seq")?,
            owner: row.try_get("lease_owner")?,
            until: row.try_get("lease_until")?,
        };
        let lingers = lingering.contains(&(lease.seq, lease.owner.as_str(), lease.until));
        if lingers && owners.contains(lease.owner.as_str()) && !known.contains(&lease.seq) {
            found.insert(lease.seq, lease);
        }
    }
    Ok(found.into_values().collect())
}

pub(super) async fn take_over(
    database: &Database,
    owner: &str,
    leases: &[Lease],
    lingering: &[Lease],
    lease_until: Timestamp,
) -> Result<Vec<(Claimed, Option<String>)>, LedgerError> {
    let lingering: HashSet<(i64, &str, i64)> =
        lingering.iter().map(|l| (l.seq, l.owner.as_str(), millis(l.until))).collect();
    let mut rows: Vec<LeaseRow> =
        leases.iter().map(|l| LeaseRow { seq: l.seq, owner: l.owner.clone(), until: millis(l.until) }).collect();
    let take = format!(
        "WITH expired AS MATERIALIZED (
             SELECT n.seq AS expired_seq FROM {} JOIN notifications n ON n.seq = r.seq
             WHERE COALESCE(n.lease_owner, '') = r.owner AND COALESCE(n.lease_until, 0) = r.until AND {} {})
         UPDATE notifications SET lease_owner = $2, lease_until = $3
         WHERE seq {}
         RETURNING seq",
        database.dialect.rows(&LEASE),
        being_sent("n"),
        database.dialect.skip_locked_of("n"),
        database.dialect.among("SELECT expired_seq FROM expired")
    );
    // In a statement of its own: it sees attempts that began until the rows were locked.
    let look = format!(
        "UPDATE notifications SET
             interrupted = COALESCE((SELECT MAX(provider) FROM attempts a
                                     WHERE a.seq = notifications.seq AND a.outcome IS NULL),
                                    interrupted),
             unknowns = unknowns + (SELECT COUNT(*) FROM attempts a
                                    WHERE a.seq = notifications.seq AND a.outcome IS NULL),
             attempts = COALESCE((SELECT MAX(number) FROM attempts a WHERE a.seq = notifications.seq), attempts)
         WHERE seq {}
         RETURNING seq, interrupted",
        database.dialect.among_seqs()
    );
    let interrupt = format!(
        "UPDATE attempts SET outcome = 'unknown', error = 'the process ended before the answer'
         WHERE seq {} AND outcome IS NULL",
        database.dialect.among_seqs()
    );
    bounded(async {
        let mut tx = database.begin().await?;
        for of_leaders in [true, false] {
            rows.extend(company_of(database.dialect, &mut tx, &rows, &lingering, of_leaders).await?);
        }
        let rows = query(sql(take))
            .bind(text(to_json(&rows)))
            .bind(owner.to_owned())
            .bind(millis(lease_until))
            .fetch_all(&mut *tx)
            .await?;
        let seqs = seqs_of(&rows)?;
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let rows = query(sql(look)).bind(list(&seqs)).fetch_all(&mut *tx).await?;
        let mut interrupted: HashMap<i64, String> = HashMap::new();
        for row in &rows {
            if let Some(provider) = row.try_get::<Option<String>, _>("interrupted")? {
                interrupted.insert(row.try_get("seq")?, provider);
            }
        }
        query(sql(interrupt)).bind(list(&seqs)).execute(&mut *tx).await?;
        let taken = contents(&mut *tx, database.dialect, list(&seqs)).await?;
        tx.commit().await?;
        Ok(taken
            .into_iter()
            .map(|claimed| {
                let provider = interrupted.remove(&claimed.seq);
                (claimed, provider)
            })
            .collect())
    })
    .await
}
