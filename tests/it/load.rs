//! The load test that comes with the service.

use crate::support::command::Finished;
use crate::support::provider::FakeProvider;
use crate::support::setup::Setup;
use crate::support::wait::secs;

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn ten_thousand_events_are_followed_to_their_requests() {
    let finished = load_test(&["--count", "10000", "--batch", "100"]);
    let finished = finished.expect_code(0).expect_words(&["throughput", "p50", "p95", "p99", "duplicates"]);
    assert_eq!(finished.count("missing"), 0);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn the_result_can_be_one_json_object() {
    let result = load_test(&["--count", "1000", "--batch", "100", "--json"]).expect_code(0).json_object();
    for key in ["throughput", "p50", "p95", "p99", "missing", "duplicates"] {
        assert!(result.get(key).is_some_and(|value| value.is_number()), "{key} in {result:?}");
    }
    assert_eq!(result["missing"], 0);
    assert!(result["throughput"].as_f64() > Some(0.0), "{result:?}");
    assert!(result["p50"].as_f64() <= result["p95"].as_f64() && result["p95"].as_f64() <= result["p99"].as_f64());
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_thousand_events_are_followed_to_their_acceptance() {
    let args = ["--count", "1000", "--batch", "100", "--follow", "delivered"];
    let finished = load_test(&args).expect_code(0);
    assert_eq!(finished.count("missing"), 0);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn what_does_not_arrive_is_missing() {
    let provider = FakeProvider::accepting();
    let setup = Setup::new("", &provider.for_all_channels(secs(5)));
    let nobody_routes = setup.command(&["load-test", "--count", "100", "--batch", "10"]).run(secs(180)).expect_code(1);
    assert_eq!(nobody_routes.count("missing"), 100);
}

/// Runs the load test against a running service.
#[track_caller]
fn load_test(args: &[&str]) -> Finished {
    let provider = FakeProvider::accepting();
    let setup = Setup::new("", &provider.for_all_channels(secs(5)));
    let _service = setup.start();
    let finished = setup.command(&[&["load-test"], args].concat()).run(secs(180));
    let accepts = args.contains(&"delivered");
    assert!(!accepts || provider.accepted_count() >= 1000, "the provider saw them all");
    finished
}
