//! Routing in transactions: whatever happens, a reader of committed records sees each request once.

use std::sync::Arc;
use std::time::Duration;

use notification_service::adapters::kafka::{KafkaSource, KafkaTransactions, SourceSettings};
use notification_service::domain::record::Record;
use notification_service::ports::source::{EventSource as _, Settled};
use notification_service::ports::transactions::{TransactionError, Transactions as _};

use crate::support::clients::{client, member, output};
use crate::support::events::order_created;
use crate::support::kafka::{GROUPS, Kafka, NOTIFICATIONS};
use crate::support::mix;
use crate::support::oracle::Oracle;
use crate::support::producer::Sent;
use crate::support::published::Story;
use crate::support::servers::Outage;
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::{self, secs};

const SETTINGS: &str = r#"
    [kafka]
    instance_id = "the-only-one"
    [routing]
    guarantee = "exactly_once"
    [delivery]
    enabled = false
"#;
const EVENTS: usize = 12_000;
const PER_SECOND: u32 = 600;

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn kills_repeat_and_lose_nothing() {
    let setup = Setup::new(SETTINGS, "");
    let mut service = setup.start();
    let load = setup.kafka.produce_steadily(mix::mixed(41, EVENTS), PER_SECOND);
    let mut in_the_middle = 0;
    for kills in 1..=4 {
        let goal = kills * 1_200;
        wait::until("routing gets on", secs(60), || (requests(&setup.kafka) >= goal).then_some(()));
        service.kill();
        in_the_middle += i32::from(setup.kafka.is_routing());
        service = setup.start();
    }
    let sent = load.finish();
    all_is_routed_once(&setup, &sent);
    assert!(in_the_middle > 0, "it died while there was work");
    drop(service);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn orderly_restarts_repeat_and_lose_nothing() {
    let setup = Setup::new(SETTINGS, "");
    let mut service = setup.start();
    let load = setup.kafka.produce_steadily(mix::mixed(42, EVENTS / 2), PER_SECOND);
    for restarts in 1..=3 {
        let goal = restarts * 800;
        wait::until("routing gets on", secs(60), || (requests(&setup.kafka) >= goal).then_some(()));
        service.terminate();
        assert_eq!(service.wait_for_exit(secs(20)).code(), Some(0), "an orderly end");
        service = setup.start();
    }
    let sent = load.finish();
    all_is_routed_once(&setup, &sent);
    drop(service);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn kafka_may_be_away_and_the_lag_ends_at_zero() {
    let setup = Setup::new(SETTINGS, "");
    let mut service = setup.start();
    let load = setup.kafka.produce_steadily(mix::mixed(43, EVENTS), PER_SECOND);
    wait::until("routing gets on", secs(60), || (requests(&setup.kafka) >= 500).then_some(()));
    let outage = Outage::of("kafka");
    outage.hold(secs(12), || assert!(service.is_running(), "it waits for Kafka"));
    outage.end();
    let sent = load.finish();
    all_is_routed_once(&setup, &sent);
    wait::until("nothing lags", secs(15), || (service.metrics().sum("kafka_consumer_lag", &[]) == 0).then_some(()));
    // A static member that commits by itself may be fenced by its own return, which ends its client: that of the letters.
    let restarts = |labels: &[(&str, &str)]| service.metrics().sum("actor_restarts_total", labels);
    let of_letters = restarts(&[("actor", GROUPS[4].0)]);
    assert!(of_letters <= 1, "{of_letters} times");
    assert_eq!(restarts(&[]), of_letters, "all others are the same consumers all along");
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_dead_letter_too_large_for_its_topic_is_parked_and_the_partition_goes_on() {
    let setup = Setup::new(SETTINGS, "");
    let service = setup.start();
    // As base64 it does not fit.
    let huge = order_created("huge", "order-1", "customer", "1").input().with_value(Some(vec![0xfe; 900_000]));
    let sent = setup.kafka.produce(vec![huge, order_created("next", "order-1", "customer", "1").input()]);
    let story = all_is_routed_once(&setup, &sent);
    let [letter] = &story.letters[..] else { panic!("one letter: {:?}", story.letters) };
    assert_eq!(letter.original_message_encoding, "parked");
    let id = letter.parked_id.as_deref().expect("it names its payload");
    let payload = service.get(&format!("/api/v1/dead-letters/{id}/payload"));
    assert_eq!(payload.status, 200);
    assert!(payload.body == vec![0xfe; 900_000], "byte for byte");
}

/// Everything is there, once, in order; a reader of uncommitted records may see more.
#[track_caller]
fn all_is_routed_once(setup: &Setup, sent: &[Sent]) -> Story {
    let oracle = Oracle::of(sent);
    setup.kafka.wait_until_routed(secs(120));
    let story = Story::of(&setup.kafka);
    verify::requests(&oracle, &story, Copies::AsCaused);
    verify::dead_letters(&oracle.refused, &story, Copies::AsCaused);
    verify::order(sent, &story);
    story
}

fn requests(kafka: &Kafka) -> usize {
    kafka.read(NOTIFICATIONS).len()
}

#[test]
#[ignore = "needs Kafka: scripts/test.sh"]
fn an_older_producer_of_the_same_name_is_fenced_off() {
    let setup = Setup::new(SETTINGS, "");
    setup.kafka.produce_one(order_created("one", "order-1", "customer", "1").input());
    on_a_runtime(async {
        let (source, taken) = taken(&setup.kafka).await;
        let (old, new) = (transactions(&source, &setup.kafka), transactions(&source, &setup.kafka));
        old.init().await.expect("begins");
        new.init().await.expect("begins");
        let output = output(&setup.kafka);
        let refused = old.commit(&[&output], &taken).await;
        assert!(matches!(refused, Err(TransactionError::Ended(_))), "a zombie: {refused:?}");
        new.commit(&[&output], &taken).await.expect("the living one writes");
        source.close(secs(5)).await;
    });
    assert_eq!(setup.kafka.read(NOTIFICATIONS).len(), 1, "one of the two is committed");
}

#[test]
#[ignore = "needs Kafka: scripts/test.sh"]
fn after_an_abort_the_same_records_are_committed_once() {
    let setup = Setup::new(SETTINGS, "");
    setup.kafka.produce_one(order_created("one", "order-1", "customer", "1").input());
    on_a_runtime(async {
        let (source, taken) = taken(&setup.kafka).await;
        let transactions = transactions(&source, &setup.kafka);
        transactions.init().await.expect("begins");
        let (good, mut large) = (output(&setup.kafka), output(&setup.kafka));
        large.value = (0..2_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let refused = transactions.commit(&[&good, &large], &taken).await;
        let Err(TransactionError::Rejected(refused)) = refused else { panic!("too large: {refused:?}") };
        assert_eq!(refused.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1]);
        transactions.commit(&[&good], &taken).await.expect("without it");
        source.settle(&taken);
        source.close(secs(5)).await;
    });
    assert_eq!(setup.kafka.read(NOTIFICATIONS).len(), 1, "committed once");
    assert!(!setup.kafka.read_uncommitted(NOTIFICATIONS).is_empty());
}

fn on_a_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async { tokio::time::timeout(secs(60), test).await.expect("in time") });
}

/// A source that has taken the one record of the orders' topic.
async fn taken(kafka: &Kafka) -> (Arc<KafkaSource>, Vec<Settled>) {
    let settings = SourceSettings { revoke_patience: Duration::ZERO, transactional: true, ..member(kafka) };
    let source = KafkaSource::start(settings).expect("starts");
    let records: Vec<Record> = source.next_batch(10).await.expect("a record");
    (source, records.into_iter().map(Settled::from).collect())
}

fn transactions(source: &KafkaSource, kafka: &Kafka) -> KafkaTransactions {
    source.transactions(&client(&kafka.brokers), &kafka.named("a-producer"))
}
