//! The process dies in the middle of its work, without a word.

use std::time::{Duration, Instant};

use crate::support::mix;
use crate::support::oracle::Oracle;
use crate::support::provider::{Answer, FakeProvider};
use crate::support::service::outcomes;
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::secs;

const EVENTS: usize = 5_000;
const IN_FLIGHT: usize = 50;
/// E-mail, SMS and alerts: the channels that the events ask for.
const LANES: usize = 3;

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn a_crash_loses_nothing_and_repeats_only_what_was_in_flight() {
    let settings = format!(
        "[delivery]\nlease_ms = 7000\nmax_in_flight = {IN_FLIGHT}\n[delivery.retry]\nschedule_ms = [500, 500, 1000]\n"
    );
    // Slow enough for sends to be under way when the process dies.
    let thinks = |_: &_| Answer::After(Duration::from_millis(40), Box::new(Answer::Accept));
    let provider = FakeProvider::answering(thinks);
    let setup = Setup::new(&settings, &provider.for_all_channels(secs(1)));
    let service = setup.start();

    let sent = setup.kafka.produce(mix::mixed(77, EVENTS));
    let oracle = Oracle::of(&sent);
    let expected = oracle.requests.len();
    provider.wait_for_accepted(expected / 3, secs(120));
    service.kill();
    let accepted_before = provider.accepted_count();
    assert!(accepted_before < expected, "it died in the middle: {accepted_before} of {expected} were accepted");

    let restarted = Instant::now();
    let service = setup.start();
    let story = setup.wait_for_the_end(&oracle, &provider, secs(180));

    let ids = verify::requests(&oracle, &story, Copies::Any);
    verify::dead_letters(&oracle.refused, &story, Copies::Any);
    verify::order(&sent, &story);
    verify::each_was_told_as_sent(&ids, &story, Copies::Any);
    let accepted_twice = verify::deliveries(&oracle, &ids, &provider);
    let bound = IN_FLIGHT * LANES;
    assert!(
        accepted_twice.len() <= bound,
        "{} were accepted twice, at most {bound} were in flight",
        accepted_twice.len()
    );
    assert!(!accepted_twice.is_empty(), "sends were under way when it died");
    for id in accepted_twice {
        let times: Vec<Instant> = provider.arrivals_of(&id).iter().map(|arrival| arrival.at).collect();
        assert!(times.len() == 2 && times[0] < restarted && times[1] > restarted, "{id} was in flight at the kill");
        let notification = service.notification(&id).expect("it is known");
        assert_eq!(outcomes(&notification), ["unknown", "accepted"], "{notification}");
        assert_eq!(notification["state"], "sent", "{notification}");
    }
}
