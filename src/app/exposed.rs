//! Exposes every series that is known beforehand, before its first event.

use crate::config::Config;
use crate::domain::channel::Channel;
use crate::domain::dead_letter::Stage;
use crate::domain::error::ErrorClass;
use crate::ports::ledger::{Outcome, State};
use crate::telemetry::events::StreamIncident;
use crate::telemetry::metric_definitions as names;
use crate::telemetry::metrics_server::expose;

/// What the built-in handlers request.
const BUILT_IN: [(Channel, &str); 7] = [
    (Channel::Email, "order_confirmation"),
    (Channel::Sms, "payment_confirmation"),
    (Channel::Email, "order_shipped"),
    (Channel::Email, "order_cancelled"),
    (Channel::Email, "payment_failed"),
    (Channel::Email, "welcome"),
    (Channel::AdminAlert, "product_out_of_stock"),
];

/// Exposes them.
pub fn expose_all(config: &Config) {
    for stage in Stage::ALL {
        let stage = || ("stage", stage.as_str().to_owned());
        expose(names::RETRIES, &[stage()]);
        expose(names::DUPLICATES_SKIPPED, &[stage()]);
        for class in ErrorClass::ALL {
            expose(names::DEAD_LETTERS, &[stage(), ("class", class.as_str().to_owned())]);
        }
    }
    for (channel, template) in BUILT_IN {
        let labels = [("channel", channel.as_str().to_owned()), ("template", template.to_owned())];
        expose(names::REQUESTS_PUBLISHED, &labels);
    }
    for route in &config.routing.routes {
        let labels = [("channel", route.channel.as_str().to_owned()), ("template", route.template.clone())];
        expose(names::REQUESTS_PUBLISHED, &labels);
    }
    for channel in Channel::ALL {
        for outcome in State::ALL.into_iter().filter(|state| state.is_settled()) {
            let labels = [("channel", channel.as_str().to_owned()), ("outcome", outcome.as_str().to_owned())];
            expose(names::SETTLED, &labels);
        }
        for state in State::ALL.into_iter().filter(|state| !state.is_settled()) {
            let labels = [("channel", channel.as_str().to_owned()), ("state", state.as_str().to_owned())];
            expose(names::WAITING, &labels);
        }
        expose(names::OVERDUE, &[("channel", channel.as_str().to_owned())]);
    }
    for provider in &config.delivery.providers {
        for outcome in Outcome::ALL {
            let labels = [("provider", provider.name.clone()), ("outcome", outcome.as_str().to_owned())];
            expose(names::PROVIDER_REQUESTS, &labels);
        }
        // What every kind reports in the end, if it reports at all.
        let labels = [("provider", provider.name.clone()), ("report", "delivered".to_owned())];
        expose(names::PROVIDER_REPORTS, &labels);
    }
    for (topic, _) in config.kafka.partitions.all() {
        expose(names::TOPIC_MESSAGES, &[("topic", config.kafka.topics().named(topic))]);
    }
    for topic in config.kafka.topics().all() {
        for reason in ["missing", "out_of_range", "went_back"] {
            expose(names::OFFSET_RESETS, &[("topic", topic.to_string()), ("reason", reason.to_owned())]);
        }
    }
    expose(names::DEDUP_BYPASSED, &[]);
    for source in &config.routing.sources {
        for incident in StreamIncident::ALL {
            let labels = [("topic", source.stream.clone()), ("incident", incident.as_str().to_owned())];
            expose(names::STREAM_INCIDENTS, &labels);
        }
    }
    expose(names::DELIVERY_SECONDS, &[]);
    expose(names::ROUTING_SECONDS, &[]);
}
