//! What a database must do behind the ports, asked of SQLite and of PostgreSQL alike.
//!
//! The PostgreSQL half is ignored unless asked for: `cargo test -- --ignored postgres`, with `TEST_DATABASE_URL` set.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt as _;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, query};

use super::outbox::RESERVED_MS;
use super::{Database, DatabaseError};
use crate::domain::channel::Channel;
use crate::domain::dead_letter::Origin;
use crate::domain::envelope::raw_json;
use crate::domain::notification::Request;
use crate::domain::recipient::Recipient;
use crate::domain::record::Headers;
use crate::ports::ledger::{
    AttemptEnd, AttemptStart, ClaimRequest, Claimed, Handling, Inserted, Lease, LedgerError, NewNotification,
    NotificationLedger as _, NotificationView, OUT_OF_TURN, OutboxKind, OutboxMessage, Outcome, Search, Selection,
    Settlement, State,
};
use crate::ports::outbox::{Outbox as _, Waiting};

/// Makes two tests of each case, one for each database.
macro_rules! on_both_databases {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::adapters::sql::conformance::on_sqlite(super::$case).await;
                }
            )+
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs PostgreSQL: TEST_DATABASE_URL"]
                async fn $case() {
                    crate::adapters::sql::conformance::on_postgres(super::$case).await;
                }
            )+
        }
    };
}

mod contacts;
mod content;
mod dead_letters;
mod desk;
mod digests;
mod erasure;
mod inbox;
mod lanes;
mod leases;
mod ledger;
mod migrations;
mod outbox;
mod processed_events;
mod recipients;
mod retention;
mod sequences;
mod wake;

/// A database that nobody else uses.
struct Fresh {
    database: Database,
    url: String,
}

impl Fresh {
    async fn open(url: String) -> Self {
        Self { database: Database::open(&url, 8).await.expect("opens"), url }
    }

    /// The same database as another instance of the service sees it.
    async fn again(&self) -> Database {
        Database::open(&self.url, 8).await.expect("opens a second time")
    }
}

impl Deref for Fresh {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

async fn on_sqlite(case: impl AsyncFnOnce(&Fresh)) {
    let folder = tempfile::tempdir().expect("a folder");
    let fresh = Fresh::open(format!("sqlite://{}", folder.path().join("ledger.db").display())).await;
    case(&fresh).await;
    fresh.close().await;
}

async fn on_postgres(case: impl AsyncFnOnce(&Fresh)) {
    with_server_database(async |url| {
        let fresh = Fresh::open(url).await;
        case(&fresh).await;
        fresh.close().await;
    })
    .await;
}

/// An empty database of the server, by its URL.
async fn with_server_database(case: impl AsyncFnOnce(String)) {
    let server = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL, see scripts/services.sh env");
    let name = format!("conformance_{}", uuid::Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&server).await.expect("a server");
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("a new database");
    let mut url = url::Url::parse(&server).expect("a URL");
    url.set_path(&name);
    let result = AssertUnwindSafe(case(url.into())).catch_unwind().await;
    admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.expect("is dropped");
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// How long the claims of these tests hold, in milliseconds.
const LEASE: i64 = 30_000;

/// Milliseconds after the start of 2100: far from the real clock, which decides nothing about what is due.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(4_102_444_800_000 + millis).expect("in range")
}

/// A request for an e-mail to `customer-1` that arrives at this time.
fn new(id: &str, received: i64) -> NewNotification {
    let request = Request {
        id: id.to_owned(),
        aggregate_id: format!("notification-{id}"),
        channel: Channel::Email,
        recipient: Some("customer-1".to_owned()),
        template: "order_confirmation".to_owned(),
        category: Some("transactional".to_owned()),
        correlation_id: "req-1".to_owned(),
        causation_id: Some(format!("cause of {id}")),
        caused_at: at(received - 5),
        critical: false,
        send_at: None,
        expires_at: None,
        data: None,
    };
    let origin = Origin {
        topic: "notification-events".to_owned(),
        partition: Some(3),
        offset: Some(17),
        key: Some(id.as_bytes().to_vec()),
        value: Some(format!(r#"{{"eventId":"{id}"}}"#).into_bytes()),
        headers: Headers::default(),
    };
    NewNotification { request, origin, received_at: at(received), handling: Handling::default() }
}

/// Inserts; what is replaced is suppressed.
async fn add(database: &Database, batch: &[NewNotification]) -> Result<Inserted, LedgerError> {
    let replaced = |new: &NewNotification, old: &Claimed| settlement(old, OUT_OF_TURN, State::Suppressed, millis(new));
    database.insert(batch, &replaced).await
}

/// When it arrived, as [`at`] counts.
fn millis(new: &NewNotification) -> i64 {
    new.received_at.as_millisecond() - at(0).as_millisecond()
}

async fn insert(database: &Database, ids: &[&str]) {
    let batch: Vec<NewNotification> = ids.iter().map(|id| new(id, 0)).collect();
    let inserted = add(database, &batch).await.expect("inserted");
    assert_eq!(inserted.new, ids.len() as u64);
}

fn asking(owner: &str, now: i64, limit: usize) -> ClaimRequest {
    let (owner, lease_until) = (owner.to_owned(), at(now + LEASE));
    ClaimRequest {
        channel: Channel::Email,
        lane: 0,
        stands_in_for: Vec::new(),
        owner,
        now: at(now),
        lease_until,
        limit,
    }
}

async fn claim(database: &Database, owner: &str, now: i64, limit: usize) -> Vec<Claimed> {
    database.claim(asking(owner, now, limit)).await.expect("claims")
}

async fn claim_one(database: &Database, owner: &str, now: i64) -> Claimed {
    let mut claimed = claim(database, owner, now, 100).await;
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    claimed.remove(0)
}

async fn take_over(database: &Database, owner: &str, now: i64) -> Vec<(Claimed, Option<String>)> {
    take_over_of(database, Channel::Email, owner, now, 100).await
}

/// What a clock that shows `now` takes for expired, those first that ended first.
async fn take_over_of(
    database: &Database,
    channel: Channel,
    owner: &str,
    now: i64,
    limit: usize,
) -> Vec<(Claimed, Option<String>)> {
    let leases = database.leases(channel, limit).await.expect("reads");
    let expired: Vec<Lease> = leases.into_iter().filter(|lease| lease.until < at(now)).collect();
    let all = database.leases(channel, 100_000).await.expect("reads");
    database.take_over(owner, &expired, &all, at(now + LEASE)).await.expect("takes over")
}

fn ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|c| c.id.as_str()).collect()
}

fn set_of<'a>(claimed: impl IntoIterator<Item = &'a Claimed>) -> BTreeSet<&'a str> {
    claimed.into_iter().map(|c| c.id.as_str()).collect()
}

