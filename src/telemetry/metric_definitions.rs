//! Every metric of the service: name, kind, unit, help. The names are part of the contract with dashboards.

use metrics::Unit;

/// Records taken, by topic and group. Each record counts once.
pub const CONSUMED: &str = "kafka_messages_consumed_total";
/// End offset less position, by partition.
pub const LAG: &str = "kafka_consumer_lag";
/// Records that became dead letters, by class. Each record counts once.
pub const PROCESSING_ERRORS: &str = "kafka_processing_errors_total";
/// End offsets less start offsets, summed over a topic.
pub const TOPIC_MESSAGES: &str = "kafka_topic_messages";
/// Records that nobody routes.
pub const SKIPPED: &str = "events_skipped_total";
/// Requests published, by channel and template.
pub const REQUESTS_PUBLISHED: &str = "notification_requests_published_total";
/// Notifications settled, by channel and outcome (`sent`, `failed`, `suppressed`, `expired`, `cancelled`).
pub const SETTLED: &str = "notifications_settled_total";
/// Notifications of the shared ledger that are not settled, by channel and state (`pending`, `sending`, `retrying`,
/// `awaiting_contact`).
pub const WAITING: &str = "notifications_waiting";
/// For how long the oldest notification that is due has been due, by channel; 0 when none is.
pub const OVERDUE: &str = "notifications_overdue_seconds";
/// From the event's timestamp to the provider's acceptance.
pub const DELIVERY_SECONDS: &str = "notification_delivery_seconds";
/// From consumed to published.
pub const ROUTING_SECONDS: &str = "routing_seconds";
/// Retries, by stage.
pub const RETRIES: &str = "retries_total";
/// Duplicates that were dropped, by stage.
pub const DUPLICATES_SKIPPED: &str = "duplicates_skipped_total";
/// Events that were not looked up, for the store of processed events was away.
pub const DEDUP_BYPASSED: &str = "dedup_bypassed_total";
/// Dead letters written, by stage and class.
pub const DEAD_LETTERS: &str = "dead_letters_total";
/// 0 closed, 1 half-open, 2 open.
pub const BREAKER_STATE: &str = "circuit_breaker_state";
/// Actors rebuilt by the supervisor.
pub const ACTOR_RESTARTS: &str = "actor_restarts_total";
/// Calls to providers, by outcome.
pub const PROVIDER_REQUESTS: &str = "provider_requests_total";
/// What providers reported later about accepted notifications, by report.
pub const PROVIDER_REPORTS: &str = "provider_reports_total";

/// Groups that stood still without a reason, by group.
pub const STALLS: &str = "kafka_consumer_stalls_total";
/// Age of the oldest record in hand, by partition.
pub const HEAD_OF_LINE: &str = "kafka_head_of_line_seconds";
/// Offsets that were missing, went back or were out of range, by topic.
pub const OFFSET_RESETS: &str = "kafka_offset_resets_total";
/// What happened to Redis streams and their groups, by stream and incident.
pub const STREAM_INCIDENTS: &str = "redis_stream_incidents_total";

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric's description.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
}

const fn define(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Definition {
    Definition { name, kind, unit, help }
}

/// All of them.
pub const ALL: [Definition; 23] = [
    define(CONSUMED, Kind::Counter, Unit::Count, "Records taken from Kafka"),
    define(LAG, Kind::Gauge, Unit::Count, "Records waiting: end offset less the settled position"),
    define(PROCESSING_ERRORS, Kind::Counter, Unit::Count, "Records that could not be processed, by error class"),
    define(TOPIC_MESSAGES, Kind::Gauge, Unit::Count, "Records in a topic: end offsets less start offsets"),
    define(SKIPPED, Kind::Counter, Unit::Count, "Records of event types that nobody routes"),
    define(REQUESTS_PUBLISHED, Kind::Counter, Unit::Count, "Notification requests published"),
    define(SETTLED, Kind::Counter, Unit::Count, "Notifications settled; outcome=\"sent\" is the success"),
    define(WAITING, Kind::Gauge, Unit::Count, "Notifications in the shared ledger that are not settled"),
    define(OVERDUE, Kind::Gauge, Unit::Seconds, "For how long the oldest notification that is due has been due"),
    define(DELIVERY_SECONDS, Kind::Histogram, Unit::Seconds, "From the event's timestamp to the provider's acceptance"),
    define(ROUTING_SECONDS, Kind::Histogram, Unit::Seconds, "From consumed to published"),
    define(RETRIES, Kind::Counter, Unit::Count, "Retries of transient failures"),
    define(DUPLICATES_SKIPPED, Kind::Counter, Unit::Count, "Duplicates recognised and dropped"),
    define(DEDUP_BYPASSED, Kind::Counter, Unit::Count, "Events routed without a look for duplicates: Redis was away"),
    define(DEAD_LETTERS, Kind::Counter, Unit::Count, "Dead letters written durably"),
    define(BREAKER_STATE, Kind::Gauge, Unit::Count, "0 closed, 1 half-open, 2 open"),
    define(ACTOR_RESTARTS, Kind::Counter, Unit::Count, "Actors rebuilt by the supervisor"),
    define(PROVIDER_REQUESTS, Kind::Counter, Unit::Count, "Calls to providers, by outcome"),
    define(PROVIDER_REPORTS, Kind::Counter, Unit::Count, "Later reports of providers: delivered, bounced, complaint …"),
    define(STALLS, Kind::Counter, Unit::Count, "Groups that stood still without a reason and were rebuilt"),
    define(
        HEAD_OF_LINE,
        Kind::Gauge,
        Unit::Seconds,
        "Age of the oldest record in hand, which holds its partition back",
    ),
    define(
        OFFSET_RESETS,
        Kind::Counter,
        Unit::Count,
        "Partitions whose position was not the committed one; reason=\"missing\" is a first start",
    ),
    define(
        STREAM_INCIDENTS,
        Kind::Counter,
        Unit::Count,
        "Groups made anew, entries taken over from dead consumers, pending entries gone from the stream",
    ),
];
