//! Faults that really happen, to real brokers, a real network and the real binary, under an input whose effects are
//! known beforehand. Short runs are tests; `scripts/faults.sh` makes long ones of them.

mod broker;
mod clients;
mod cluster;
mod feeder;
mod fleet;
mod inject;
mod ledger;
mod lost_commit;
mod plan;
mod probe;
mod progress;
mod proxy;
mod redis;
mod report;
mod rolling_deploys_repeat_nothing;
mod run;
mod settings;
mod stage;
mod stalled_output;
mod tally;
mod watch;

use plan::Kind;
use run::run;
use settings::{Guarantee, Settings};

#[test]
#[ignore = "needs Java, Kafka's jars and toxiproxy: scripts/test.sh; for long: scripts/faults.sh"]
fn at_least_once_loses_nothing() {
    let kinds = [Kind::KillInstance, Kind::ChangeMembership, Kind::KillBroker, Kind::Reset];
    run(&Settings::short(Guarantee::AtLeastOnce, 1, &kinds).or_as_asked());
}

#[test]
#[ignore = "needs Java, Kafka's jars and toxiproxy: scripts/test.sh; for long: scripts/faults.sh"]
fn exactly_once_loses_and_repeats_nothing() {
    let kinds = [Kind::KillInstance, Kind::FreezeInstance, Kind::StopBroker, Kind::Cut];
    run(&Settings::short(Guarantee::ExactlyOnce, 2, &kinds).or_as_asked());
}

#[test]
#[ignore = "needs Java, Kafka's jars and toxiproxy: scripts/test.sh"]
fn three_brokers_fail_over() {
    let kinds = [Kind::KillBroker, Kind::MoveLeaders, Kind::Latency];
    run(&Settings::short(Guarantee::ExactlyOnce, 3, &kinds).on_brokers(3).or_as_asked());
}
