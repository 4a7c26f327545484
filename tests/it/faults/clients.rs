//! The service's own clients of Kafka over a network that is spoilt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use notification_service::adapters::kafka::{ClientSettings, KafkaPublisher, KafkaSource, SourceSettings};
use notification_service::domain::record::OutboundRecord;
use notification_service::ports::publisher::{EventPublisher as _, PublishError};
use notification_service::ports::source::EventSource as _;

use super::cluster::Cluster;
use super::fleet::Fleet;
use super::proxy::{Proxies, Toxic};
use super::settings::Guarantee;
use crate::support::clients::{client, member, one_thread, output};
use crate::support::kafka::{Kafka, NOTIFICATIONS};
use crate::support::unique;
use crate::support::wait::{self, secs};

/// An answer of the broker takes so many milliseconds, so that records one after the other would take 40 s.
const LATENCY: u64 = 200;
const RECORDS: usize = 200;

struct Parts {
    proxies: Proxies,
    kafka: Kafka,
    _cluster: Cluster,
    _folder: tempfile::TempDir,
}

#[test]
#[ignore = "needs Java, Kafka's jars and toxiproxy: scripts/test.sh"]
fn the_records_of_a_batch_wait_together_and_not_for_each_other() {
    let (mut parts, runtime) = (Parts::start(), one_thread());
    let publisher = parts.publisher();
    // The client knows the brokers by now.
    assert!(runtime.block_on(publish(&publisher, &parts.kafka, 1)).is_empty());
    parts.proxies.spoil(Toxic::Latency(LATENCY));
    assert!(parts.proxies.round_trip(0).expect("an answer") >= Duration::from_millis(LATENCY));
    let one_after_the_other = Duration::from_millis(LATENCY) * RECORDS as u32;
    let together = publish(&publisher, &parts.kafka, RECORDS);
    let in_time = async { tokio::time::timeout(one_after_the_other / 10, together).await };
    assert!(runtime.block_on(in_time).expect("together").is_empty());
    parts.proxies.heal();
    assert_eq!(parts.kafka.count(NOTIFICATIONS), 1 + RECORDS as u64);
}

#[test]
#[ignore = "needs Java, Kafka's jars and toxiproxy: scripts/test.sh"]
fn an_acknowledgement_that_is_lost_repeats_no_record() {
    let (mut parts, runtime) = (Parts::start(), one_thread());
    let publisher = parts.publisher();
    assert!(runtime.block_on(publish(&publisher, &parts.kafka, 1)).is_empty());
    parts.proxies.spoil(Toxic::LostAnswers);
    let kafka = parts.kafka.clone();
    let mut acks = Box::pin(publish(&publisher, &kafka, 1));
    let mut acknowledged = |within| runtime.block_on(async { tokio::time::timeout(within, &mut acks).await.ok() });
    // It is appended, and nobody is told: the client tries again.
    wait::until("it is appended", secs(20), || {
        assert!(acknowledged(Duration::from_millis(50)).is_none(), "not acknowledged");
        (kafka.count(NOTIFICATIONS) == 2).then_some(())
    });
    parts.proxies.spoil(Toxic::Reset);
    assert!(acknowledged(secs(2)).is_none(), "not acknowledged");
    parts.proxies.heal();
    assert!(acknowledged(secs(60)).expect("acknowledged").is_empty());
    assert_eq!(kafka.count(NOTIFICATIONS), 2, "appended once");
}

#[test]
#[ignore = "needs Java, Kafka's jars and toxiproxy: scripts/test.sh"]
fn giving_up_a_source_blocks_nobody_while_the_broker_does_not_answer() {
    let (mut parts, runtime) = (Parts::start(), one_thread());
    let source = parts.source();
    wait::until("it is a member", secs(30), || (!source.status().assigned.is_empty()).then_some(()));
    parts.proxies.spoil(Toxic::LostAnswers);
    // Leaving the group would take as long as its session: 10 s.
    let waited = runtime.block_on(async {
        let began = Instant::now();
        drop(source);
        began.elapsed()
    });
    assert!(waited < secs(1), "whoever shares the thread waited for {waited:?}");
    parts.proxies.heal();
}

impl Parts {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = Cluster::start(folder.path(), 1);
        let proxies = Proxies::start(folder.path(), cluster.brokers());
        let kafka = Kafka { brokers: cluster.addresses(), prefix: format!("clients-{}.", unique()) };
        Fleet::new(folder.path(), &kafka.brokers, &kafka, Guarantee::AtLeastOnce).create_topics(1);
        Self { proxies, kafka, _cluster: cluster, _folder: folder }
    }

    fn client(&self) -> ClientSettings {
        client(&self.proxies.addresses())
    }

    fn publisher(&self) -> Arc<KafkaPublisher> {
        KafkaPublisher::new(self.client()).expect("a producer")
    }

    fn source(&self) -> Arc<KafkaSource> {
        KafkaSource::start(SourceSettings { client: self.client(), ..member(&self.kafka) }).expect("starts")
    }
}

/// The failures of so many records on one partition.
async fn publish(publisher: &KafkaPublisher, kafka: &Kafka, count: usize) -> Vec<(usize, PublishError)> {
    let record = OutboundRecord { key: Some(b"the same".as_slice().into()), ..output(kafka) };
    publisher.publish(&vec![record; count]).await.await
}
