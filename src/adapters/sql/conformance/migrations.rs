//! A database of an older version is brought up to date with what is in it.

use sqlx::AnyPool;

use super::*;
use crate::adapters::sql::dialect::Dialect;

/// The last version whose notifications and requests were one row.
const ONE_ROW: i64 = 3;
/// The last version whose outbox had a row for each message.
const ONE_MESSAGE: i64 = 4;

#[tokio::test]
async fn sqlite_keeps_its_notifications() {
    with_file(async |url| keeps_its_notifications(&url, Dialect::Sqlite).await).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_DATABASE_URL"]
async fn postgres_keeps_its_notifications() {
    with_server_database(async |url| keeps_its_notifications(&url, Dialect::Postgres).await).await;
}

#[tokio::test]
async fn sqlite_keeps_its_attempts_messages_and_digests() {
    with_file(async |url| keeps_its_attempts_messages_and_digests(&url, Dialect::Sqlite).await).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_DATABASE_URL"]
async fn postgres_keeps_its_attempts_messages_and_digests() {
    with_server_database(async |url| keeps_its_attempts_messages_and_digests(&url, Dialect::Postgres).await).await;
}

async fn with_file(case: impl AsyncFnOnce(String)) {
    let folder = tempfile::tempdir().expect("a folder");
    case(format!("sqlite://{}?mode=rwc", folder.path().join("ledger.db").display())).await;
}

async fn old_version(url: &str, dialect: Dialect, version: i64) -> AnyPool {
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(url).await.expect("a database");
    let migrator = match dialect {
        Dialect::Postgres => sqlx::migrate!("migrations/postgres"),
        Dialect::Sqlite => sqlx::migrate!("migrations/sqlite"),
    };
    migrator.run_to(version, &pool).await.expect("the old version");
    pool
}

async fn keeps_its_notifications(url: &str, dialect: Dialect) {
    let pool = old_version(url, dialect, ONE_ROW).await;
    for (id, state, settled_at) in [("gone", "sent", "9"), ("sent", "sent", "9"), ("waits", "retrying", "NULL")] {
        let old = format!(
            "INSERT INTO notifications (id, aggregate_id, channel, recipient, template, category, correlation_id,
                 causation_id, caused_at, request, origin_topic, origin_partition, origin_offset, origin_key, headers,
                 state, lane, round, attempts, unknowns, next_attempt_at, receipt, created_at, settled_at)
             VALUES ('{id}', 'a', 'email', 'customer-1', 'order_confirmation', 'transactional', 'c', 'cause', 5,
                 '{{\"x\": 1}}', 'notification-events', 1, 7, NULL, '[]', '{state}', 0, 2, 1, 0, 8, 'r-{id}', 6,
                 {settled_at})"
        );
        pool.execute(AssertSqlSafe(old)).await.expect("an old notification");
        let attempt = format!(
            "INSERT INTO notification_attempts (notification_id, number, provider, outcome, started_at)
             VALUES ('{id}', 1, 'mail', 'transient', 7)"
        );
        pool.execute(AssertSqlSafe(attempt)).await.expect("its attempt");
    }
    pool.execute("DELETE FROM notifications WHERE id = 'gone'").await.expect("a gap in the numbers");
    pool.close().await;

    let db = Fresh::open(url.to_owned()).await;
    let sent = view(&db, "sent").await;
    assert_eq!((sent.state.as_str(), sent.receipt.as_deref()), ("sent", Some("r-sent")));
    assert_eq!((sent.attempts[0].provider.as_str(), sent.attempts[0].outcome.as_deref()), ("mail", Some("transient")));
    let waiting = claim_one(&db, "o", 0).await;
    assert_eq!((waiting.id.as_str(), waiting.round, waiting.attempts), ("waits", 2, 1));
    assert_eq!((waiting.request_json.as_str(), waiting.recipient.as_deref()), (r#"{"x": 1}"#, Some("customer-1")));
    assert_eq!((waiting.origin.partition, waiting.origin.offset), (Some(1), Some(7)));
    insert(&db, &["new"]).await;
    let new = claim_one(&db, "o", 0).await;
    assert!(new.seq > waiting.seq, "numbers go on where they were");
    db.close().await;
}

async fn keeps_its_attempts_messages_and_digests(url: &str, dialect: Dialect) {
    let pool = old_version(url, dialect, ONE_MESSAGE).await;
    let until = at(1000).as_millisecond();
    for (id, due) in [("due", 0), ("collects", until)] {
        let request = format!(
            "INSERT INTO requests (id, aggregate_id, recipient, template, category, correlation_id, caused_at,
                 created_at, request, origin_topic, headers)
             VALUES ('{id}', 'a', 'customer-1', 'prices', 'transactional', 'c', 5, 6, '{{}}', 'notification-events', '[]')"
        );
        pool.execute(AssertSqlSafe(request)).await.expect("an old request");
        let notification = format!(
            "INSERT INTO notifications (seq, channel, recipient, state, next_attempt_at)
             SELECT seq, 'email', recipient, 'pending', {due} FROM requests WHERE id = '{id}'"
        );
        pool.execute(AssertSqlSafe(notification)).await.expect("its notification");
    }
    pool.execute(
        "INSERT INTO attempts (seq, number, provider, template_version, outcome, started_at, duration_ms, receipt, error,
             report)
         SELECT seq, 3, 'mail', 'v', 'accepted', 7, 8, 'r', 'e', 'delivered' FROM requests WHERE id = 'due'",
    )
    .await
    .expect("its attempt");
    for (kind, key) in [("gone", "NULL"), ("lifecycle", "'a2V5'"), ("dead_letter", "NULL")] {
        let message = format!(
            "INSERT INTO outbox (kind, key, body, headers, reserved_until)
             VALUES ('{kind}', {key}, '{{\"of\": \"{kind}\"}}', '[[\"name\",null]]', {until})"
        );
        pool.execute(AssertSqlSafe(message)).await.expect("an old message");
    }
    pool.execute("DELETE FROM outbox WHERE kind = 'gone'").await.expect("a gap in the numbers");
    pool.close().await;

    let db = Fresh::open(url.to_owned()).await;
    let attempts = serde_json::to_value(&view(&db, "due").await.attempts).expect("serialises");
    let attempt = serde_json::json!({
        "number": 3, "provider": "mail", "templateVersion": "v", "outcome": "accepted",
        "startedAt": "1970-01-01T00:00:00.007Z", "durationMs": 8, "receipt": "r", "error": "e", "report": "delivered",
    });
    assert_eq!(attempts, serde_json::json!([attempt]));
    let all = i64::MAX;
    assert!(db.reserve(until - 1, all, 10).await.expect("reserves").is_empty(), "they are reserved still");
    let waiting = db.reserve(until, all, 10).await.expect("reserves");
    assert_eq!(waiting.iter().map(|w| w.id).collect::<Vec<_>>(), [2, 3]);
    let told = messages(waiting);
    assert_eq!((told[0].kind, told[0].key.as_deref()), (OutboxKind::Lifecycle, Some(&b"key"[..])));
    assert_eq!((told[0].body.get(), told[0].headers.get("name")), (r#"{"of": "lifecycle"}"#, None));
    assert_eq!((told[1].kind, told[1].key.as_deref()), (OutboxKind::DeadLetter, None));
    let row = query("SELECT q.id AS id FROM notifications n JOIN requests q ON q.seq = n.seq WHERE n.collects = 1");
    assert_eq!(row.fetch_one(&db.read).await.expect("one").get::<String, _>("id"), "collects");
    db.close().await;
}
