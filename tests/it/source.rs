//! A group's source at a real broker, on a runtime with a single thread: whatever that thread does, the source polls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use notification_service::adapters::kafka::KafkaSource;
use notification_service::ports::source::{EventSource as _, PauseReason, Settled, SourceStatus};

use crate::support::clients::{member, on_one_thread};
use crate::support::events::order_created;
use crate::support::kafka::Kafka;
use crate::support::setup::Setup;
use crate::support::wait::secs;

/// Over all partitions; more than the source keeps ready.
const RECORDS: usize = 300;
const PARTITIONS: usize = 3;

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn work_that_takes_longer_than_a_member_may_be_silent_costs_no_partition() {
    let setup = with_records();
    on_one_thread(async {
        let source = open(&setup.kafka, &[("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000")]);
        let taken = take(&[&source], 10).await;
        thread::sleep(secs(9));
        source.settle(&taken);
        source.settle(&take(&[&source], RECORDS - taken.len()).await);
        // A member that is late learns only now that it is none any more.
        let status = source.status();
        assert_eq!((status.assigned.len(), status.lost_assignments), (PARTITIONS, 0));
        source.close(secs(10)).await;
    });
    nothing_comes_again_and_nothing_is_skipped(&setup.kafka);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_rebalance_waits_for_work_and_work_does_not_wait_for_the_rebalance() {
    let setup = with_records();
    on_one_thread(async {
        let first = open(&setup.kafka, &[]);
        let taken = take(&[&first], RECORDS).await;
        let second = open(&setup.kafka, &[]);
        while !first.status().assigned.is_empty() && second.status().assigned.is_empty() {
            // The rebalance is under way, and its callback waits for these.
            tokio::time::sleep(secs(1)).await;
            first.settle(&taken);
        }
        until_shared(&[&first, &second]).await;
        assert_eq!(first.status().lost_assignments, 0);
        for source in [first, second] {
            assert!(tokio::time::timeout(secs(2), source.next_batch(1)).await.is_err(), "all is settled");
            source.close(secs(10)).await;
        }
    });
    nothing_comes_again_and_nothing_is_skipped(&setup.kafka);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_pause_outlives_a_rebalance_and_ends_with_its_reason() {
    let setup = Setup::new("", "");
    let breaker = || PauseReason::Breaker("kafka".to_owned());
    on_one_thread(async {
        let first = open(&setup.kafka, &[]);
        until_shared(&[&first]).await;
        first.pause(breaker());
        let second = open(&setup.kafka, &[]);
        second.pause(breaker());
        until_shared(&[&first, &second]).await;
        produce(&setup.kafka);
        for source in [&first, &second] {
            assert!(tokio::time::timeout(secs(3), source.next_batch(1)).await.is_err(), "it is paused");
        }
        first.resume(&breaker());
        second.resume(&breaker());
        let taken = take(&[&first, &second], RECORDS).await;
        let distinct: BTreeSet<_> = taken.iter().map(|settled| (settled.at.partition, settled.at.offset)).collect();
        assert_eq!(distinct.len(), RECORDS);
        first.close(secs(10)).await;
        second.close(secs(10)).await;
    });
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_thread_that_is_held_up_and_a_rebalance_that_does_not_end_are_seen() {
    let setup = with_records();
    on_one_thread(async {
        let first = open(&setup.kafka, &[]);
        assert!(first.status().outside.is_some(), "it has not joined yet");
        let taken = take(&[&first], RECORDS).await;
        let status = first.status();
        assert!(status.outside.is_none() && status.hung < secs(5), "{status:?}");
        // The rebalance's callback waits on that thread for what is in hand.
        let second = open(&setup.kafka, &[]);
        until(&first, |status| status.outside.is_some() && status.hung > Duration::from_millis(500)).await;
        first.settle(&taken);
        until_shared(&[&first, &second]).await;
        for source in [first, second] {
            until(&source, |status| status.outside.is_none() && status.hung < Duration::from_millis(500)).await;
            source.close(secs(10)).await;
        }
    });
}

/// Topics and a database, and records on the topic of orders.
fn with_records() -> Setup {
    let setup = Setup::new("", "");
    produce(&setup.kafka);
    setup
}

fn produce(kafka: &Kafka) {
    let order = |n: usize| order_created(&format!("e-{n}"), &format!("order-{n}"), "customer", "1").input();
    kafka.produce((0..RECORDS).map(order).collect());
}

fn open(kafka: &Kafka, properties: &[(&str, &str)]) -> Arc<KafkaSource> {
    let mut settings = member(kafka);
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    settings.client.properties.extend(properties);
    KafkaSource::start(settings).expect("starts")
}

/// Waits until a source stands like this.
async fn until(source: &KafkaSource, stands: impl Fn(&SourceStatus) -> bool) {
    let looked = async {
        while !stands(&source.status()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let stood = tokio::time::timeout(secs(30), looked).await;
    assert!(stood.is_ok(), "it stands otherwise: {:?}", source.status());
}

/// Waits until the sources have all partitions among them, and each has some.
async fn until_shared(sources: &[&Arc<KafkaSource>]) {
    loop {
        let shares: Vec<usize> = sources.iter().map(|source| source.status().assigned.len()).collect();
        if shares.iter().sum::<usize>() == PARTITIONS && !shares.contains(&0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The next records, so many, whichever source has them.
async fn take(sources: &[&Arc<KafkaSource>], count: usize) -> Vec<Settled> {
    let mut taken = Vec::new();
    for source in sources.iter().cycle() {
        let left = count - taken.len();
        if left == 0 {
            break;
        }
        let batch = tokio::time::timeout(Duration::from_millis(100), source.next_batch(left)).await;
        taken.extend(batch.into_iter().flat_map(|records| records.expect("it lives")).map(Settled::from));
    }
    taken
}

/// What the group's next member gets first is what came last.
fn nothing_comes_again_and_nothing_is_skipped(kafka: &Kafka) {
    let last = kafka.produce_one(order_created("the-last", "order-0", "customer", "1").input());
    on_one_thread(async {
        let source = open(kafka, &[]);
        let taken = take(&[&source], 1).await;
        assert_eq!((taken[0].at.partition, taken[0].at.offset), (last.partition, last.offset));
        source.close(secs(10)).await;
    });
}
