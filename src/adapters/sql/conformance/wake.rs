//! Instances that share a database hear of each other at once.

use std::time::Duration;

use super::*;
use crate::ports::inbox::{Inbox as _, NewEntry};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: TEST_DATABASE_URL"]
async fn work_and_inboxes_of_one_instance_wake_another() {
    on_postgres(others_are_woken).await;
}

async fn others_are_woken(database: &Fresh) {
    let other = database.again().await;
    let (here, there) = (database.database.clone(), other.clone());
    let following = [
        tokio::spawn(async move { here.follow_others().await }),
        tokio::spawn(async move { there.follow_others().await }),
    ];
    let (mut work, mut inboxes) = (other.work(), other.changes());
    // Listening begins some time after the task: until then there is nobody to wake.
    for number in 0.. {
        insert(database, &[&format!("n-{number}")]).await;
        assert!(number < 100, "the other instance is never woken");
        if tokio::time::timeout(Duration::from_millis(100), work.changed()).await.is_ok() {
            break;
        }
    }
    let entry = NewEntry {
        id: "n".into(),
        recipient: "someone".into(),
        subject: None,
        body: "text".into(),
        template: "t".into(),
        category: "c".into(),
        data_json: "{}".into(),
    };
    crate::ports::inbox::Inbox::put(&database.database, entry).await.expect("is put");
    let heard = tokio::time::timeout(Duration::from_secs(5), inboxes.recv()).await.expect("in time").expect("heard");
    assert_eq!(heard, "someone");
    following.iter().for_each(tokio::task::JoinHandle::abort);
    other.close().await;
}
