//! The main job at volume: everything that must come of an input comes, exactly, and nothing else.

use crate::support::kafka::{DEAD_LETTERS, GROUPS, Kafka, NOTIFICATIONS, ORDERS, PRODUCTS, USERS};
use crate::support::metrics_text::Metrics;
use crate::support::mix;
use crate::support::oracle::Oracle;
use crate::support::producer::Sent;
use crate::support::provider::FakeProvider;
use crate::support::service::Service;
use crate::support::setup::Setup;
use crate::support::verify::{self, Copies};
use crate::support::wait::{self, secs};

const EVENTS: usize = 20_000;

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn mixed_events_become_exactly_the_notifications_they_ask_for() {
    let provider = FakeProvider::accepting();
    let setup = Setup::new("", &provider.for_all_channels(secs(5)));
    let service = setup.start();

    let sent = setup.kafka.produce(mix::mixed(2026, EVENTS));
    let oracle = Oracle::of(&sent);
    the_input_is_worth_a_test(&sent, &oracle);
    let story = setup.wait_for_the_end(&oracle, &provider, secs(300));

    let ids = verify::requests(&oracle, &story, Copies::AsCaused);
    let accepted_twice = verify::deliveries(&oracle, &ids, &provider);
    assert_eq!(accepted_twice, Vec::<String>::new(), "nothing is sent twice");
    verify::each_was_told_as_sent(&ids, &story, Copies::AsCaused);
    verify::dead_letters(&oracle.refused, &story, Copies::AsCaused);
    verify::order(&sent, &story);
    encodings_are_all_there(&story.letters);

    let requests_seen = story.requests.len() as u64;
    the_metrics_agree(&service, &setup.kafka, &oracle, requests_seen);
}

fn the_input_is_worth_a_test(sent: &[Sent], oracle: &Oracle<'_>) {
    assert_eq!(sent.len(), EVENTS);
    let repeated = oracle.requests.values().filter(|expected| expected.times > 1).count();
    let (asked, refused) = (oracle.requests.len(), oracle.refused.len());
    assert!(asked > 12_000 && oracle.skipped > 2_000, "{asked} requests, {} skipped", oracle.skipped);
    assert!(refused > 120 && repeated > 80, "{refused} refused, {repeated} repeated");
    assert!(oracle.requests.values().any(|expected| expected.trace.is_some()));
    let unusual = ["1e3", "99.10", "12345678901234567890"];
    for amount in unusual {
        let kept = oracle.requests.keys().any(|c| c.data.get("amount").is_some_and(|text| text == amount));
        assert!(kept, "an order of {amount}");
    }
}

fn encodings_are_all_there(letters: &[crate::support::published::DeadLetter]) {
    for encoding in ["json", "base64", "null"] {
        assert!(letters.iter().any(|letter| letter.original_message_encoding == encoding), "{encoding}");
    }
}

fn the_metrics_agree(service: &Service, kafka: &Kafka, oracle: &Oracle<'_>, requests_seen: u64) {
    let metrics = service.metrics();
    for (group, topic) in GROUPS {
        let consumed = metrics.sum("kafka_messages_consumed_total", &[("topic", topic), ("consumer_group", group)]);
        assert_eq!(consumed, kafka.count(topic), "each record of {topic} counts once for {group}");
    }
    let asked = oracle.requests.len() as u64;
    let refused = oracle.refused.len() as u64;
    assert_eq!(metrics.sum("dead_letters_total", &[]), refused);
    assert_eq!(metrics.sum("dead_letters_total", &[("stage", "routing"), ("class", "permanent")]), refused);
    assert_eq!(metrics.sum("kafka_processing_errors_total", &[("class", "permanent")]), refused);
    assert_eq!(metrics.sum("notifications_settled_total", &[("outcome", "sent")]), asked);
    assert_eq!(metrics.sum("notifications_settled_total", &[]), asked);
    assert_eq!(metrics.sum("provider_requests_total", &[("outcome", "accepted")]), asked);
    assert_eq!(metrics.sum("notification_requests_published_total", &[]), requests_seen);
    assert_eq!(metrics.sum("notification_delivery_seconds_count", &[]), asked);
    for channel in ["email", "sms", "admin_alert"] {
        let of_channel = oracle.requests.keys().filter(|content| content.channel == channel).count() as u64;
        let labels = [("channel", channel), ("outcome", "sent")];
        assert_eq!(metrics.sum("notifications_settled_total", &labels), of_channel, "{channel}");
    }
    let measured = |metrics: &Metrics| {
        let topics = [ORDERS, USERS, PRODUCTS, NOTIFICATIONS, DEAD_LETTERS];
        let right = |topic| metrics.sum("kafka_topic_messages", &[("topic", topic)]) == kafka.count(topic);
        topics.into_iter().all(right) && metrics.sum("kafka_consumer_lag", &[]) == 0
    };
    wait::until("depths of topics are right and nothing lags", secs(15), || measured(&service.metrics()).then_some(()));
}