async fn start(database: &Database, id: &str, number: u32) -> AttemptStart {
    let find = query("SELECT seq FROM requests WHERE id = $1").bind(id.to_owned());
    let found = find.fetch_optional(&database.read).await.expect("reads");
    let (id, provider, started_at) = (id.to_owned(), "mail".to_owned(), at(7));
    let seq = found.map_or(0, |row| row.get("seq"));
    AttemptStart { seq, id, number, provider, template_version: Some("v1".to_owned()), started_at }
}

async fn begin(database: &Database, owner: &str, id: &str, number: u32) -> bool {
    let begun = database.begin_attempts(owner, &[start(database, id, number).await]).await.expect("begins");
    begun == [id]
}

fn end(number: u32, outcome: Outcome) -> Option<AttemptEnd> {
    Some(AttemptEnd { number, outcome, duration_ms: 40, receipt: None, error: None })
}

/// A settlement without attempt or message; what is to come again is due at once.
fn settlement(claimed: &Claimed, owner: &str, state: State, now: i64) -> Settlement {
    Settlement {
        seq: claimed.seq,
        channel: claimed.channel,
        digest_id: claimed.digest_id.clone(),
        id: claimed.id.clone(),
        owner: owner.to_owned(),
        state,
        next_attempt_at: matches!(state, State::Pending | State::Retrying).then(|| at(now)),
        round: claimed.round,
        lane: claimed.lane,
        at: at(now),
        contact_version: claimed.contact_version,
        unknowns: claimed.unknowns,
        attempt: None,
        reason: None,
        outbox: Vec::new(),
    }
}

async fn settle(database: &Database, settlement: Settlement) -> bool {
    database.settle(&[settlement]).await.expect("settles").len() == 1
}

/// Reserves messages, at a time when those who settled at [`at`] 0 hold them no longer; counted from there.
async fn reserve(db: &Database, now: i64, until: i64, limit: usize) -> Vec<Waiting> {
    let free = at(RESERVED_MS).as_millisecond();
    let waiting = db.reserve(free.saturating_add(now), free.saturating_add(until), limit).await.expect("reserves");
    assert!(waiting.is_sorted_by_key(|w| w.id));
    waiting
}

fn message(body: &str) -> OutboxMessage {
    OutboxMessage { kind: OutboxKind::Lifecycle, key: None, headers: Headers::default(), body: raw_json(&body) }
}

fn messages(waiting: Vec<Waiting>) -> Vec<OutboxMessage> {
    waiting.into_iter().flat_map(|waiting| waiting.messages).collect()
}

/// As [`message`] had them.
fn bodies(waiting: Vec<Waiting>) -> Vec<String> {
    messages(waiting).iter().map(|m| serde_json::from_str(m.body.get()).expect("a text")).collect()
}

async fn view(database: &Database, id: &str) -> NotificationView {
    database.notification(id).await.expect("reads").expect("is there")
}

/// All that is shown of a notification, to be compared.
async fn shown(database: &Database, id: &str) -> String {
    serde_json::to_string(&view(database, id).await).expect("serialises")
}

async fn state(database: &Database, id: &str) -> String {
    view(database, id).await.state
}

fn with_email(id: &str, email: &str) -> Recipient {
    Recipient { id: id.to_owned(), email: Some(email.to_owned()), ..Recipient::default() }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_unusable_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("no-folder");
    std::fs::write(&file, b"").expect("is written");
    let read_only = folder.path().join("read-only");
    std::fs::create_dir(&read_only).expect("is made");
    let mut rights = std::fs::metadata(&read_only).expect("is there").permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(&read_only, rights).expect("are set");
    // Root writes there all the same.
    let denied = std::fs::write(read_only.join("probe"), b"").is_err();
    for folder in [Some(file), denied.then_some(read_only)].into_iter().flatten() {
        let path = folder.join("x.db").display().to_string();
        match Database::open(&format!("sqlite://{path}"), 2).await {
            Err(DatabaseError::Unusable(why)) => assert!(why.contains(&path), "{why}"),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{path} was opened"),
        }
    }
}
