//! Notable events: each is one call that logs, counts, and tells the journal that `demo` prints.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::broadcast;
use tracing::{debug, error, info, warn};

use super::metric_definitions::{
    ACTOR_RESTARTS, BREAKER_STATE, DEAD_LETTERS, OFFSET_RESETS, PROVIDER_REPORTS, PROVIDER_REQUESTS, RETRIES, SETTLED,
    STALLS, STREAM_INCIDENTS,
};

/// What happened, in words for people.
#[derive(Debug, Clone)]
pub struct Notable {
    /// What kind of thing it is.
    pub kind: NotableKind,
    /// One line.
    pub text: String,
}

/// Kinds of notable events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NotableKind {
    Delivered,
    Waiting,
    Retry,
    DeadLetter,
    Outage,
    Recovery,
    Restart,
}

static JOURNAL: LazyLock<broadcast::Sender<Notable>> = LazyLock::new(|| broadcast::Sender::new(1024));

/// Follows the journal from now on. A reader that is too slow misses the oldest lines, and nobody waits for it.
pub fn journal() -> broadcast::Receiver<Notable> {
    JOURNAL.subscribe()
}

fn note(kind: NotableKind, text: impl FnOnce() -> String) {
    if JOURNAL.receiver_count() > 0 {
        let _ = JOURNAL.send(Notable { kind, text: text() });
    }
}

/// A notification came to its end, and the ledger has it.
pub fn settled(channel: &'static str, outcome: &'static str) {
    counter!(SETTLED, "channel" => channel, "outcome" => outcome).increment(1);
}

/// A provider accepted a notification.
pub fn delivered(channel: &'static str, template: &str, to: &str, provider: &str, attempt: u32) {
    debug!(channel, template, provider, attempt, "notification accepted");
    note(NotableKind::Delivered, || {
        let tries = if attempt > 1 { format!(" at attempt {attempt}") } else { String::new() };
        format!("{channel} {template} to {to} accepted by {provider}{tries}")
    });
}

/// A notification failed for good.
pub fn delivery_failed(channel: &'static str, id: &str, reason: &str) {
    warn!(channel, notification = id, reason, "notification failed");
}

/// A provider reported later what became of a notification.
pub fn provider_reported(provider: &str, notification: Option<&str>, outcome: &str) {
    // A code behind the word would make a series for each.
    let word = outcome.split(':').next().unwrap_or(outcome);
    counter!(PROVIDER_REPORTS, "provider" => provider.to_owned(), "report" => word.to_owned()).increment(1);
    info!(provider, notification, outcome, "a provider reports what became of a notification");
}

/// A notification is not sent, and that is no failure: suppressed, expired or cancelled.
pub fn not_sent(channel: &'static str, id: &str, state: &'static str, reason: &str) {
    info!(channel, notification = id, state, reason, "notification not sent");
}

/// A notification waits for its recipient's address.
pub fn awaiting_contact(channel: &'static str, id: &str, recipient: &str) {
    info!(channel, notification = id, recipient, "notification waits for a contact");
    note(NotableKind::Waiting, || format!("{channel} to {recipient} waits for a contact"));
}

/// What the next attempt waits for.
#[derive(Debug, Clone, Copy)]
pub enum Wait {
    /// So much time.
    For(Duration),
    /// The provider, which showed that it is still away.
    ForProvider,
    /// Nothing: the channel's next provider tries.
    ForNobody,
}

/// An attempt to send did not succeed and another will be made.
pub fn delivery_retry(channel: &'static str, id: &str, provider: &str, reason: &str, wait: Wait) {
    counter!(RETRIES, "stage" => "delivery").increment(1);
    info!(channel, notification = id, provider, reason, ?wait, "delivery will be retried");
    note(NotableKind::Retry, || match wait {
        Wait::For(time) => format!("{channel} via {provider} again in {:.1} s: {reason}", time.as_secs_f64()),
        Wait::ForProvider => format!("{channel} waits for {provider}: {reason}"),
        Wait::ForNobody => format!("{channel} goes from {provider} to the next provider: {reason}"),
    });
}

/// A provider answered.
pub fn provider_answered(provider: &str, outcome: &'static str) {
    counter!(PROVIDER_REQUESTS, "provider" => provider.to_owned(), "outcome" => outcome).increment(1);
}

/// A record will be tried again.
pub fn retry_scheduled(topic: &str, offset: i64, reason: &str, wait: Duration) {
    info!(topic, offset, reason, wait_ms = wait.as_millis() as u64, "record will be retried");
    note(NotableKind::Retry, || format!("record {topic}@{offset} again in {} ms: {reason}", wait.as_millis()));
}

