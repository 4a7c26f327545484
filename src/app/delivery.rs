//! The delivery stage from its configuration: templates, providers, dispatchers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::breakers::Breakers;
use crate::actors::dispatch::DispatchDuty;
use crate::adapters::providers::{self, DkimSettings, ProviderSettings};
use crate::adapters::sql::Database;
use crate::config::{Config, OnUnknown, ProviderConfig, ProviderKind};
use crate::delivery::decide;
use crate::delivery::lane::{DispatchContext, LaneSettings};
use crate::delivery::render::{TemplateError, Templates};
use crate::delivery::schedule::Schedule;
use crate::domain::channel::Channel;
use crate::ports::clock::SharedClock;
use crate::ports::inbox::Inbox;

/// The built-in templates with the operator's folder over them.
///
/// # Errors
/// A [`TemplateError`] that names file and line.
pub fn templates(config: &Config) -> Result<Templates, TemplateError> {
    let mut templates = Templates::built_in()?;
    if let Some(folder) = &config.delivery.templates_dir {
        templates.overlay(folder)?;
    }
    Ok(templates)
}

/// What an adapter needs to know of a provider.
pub fn provider_settings(config: &Config, provider: &ProviderConfig) -> ProviderSettings {
    ProviderSettings {
        name: provider.name.clone(),
        kind: match provider.kind {
            ProviderKind::Fcm => providers::ProviderKind::Fcm,
            ProviderKind::File => providers::ProviderKind::File,
            ProviderKind::Http => providers::ProviderKind::Http,
            ProviderKind::Inbox => providers::ProviderKind::Inbox,
            ProviderKind::Slack => providers::ProviderKind::Slack,
            ProviderKind::Smtp => providers::ProviderKind::Smtp,
            ProviderKind::Twilio => providers::ProviderKind::Twilio,
        },
        url: provider.url.as_ref().map(|url| url.expose().to_owned()).unwrap_or_default(),
        timeout: provider.timeout(),
        secret: provider.secret.as_ref().map(|s| s.expose().to_owned()),
        email_from: config.delivery.email_from.clone(),
        from: provider.from.clone(),
        status_callback_url: provider.status_callback_url.as_ref().map(|url| url.expose().to_owned()),
        credentials_file: provider.credentials_file.clone(),
        dkim: provider.dkim.as_ref().map(|dkim| DkimSettings {
            selector: dkim.selector.clone(),
            domain: dkim.domain.clone(),
            private_key_file: dkim.private_key_file.clone(),
        }),
    }
}

/// A dispatcher for every channel that has a provider.
///
/// # Errors
/// What is wrong with a provider or a template, with the key's name.
pub fn dispatchers(
    config: &Config,
    instance: &str,
    database: &Database,
    breakers: &Breakers,
    clock: &SharedClock,
) -> Result<Vec<DispatchDuty>, String> {
    let templates = templates(config).map_err(|e| format!("delivery.templates_dir: {e}"))?;
    let context = Arc::new(DispatchContext {
        ledger: Arc::new(database.clone()),
        templates: Arc::new(templates),
        schedule: Schedule::new(config.delivery.retry.schedule()),
        clock: Arc::clone(clock),
        database: Arc::clone(&breakers.database),
        lease: config.delivery.lease(),
        batch: config.delivery.batch,
        max_in_flight: config.delivery.max_in_flight,
        poll_interval: config.delivery.poll_interval(),
    });
    let inbox: Arc<dyn Inbox> = Arc::new(database.clone());
    let mut channels: BTreeMap<Channel, Vec<&ProviderConfig>> = BTreeMap::new();
    for provider in &config.delivery.providers {
        channels.entry(provider.channel).or_default().push(provider);
    }
    let mut duties = Vec::new();
    for (channel, providers) in channels {
        let mut lanes = Vec::new();
        for (index, provider) in providers.iter().enumerate() {
            let breaker = breakers.providers.get(&provider.name).cloned();
            lanes.push(Arc::new(LaneSettings {
                channel,
                index: index as u16,
                lanes: providers.len() as u16,
                name: provider.name.clone(),
                provider: providers::build(&provider_settings(config, provider), Some(Arc::clone(&inbox)))
                    .map_err(|e| e.to_string())?,
                timeout: provider.timeout(),
                on_unknown: match provider.on_unknown() {
                    OnUnknown::Retry => decide::OnUnknown::Retry,
                    OnUnknown::RetryOnce => decide::OnUnknown::RetryOnce,
                    OnUnknown::Hold => decide::OnUnknown::Hold,
                },
                max_per_second: provider.max_per_second,
                breaker: breaker.ok_or_else(|| format!("provider {} has no breaker", provider.name))?,
            }));
        }
        duties.push(DispatchDuty { channel, instance: instance.to_owned(), lanes, context: Arc::clone(&context) });
    }
    Ok(duties)
}
