//! The broker that leads all output is frozen, the others bring input: memory stays bounded, and nothing is given up.

use std::collections::HashSet;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use super::cluster::Cluster;
use super::fleet::Fleet;
use super::settings::Guarantee;
use crate::support::kafka::{DEAD_LETTERS, Kafka, NOTIFICATIONS, ORDERS, PRODUCTS, USERS};
use crate::support::service::{MOST_RESIDENT, Service};
use crate::support::wait::{self, secs};
use crate::support::{runtime, unique};

/// Seconds: many times what an acknowledgement may take before the breaker opens, and more than any session lasts.
const STALLED: u64 = 60;
/// Where input stands.
const AWAKE: [&[i32]; 3] = [&[1], &[2], &[1]];
/// Where output goes.
const FROZEN: [&[i32]; 3] = [&[3], &[3], &[3]];

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Id {
    event_id: String,
}

#[test]
#[ignore = "needs Java and Kafka's jars: scripts/test.sh"]
fn a_million_events_may_wait_for_acknowledgements() {
    output_stalls(Guarantee::AtLeastOnce, 1_000_000);
}

#[test]
#[ignore = "needs Java and Kafka's jars: scripts/test.sh"]
fn a_hundred_thousand_events_may_wait_for_a_transaction() {
    output_stalls(Guarantee::ExactlyOnce, 100_000);
}

fn output_stalls(guarantee: Guarantee, events: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), 3);
    let kafka = Kafka { brokers: cluster.addresses(), prefix: format!("stalled-{}.", unique()) };
    create_topics(&kafka);
    let mut fleet = Fleet::new(folder.path(), &kafka.brokers, &kafka, guarantee);
    fleet.resize(1);
    fleet.wait_until_shared();
    let service = fleet.member(0);
    let frozen = &cluster.brokers()[2];
    frozen.signal("STOP");
    let since = Instant::now();
    kafka.produce_orders(events);
    let (mut most, mut opened) = (0, false);
    let mut look = || {
        most = most.max(service.resident());
        let metrics = service.metrics();
        opened |= metrics.sum("circuit_breaker_state", &[("breaker", "kafka")]) == 2;
        metrics
    };
    let stalled = wait::until("a minute", secs(STALLED + 60), || {
        let metrics = look();
        (since.elapsed() >= secs(STALLED)).then_some(metrics)
    });
    assert_eq!(published(service), 0, "nothing came out");
    assert!(stalled.sum("kafka_messages_consumed_total", &[]) > 0, "and input went on");
    frozen.signal("CONT");
    wait::until("all of it is routed", secs(300), || {
        (look().sum("notification_requests_published_total", &[]) >= events).then_some(())
    });
    kafka.wait_until_routed(secs(60));
    assert!(opened, "the breaker knew");
    let (mut found, mut distinct) = (0, HashSet::new());
    kafka.for_each(NOTIFICATIONS, "read_committed", |record| {
        found += 1;
        let value = record.value.expect("a request");
        distinct.insert(serde_json::from_slice::<Id>(&value).expect("an envelope").event_id);
    });
    assert_eq!((distinct.len() as u64, kafka.count(DEAD_LETTERS)), (events, 0), "all, and nothing was given up");
    // The frozen broker may coordinate a group, which then may lose its partitions and read again what is in hand.
    if guarantee == Guarantee::ExactlyOnce {
        assert_eq!(found, events, "each once");
    }
    eprintln!("{}: {events} events waited, at most {} MB resident", guarantee.as_str(), most / 1_000_000);
    assert!(most < MOST_RESIDENT, "{most} bytes were resident");
}

fn published(service: &Service) -> u64 {
    service.metrics().sum("notification_requests_published_total", &[])
}

/// One replica of each partition, so that no other broker can take the output over.
#[track_caller]
fn create_topics(kafka: &Kafka) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &kafka.brokers).create().expect("a client");
    let placed: [(&str, &[&[i32]]); 6] = [
        (ORDERS, &AWAKE),
        (USERS, &AWAKE),
        (PRODUCTS, &AWAKE),
        (NOTIFICATIONS, &FROZEN),
        (DEAD_LETTERS, &AWAKE[..1]),
        ("audit-events", &AWAKE[..2]),
    ];
    let names = placed.map(|(name, _)| kafka.named(name));
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .zip(&placed)
        .map(|(name, (_, replicas))| NewTopic::new(name, replicas.len() as i32, TopicReplication::Variable(replicas)))
        .collect();
    let made = runtime().block_on(admin.create_topics(&topics, &AdminOptions::new())).expect("Kafka answers");
    made.into_iter().for_each(|topic| assert!(topic.is_ok(), "{topic:?}"));
}