/// A consumer group stood still without a reason, and is rebuilt.
pub fn group_stalled(group: &str, why: &str) {
    counter!(STALLS, "consumer_group" => group.to_owned()).increment(1);
    error!(group, why, "the group stands still and is rebuilt");
}

/// The topic was created anew or cut: the group goes on from an offset before its position.
pub fn offset_went_back(topic: &str, partition: i32, offset: i64) {
    offset_reset(topic, "went_back");
    error!(topic, partition, offset, "the offset went back: the topic was created anew or cut");
}

/// The committed offset is one that the topic does not have: records between it and where the group goes on are
/// skipped, or come again.
pub fn offset_out_of_range(topic: &str, told: &str) {
    offset_reset(topic, "out_of_range");
    error!(topic, told, "the committed offset is out of range: the group goes on by kafka.auto_offset_reset");
}

/// The group has never committed an offset of a partition.
pub fn offset_missing(topic: &str, partition: i32, policy: &str) {
    offset_reset(topic, "missing");
    info!(topic, partition, policy, "no committed offset: the group begins by kafka.auto_offset_reset");
}

fn offset_reset(topic: &str, reason: &'static str) {
    counter!(OFFSET_RESETS, "topic" => topic.to_owned(), "reason" => reason).increment(1);
}

/// What happens to a Redis stream and its consumer group beside reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamIncident {
    /// Redis lost the group; it was made anew, from the stream's beginning.
    GroupRecreated,
    /// An entry was taken over from a consumer that gave no sign of life.
    EntryClaimed,
    /// A pending entry is no longer in the stream: trimmed or deleted before it was processed.
    EntryGone,
}

impl StreamIncident {
    /// All of them, for pre-registering the metric.
    pub const ALL: [Self; 3] = [Self::GroupRecreated, Self::EntryClaimed, Self::EntryGone];

    /// The name used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GroupRecreated => "group_recreated",
            Self::EntryClaimed => "entry_claimed",
            Self::EntryGone => "entry_gone",
        }
    }
}

/// It happened so often.
pub fn stream_incident(stream: &str, incident: StreamIncident, times: usize) {
    if times == 0 {
        return;
    }
    counter!(STREAM_INCIDENTS, "topic" => stream.to_owned(), "incident" => incident.as_str()).increment(times as u64);
    match incident {
        StreamIncident::GroupRecreated => {
            error!(stream, "Redis lost the consumer group; it begins anew with what the stream has");
        }
        StreamIncident::EntryClaimed => info!(stream, entries = times, "entries of a silent consumer were taken over"),
        StreamIncident::EntryGone => {
            error!(stream, entries = times, "pending entries are no longer in the stream: their events are lost");
        }
    }
}

/// A dead letter is durable.
pub fn dead_lettered(stage: &'static str, class: &'static str, code: &str, topic: &str, reason: &str) {
    counter!(DEAD_LETTERS, "stage" => stage, "class" => class).increment(1);
    warn!(stage, class, code, topic, reason, "dead letter written");
    note(NotableKind::DeadLetter, || format!("{topic}: {code}: {reason}"));
}

/// A breaker moved.
pub fn breaker_moved(breaker: &str, from: &'static str, position: &'static str, gauge_value: f64, groups: &[String]) {
    gauge!(BREAKER_STATE, "breaker" => breaker.to_owned()).set(gauge_value);
    match position {
        "open" if from == "half_open" => info!(breaker, "circuit breaker open again: the probe failed"),
        "open" => {
            warn!(breaker, ?groups, "circuit breaker opened");
            note(NotableKind::Outage, || format!("{breaker} is away: breaker open{}", pausing(groups)));
        }
        "closed" => {
            info!(breaker, ?groups, "circuit breaker closed");
            note(NotableKind::Recovery, || format!("{breaker} is back: breaker closed"));
        }
        _ => info!(breaker, "circuit breaker half-open: probing"),
    }
}

fn pausing(groups: &[String]) -> String {
    if groups.is_empty() { String::new() } else { format!(", paused: {}", groups.join(", ")) }
}

/// An actor was rebuilt.
pub fn actor_restarted(actor: &str, why: &str, restarts: u32) {
    counter!(ACTOR_RESTARTS, "actor" => actor.to_owned()).increment(1);
    error!(actor, why, restarts, "actor rebuilt");
    note(NotableKind::Restart, || format!("actor {actor} rebuilt: {why}"));
}

/// A dependency became unreachable, or reachable again.
pub fn dependency_changed(dependency: &str, up: bool, why: &str) {
    if up {
        info!(dependency, "dependency is reachable again");
        note(NotableKind::Recovery, || format!("{dependency} answers again"));
    } else {
        warn!(dependency, why, "dependency is unreachable");
        note(NotableKind::Outage, || format!("{dependency} does not answer: {why}"));
    }
}
