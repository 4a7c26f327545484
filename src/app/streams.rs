//! The consumer groups of Redis streams: the same stage over another source.

use std::sync::Arc;

use super::groups::{GroupParts, GroupPlan, OpenSource, group_metrics};
use crate::adapters::redis::stream_entry::Reading;
use crate::adapters::redis::stream_source::{RedisStreamSource, StreamSettings};
use crate::config::{SecretUrl, SourceConfig, SourceKind};
use crate::domain::dead_letter::Stage as StageName;

impl GroupParts<'_> {
    /// A group for each source of the configuration. Redis takes part in no transaction of Kafka, so they run the loop
    /// of `at_least_once` whatever the guarantee.
    pub(super) fn streams(&self) -> Vec<GroupPlan> {
        let Some(url) = &self.config.redis.url else { return Vec::new() };
        self.config.routing.sources.iter().map(|source| self.stream(url, source)).collect()
    }

    fn stream(&self, url: &SecretUrl, source: &SourceConfig) -> GroupPlan {
        let group = source.group();
        let metrics = group_metrics(&source.stream, 1, &group, StageName::Routing);
        // Any event may arrive on a stream, those about users too.
        let stage = Arc::new(self.routing_stage(&group, Some(self.directory()), &metrics));
        let (settings, io) = (self.stream_settings(url, source), self.io.clone());
        let open: OpenSource = match source.kind {
            SourceKind::RedisStream => Box::new(move || Ok(RedisStreamSource::start(settings.clone(), &io)?)),
        };
        self.at_least_once(group, open, stage, metrics)
    }

    fn stream_settings(&self, url: &SecretUrl, source: &SourceConfig) -> StreamSettings {
        let name = source.consumer.as_ref().or(self.config.kafka.instance_id.as_ref());
        StreamSettings {
            url: url.expose().to_owned(),
            group: source.group(),
            consumer: name.cloned().unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()),
            passing_name: name.is_none(),
            reading: Reading {
                stream: Arc::from(source.stream.as_str()),
                field: source.field.clone(),
                max_deliveries: source.max_deliveries,
            },
            most: self.config.routing.max_in_flight,
            claim_idle: source.claim_idle(),
            trim_max_length: source.trim_max_length,
        }
    }
}
