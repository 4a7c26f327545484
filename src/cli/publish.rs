//! `publish`: sends domain events with full envelope and headers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args as ClapArgs;
use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{CliError, context};
use crate::config::Config;
use crate::domain::catalog::{EVENT_TYPES, EventType, event_type, topics};
use crate::domain::envelope::{Envelope, EnvelopeOut, MetadataOut, to_json};
use crate::domain::events::VERSION;
use crate::domain::record::{Headers, OutboundRecord};
use crate::domain::time::format_utc;

#[derive(ClapArgs)]
#[command(group(clap::ArgGroup::new("input").required(true).args(["event_type", "file"])))]
pub struct Args {
    /// OrderCreated, UserRegistered, ProductOutOfStock …; any other type needs --topic
    event_type: Option<String>,
    /// The event's data, a JSON object
    #[arg(long, value_name = "JSON", requires = "event_type")]
    data: Option<String>,
    /// Whole envelopes, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    file: Option<PathBuf>,
    /// The record's key and aggregateId [default: data.orderId, userId or productId]
    #[arg(long, conflicts_with = "file")]
    key: Option<String>,
    /// The topic [default: the event type's]
    #[arg(long)]
    topic: Option<String>,
    /// The event's id [default: a new UUID]
    #[arg(long, conflicts_with = "file")]
    event_id: Option<String>,
    /// Ties the event to others [default: none]
    #[arg(long, conflicts_with = "file")]
    correlation_id: Option<String>,
}

pub fn run(file: Option<&Path>, args: &Args) -> Result<(), CliError> {
    let config = context::load(file)?;
    context::logs(&config);
    context::real_kafka(&config)?;
    let events = match (&args.file, &args.event_type) {
        (Some(path), _) => from_file(&config, args, path)?,
        (None, Some(name)) => vec![single(&config, args, name)?],
        (None, None) => return Err(CliError::Usage("name an event type or a --file".into())),
    };
    context::runtime()?.block_on(async {
        let publisher = context::publisher(&config).await?;
        for chunk in events.chunks(1000) {
            let records: Vec<OutboundRecord> = chunk.iter().map(|(_, record)| record.clone()).collect();
            context::publish(&publisher, &records, &config.kafka.brokers).await?;
            for (id, _) in chunk {
                println!("{id}");
            }
        }
        Ok(())
    })
}

fn single(config: &Config, args: &Args, name: &str) -> Result<(String, OutboundRecord), CliError> {
    let known = event_type(name);
    let data = args.data.as_deref().ok_or_else(|| CliError::Usage("--data is missing: a JSON object".into()))?;
    let data: &RawValue = serde_json::from_str(data).map_err(|e| CliError::Usage(format!("--data: {e}")))?;
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(data.get()).map_err(|_| CliError::Usage("--data: expected a JSON object".into()))?;
    let key =
        args.key.clone().or_else(|| key_of(known, &fields)).ok_or_else(|| {
            CliError::Usage("no key: give --key, or data with orderId, userId or productId".to_owned())
        })?;
    let topic = topic_of(config, args, name)?;
    let id = args.event_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let timestamp = format_utc(Timestamp::now());
    let json = to_json(&EnvelopeOut {
        event_id: &id,
        event_type: name,
        aggregate_id: &key,
        version: VERSION,
        timestamp: &timestamp,
        data,
        metadata: MetadataOut {
            source: "notification-service-cli",
            correlation_id: args.correlation_id.as_deref(),
            causation_id: None,
            caused_at: None,
        },
    });
    Ok((id, record(topic, &key, json, name, &timestamp)))
}

fn key_of(known: Option<&EventType>, data: &serde_json::Map<String, serde_json::Value>) -> Option<String> {
    let fields = known.map_or(vec!["orderId", "userId", "productId"], |known| vec![known.key_field]);
    fields.into_iter().find_map(|field| data.get(field)?.as_str().map(str::to_owned))
}

fn topic_of(config: &Config, args: &Args, name: &str) -> Result<String, CliError> {
    let logical = match (&args.topic, event_type(name)) {
        (Some(topic), _) => topic.clone(),
        (None, Some(known)) => known.topic.to_owned(),
        (None, None) => match config.routing.routes.iter().find(|r| r.event_type == name) {
            Some(route) => route.topic.clone(),
            None => {
                let known: Vec<&str> = EVENT_TYPES.iter().map(|t| t.name).collect();
                let known = known.join(", ");
                return Err(CliError::Usage(format!("no topic for `{name}`: give --topic, or one of {known}")));
            }
        },
    };
    if !topics::ALL.iter().any(|(topic, _)| *topic == logical) {
        return Err(CliError::Usage(format!("--topic: there is no topic `{logical}`")));
    }
    Ok(config.kafka.topics().named(&logical))
}

fn from_file(config: &Config, args: &Args, path: &Path) -> Result<Vec<(String, OutboundRecord)>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| CliError::Usage(format!("{}: {e}", path.display())))?;
    let mut events = Vec::new();
    let mut mistakes = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let event = Envelope::decode(Some(line.as_bytes())).map_err(|e| e.to_string()).and_then(|envelope| {
            let topic = topic_of(config, args, &envelope.event_type).map_err(|e| e.to_string())?;
            let (name, id) = (envelope.event_type.to_string(), envelope.event_id.to_string());
            let key = args.key.clone().unwrap_or_else(|| key_of_envelope(&envelope));
            Ok((id, record(topic, &key, line.as_bytes().to_vec(), &name, &envelope.timestamp)))
        });
        match event {
            Ok(event) => events.push(event),
            Err(error) => mistakes.push(format!("  {}, line {}: {error}", path.display(), number + 1)),
        }
    }
    if mistakes.is_empty() {
        Ok(events)
    } else {
        Err(CliError::Usage(format!("nothing is sent:\n{}", mistakes.join("\n"))))
    }
}

/// The key of a whole envelope: its data's own, else its aggregate.
pub fn key_of_envelope(envelope: &Envelope<'_>) -> String {
    let data: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(envelope.data.get()).unwrap_or_default();
    key_of(event_type(&envelope.event_type), &data).unwrap_or_else(|| envelope.aggregate_id.to_string())
}

/// A record with the headers of everything that is published.
pub fn record(topic: String, key: &str, json: Vec<u8>, event_type: &str, timestamp: &str) -> OutboundRecord {
    let mut headers = Headers::default();
    headers.push("eventType", Some(event_type.as_bytes()));
    headers.push("source", Some(b"notification-service-cli"));
    headers.push("timestamp", Some(timestamp.as_bytes()));
    headers.push("aggregateId", Some(key.as_bytes()));
    let trace = crate::domain::trace::TraceContext::continued(None, Uuid::new_v4());
    headers.push("traceparent", Some(trace.to_header().as_bytes()));
    OutboundRecord { topic: Arc::from(topic), key: Some(key.as_bytes().into()), value: json, headers }
}
