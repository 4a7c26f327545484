//! What the service published, as anybody can read it from the topics.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json_object::Object;
use super::kafka::{DEAD_LETTERS, Kafka, NOTIFICATIONS, Record};
use super::oracle::Content;
use super::wait::{self, secs};

/// An envelope with the record it came in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    pub event_id: String,
    pub event_type: String,
    pub aggregate_id: String,
    pub version: u32,
    pub timestamp: String,
    data: Box<RawValue>,
    pub metadata: Metadata,
    #[serde(skip)]
    pub record: Option<Record>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub source: String,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
}

#[derive(Deserialize)]
struct RequestData {
    r#type: String,
    #[serde(default)]
    recipient: Option<String>,
    template: String,
    data: Box<RawValue>,
}

impl Published {
    pub fn record(&self) -> &Record {
        self.record.as_ref().expect("read from a topic")
    }

    pub fn causation_id(&self) -> &str {
        self.metadata.causation_id.as_deref().unwrap_or_default()
    }

    /// What a request says.
    #[track_caller]
    pub fn content(&self) -> Content {
        let read = |e| panic!("the data of a request ({e}): {}", self.data);
        let data: RequestData = serde_json::from_str(self.data.get()).unwrap_or_else(read);
        Content {
            causation_id: self.causation_id().to_owned(),
            correlation_id: self.metadata.correlation_id.clone().unwrap_or_default(),
            aggregate_id: self.aggregate_id.clone(),
            channel: data.r#type,
            template: data.template,
            recipient: data.recipient,
            data: Object::parse(data.data.get().as_bytes()).expect("data.data is an object").canonical(),
        }
    }
}

/// A dead letter with the record it came in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    pub original_topic: String,
    pub original_partition: Option<i32>,
    pub original_offset: Option<i64>,
    pub failure_reason: String,
    pub error_class: String,
    pub error_code: String,
    pub stage: String,
    pub retry_count: u32,
    pub first_failure_timestamp: String,
    pub last_failure_timestamp: String,
    pub original_message_encoding: String,
    pub original_message: Box<RawValue>,
    #[serde(default)]
    pub parked_id: Option<String>,
    pub service_name: String,
    pub service_version: String,
    pub fingerprint: String,
    #[serde(skip)]
    pub record: Option<Record>,
}

impl DeadLetter {
    pub fn record(&self) -> &Record {
        self.record.as_ref().expect("read from a topic")
    }

    /// The value of the original record, unless it is parked.
    #[track_caller]
    pub fn original(&self) -> Option<Vec<u8>> {
        let text = self.original_message.get();
        match self.original_message_encoding.as_str() {
            "json" => Some(text.as_bytes().to_vec()),
            "base64" => {
                let encoded: String = serde_json::from_str(text).expect("base64 stands in a string");
                Some(STANDARD.decode(encoded).expect("base64"))
            }
            "null" => None,
            other => panic!("the payload is not in the letter: {other}"),
        }
    }
}

/// All that stands on the service's own topics.
pub struct Story {
    pub requests: Vec<Published>,
    pub lifecycle: Vec<Published>,
    pub letters: Vec<DeadLetter>,
}

impl Story {
    #[track_caller]
    pub fn of(kafka: &Kafka) -> Self {
        let mut story = Self { requests: Vec::new(), lifecycle: Vec::new(), letters: Vec::new() };
        for record in kafka.read(NOTIFICATIONS) {
            let Ok(published) = serde_json::from_slice::<Published>(record.value.as_deref().unwrap_or_default()) else {
                continue; // put there by a test
            };
            let published = Published { record: Some(record), ..published };
            match published.event_type.as_str() {
                "NotificationRequested" => story.requests.push(published),
                "NotificationSent" | "NotificationFailed" | "NotificationSuppressed" => story.lifecycle.push(published),
                _ => {}
            }
        }
        for record in kafka.read(DEAD_LETTERS) {
            let value = record.value.as_deref().unwrap_or_default();
            let letter: DeadLetter = serde_json::from_slice(value)
                .unwrap_or_else(|e| panic!("no dead letter ({e}): {}", String::from_utf8_lossy(value)));
            story.letters.push(DeadLetter { record: Some(record), ..letter });
        }
        story
    }

    /// The id of the request that an event causes, once it is there.
    #[track_caller]
    pub fn request_of(kafka: &Kafka, event: &str) -> String {
        wait::until("the request", secs(20), || {
            let caused = Self::of(kafka).requests.into_iter().find(|request| request.causation_id() == event);
            caused.map(|request| request.event_id)
        })
    }

    /// The requests by their content, with the records that carry each.
    pub fn requests_by_content(&self) -> BTreeMap<Content, Vec<&Published>> {
        let mut found: BTreeMap<Content, Vec<&Published>> = BTreeMap::new();
        for request in &self.requests {
            found.entry(request.content()).or_default().push(request);
        }
        found
    }

    /// The lifecycle events by the request they are about.
    pub fn lifecycle_by_request(&self) -> BTreeMap<&str, Vec<&Published>> {
        let mut found: BTreeMap<&str, Vec<&Published>> = BTreeMap::new();
        for event in &self.lifecycle {
            found.entry(event.causation_id()).or_default().push(event);
        }
        found
    }

    /// The letters about the record at this place.
    pub fn letters_about(&self, topic: &str, partition: i32, offset: i64) -> Vec<&DeadLetter> {
        let place = (topic, Some(partition), Some(offset));
        let about = |l: &&DeadLetter| (l.original_topic.as_str(), l.original_partition, l.original_offset) == place;
        self.letters.iter().filter(about).collect()
    }
}
