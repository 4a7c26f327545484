//! A database of an older version is brought up to date with what is in it.

use sqlx::AnyPool;

use super::*;
use crate::adapters::sql::dialect::Dialect;

/// The last version whose notifications and requests were one row.
const ONE_ROW: i64 = 3;

#[tokio::test]
async fn sqlite_keeps_its_notifications() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("ledger.db").display());
    keeps_its_notifications(&url, Dialect::Sqlite).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_DATABASE_URL"]
async fn postgres_keeps_its_notifications() {
    with_server_database(async |url| keeps_its_notifications(&url, Dialect::Postgres).await).await;
}

async fn keeps_its_notifications(url: &str, dialect: Dialect) {
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(url).await.expect("a database");
    let migrator = match dialect {
        Dialect::Postgres => sqlx::migrate!("migrations/postgres"),
        Dialect::Sqlite => sqlx::migrate!("migrations/sqlite"),
    };
    migrator.run_to(ONE_ROW, &pool).await.expect("the old version");
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
    for (kind, key) in [("lifecycle", "'a2V5'"), ("dead_letter", "NULL")] {
        let message = format!(
            "INSERT INTO outbox (kind, key, body, headers, reserved_until)
             VALUES ('{kind}', {key}, '{{\"of\": \"{kind}\"}}', '[[\"name\",null]]', 0)"
        );
        pool.execute(AssertSqlSafe(message)).await.expect("an old message");
    }
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
    let told = messages(reserve(&db, 0, 10, 10).await);
    assert_eq!((told[0].kind, told[0].key.as_deref()), (OutboxKind::Lifecycle, Some(&b"key"[..])));
    assert_eq!((told[0].body.get(), told[0].headers.get("name")), (r#"{"of": "lifecycle"}"#, None));
    assert_eq!((told[1].kind, told[1].key.as_deref(), told.len()), (OutboxKind::DeadLetter, None, 2));
    db.close().await;
}
