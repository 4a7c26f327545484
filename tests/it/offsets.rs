//! The topic no longer has what the group has not read: counted, told, and decided by the configuration.

use crate::support::events::{Input, order_created};
use crate::support::kafka::{NOTIFICATIONS, ORDERS};
use crate::support::oracle::Oracle;
use crate::support::published::Story;
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::{self, secs};

const QUICK: &str = "[delivery]\nenabled = false\n[supervision]\nrestart_budget = 1\nrestart_initial_ms = 50\n";

fn orders(name: &str) -> Vec<Input> {
    (0..60).map(|n| order_created(&format!("{name}-{n}"), &format!("order-{n}"), "customer", "1").input()).collect()
}

/// A group that has read the first orders, and others that were removed before it read them.
fn cut_behind_its_back(setup: &Setup) {
    let mut service = setup.start();
    wait::until("a first start is told", secs(20), || {
        let missing = [("topic", ORDERS), ("reason", "missing")];
        (service.metrics().sum("kafka_offset_resets_total", &missing) == 3).then_some(())
    });
    setup.kafka.produce(orders("read"));
    setup.kafka.wait_until_routed(secs(30));
    service.terminate();
    assert_eq!(service.wait_for_exit(secs(20)).code(), Some(0));
    setup.kafka.produce(orders("removed"));
    setup.kafka.cut(ORDERS);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_committed_offset_out_of_range_is_counted_and_what_is_there_is_routed() {
    let setup = Setup::new(QUICK, "");
    cut_behind_its_back(&setup);
    let service = setup.start();
    let sent = setup.kafka.produce(orders("after"));
    setup.kafka.wait_until_routed(secs(30));
    let reset = |reason| service.metrics().sum("kafka_offset_resets_total", &[("topic", ORDERS), ("reason", reason)]);
    assert!(reset("out_of_range") >= 3, "each partition is counted");
    assert_eq!(reset("missing"), 0);
    assert!(service.log().contains("the committed offset is out of range"), "and told");
    let mut story = Story::of(&setup.kafka);
    assert_eq!(story.requests.len(), 120, "what was read before, and what came after the cut");
    story.requests.retain(|request| request.causation_id().starts_with("after"));
    verify::requests(&Oracle::of(&sent), &story, Copies::AsCaused);
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn the_group_may_stop_instead() {
    let strict = format!("{QUICK}[kafka]\nauto_offset_reset = \"error\"\n");
    let begin = Setup::new(QUICK, "");
    cut_behind_its_back(&begin);
    let before = begin.kafka.count(NOTIFICATIONS);
    let setup = begin.with_settings(&strict);
    let service = setup.spawn();
    setup.kafka.produce(orders("after"));
    wait::until("it is not ready for good", secs(60), || {
        let actors = service.try_get("/api/v1/system").ok()?.json()["actors"].to_string();
        actors.contains("given_up").then_some(())
    });
    assert_eq!(service.get("/health/ready").status, 503);
    assert!(service.log().contains("kafka.auto_offset_reset is `error`"), "it says why");
    assert_eq!(setup.kafka.count(NOTIFICATIONS), before, "nothing was skipped");
}
