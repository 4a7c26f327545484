//! Three instances under load are replaced one after the other, twice.

use super::feeder::Feeder;
use super::fleet::Fleet;
use super::settings::Guarantee;
use super::tally::Tally;
use super::watch::Watch;
use crate::support::kafka::Kafka;
use crate::support::wait::{self, secs};

const ROUNDS: usize = 2;
const INSTANCES: usize = 3;
const PER_SECOND: u64 = 500;

#[test]
#[ignore = "needs Kafka: scripts/test.sh"]
fn at_least_once() {
    roll(Guarantee::AtLeastOnce, |fleet| fleet);
}

#[test]
#[ignore = "needs Kafka: scripts/test.sh"]
fn exactly_once() {
    roll(Guarantee::ExactlyOnce, |fleet| fleet);
}

#[test]
#[ignore = "needs Kafka: scripts/test.sh"]
fn of_instances_with_names() {
    roll(Guarantee::AtLeastOnce, Fleet::with_names);
}

fn roll(guarantee: Guarantee, prepare: fn(Fleet) -> Fleet) {
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::corner();
    let mut fleet = prepare(Fleet::new(folder.path(), &kafka.brokers, &kafka, guarantee));
    fleet.create_topics(1);
    fleet.resize(INSTANCES);
    fleet.wait_until_shared();
    let feeder = Feeder::start(&kafka, 71, PER_SECOND);
    let watch = Watch::over(&kafka);
    for _ in 0..ROUNDS {
        fleet.roll(|| {
            let before = watch.requests();
            wait::until("routing gets on", secs(60), || (watch.requests() > before + PER_SECOND).then_some(()));
        });
    }
    let ledger = feeder.finish();
    kafka.wait_until_routed(secs(120));
    let tally = Tally::of(&kafka, ledger);
    assert!(tally.requests > 0, "{tally:?}");
    assert_eq!(tally.broken_promises(false), Vec::<String>::new(), "neither lost nor repeated");
}
