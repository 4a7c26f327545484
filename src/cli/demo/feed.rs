//! Feeding the demo: lines as they are, to the topic that their event type belongs to.

use std::sync::Arc;
use std::time::Duration;

use crate::adapters::kafka::{ClientSettings, KafkaPublisher};
use crate::cli::publish::key_of_envelope;
use crate::config::Config;
use crate::domain::catalog::{event_type, topics};
use crate::domain::envelope::Envelope;
use crate::domain::record::{Headers, OutboundRecord};
use crate::ports::publisher::EventPublisher as _;

/// Marks a fed record with its line, so that its dead letter can be told from others.
pub const LINE_HEADER: &str = "demoLine";

/// A line of the input.
#[derive(Clone)]
pub struct Line {
    /// Its position among the lines that are not empty.
    pub number: usize,
    /// `None` for a line that is no envelope.
    pub event_id: Option<String>,
    /// Where it is sent.
    pub topic: String,
    /// Its key, where one can be told.
    pub key: Option<String>,
    /// The line as it is.
    pub value: Vec<u8>,
}

/// Splits the input into lines; empty ones do not count.
pub fn read(config: &Config, input: &[u8]) -> Vec<Line> {
    let names = config.kafka.topics();
    let lines = input.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines
        .filter(|line| !line.trim_ascii().is_empty())
        .enumerate()
        .map(|(number, value)| {
            let envelope = Envelope::decode(Some(value)).ok();
            let name = envelope.as_ref().map(|e| e.event_type.to_string()).unwrap_or_default();
            let route = config.routing.routes.iter().find(|r| r.event_type == name);
            let logical = event_type(&name).map(|t| t.topic).or(route.map(|r| r.topic.as_str()));
            Line {
                number,
                event_id: envelope.as_ref().map(|e| e.event_id.to_string()),
                topic: names.named(logical.unwrap_or(topics::ORDERS)),
                key: envelope.as_ref().map(key_of_envelope),
                value: value.to_vec(),
            }
        })
        .collect()
}

/// A producer of its own: to the service, the demo is a stranger.
pub struct Feeder(Arc<KafkaPublisher>);

impl Feeder {
    pub fn new(client: &ClientSettings) -> Result<Self, String> {
        KafkaPublisher::new(client.clone()).map(Self).map_err(|e| e.to_string())
    }

    /// Sends lines and waits until they are acknowledged.
    pub async fn feed(&self, lines: &[Line]) -> Result<(), String> {
        let records: Vec<OutboundRecord> = lines.iter().map(outbound).collect();
        let acks = self.0.publish(&records).await;
        let failures = tokio::time::timeout(Duration::from_secs(30), acks).await;
        let failures = failures.map_err(|_| "the embedded Kafka does not acknowledge".to_owned())?;
        match failures.first() {
            None => Ok(()),
            Some((index, error)) => Err(format!("line {}: {error}", lines[*index].number + 1)),
        }
    }
}

fn outbound(line: &Line) -> OutboundRecord {
    let mut headers = Headers::default();
    headers.push("source", Some(b"demo"));
    headers.push(LINE_HEADER, Some(line.number.to_string().as_bytes()));
    OutboundRecord {
        topic: Arc::from(line.topic.as_str()),
        key: line.key.as_ref().map(|key| key.as_bytes().into()),
        value: line.value.clone(),
        headers,
    }
}
