//! Topics that take smaller batches than usual.

use crate::support::kafka::{DEAD_LETTERS, NOTIFICATIONS};
use crate::support::setup::Setup;
use crate::support::wait::secs;

const EVENTS: u64 = 5_000;
/// Some thirty requests, where a backlog makes batches of hundreds.
const MOST_BYTES: u32 = 20_000;

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn what_is_sound_is_not_refused_for_the_size_of_its_batch() {
    for guarantee in ["at_least_once", "exactly_once"] {
        let settings = format!("[routing]\nguarantee = \"{guarantee}\"\n[delivery]\nenabled = false\n");
        let setup = Setup::new(&settings, "");
        setup.kafka.limit(NOTIFICATIONS, MOST_BYTES);
        setup.kafka.produce_orders(EVENTS);
        let service = setup.start();
        setup.kafka.wait_until_routed(secs(120));
        let published = service.metrics().sum("notification_requests_published_total", &[]);
        assert_eq!((published, setup.kafka.count(DEAD_LETTERS)), (EVENTS, 0), "{guarantee}");
        assert_eq!(setup.kafka.read(NOTIFICATIONS).len() as u64, EVENTS, "{guarantee}");
    }
}
