//! The delivery stage from its configuration: templates, providers, dispatchers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::breakers::Breakers;
use crate::actors::dispatch::DispatchDuty;
use crate::adapters::providers::{self, DkimSettings, ProviderSettings, ReportSettings};
use crate::adapters::redis::{RedisLink, RedisRate};
use crate::adapters::sql::Database;
use crate::config::{Config, OnUnknown, ProviderConfig, ProviderKind, RecipientsConfig, ReportFormat, ReportsConfig};
use crate::delivery::context::{DispatchContext, LaneSettings};
use crate::delivery::decide;
use crate::delivery::desk::Desk;
use crate::delivery::door::Door;
use crate::delivery::reports::{ReportDesk, ReportingProvider};
use crate::delivery::rules::{HouseRules, NamedZone, TemplateRules, Throttle};
use crate::delivery::schedule::Schedule;
use crate::delivery::templates::{TemplateErrors, Templates};
use crate::delivery::unsubscribe::UnsubscribeLinks;
use crate::domain::channel::Channel;
use crate::ports::clock::SharedClock;
use crate::ports::inbox::Inbox;
use crate::ports::rate::SharedRate;
use crate::resilience::breaker_cell::BreakerCell;
use crate::resilience::token_bucket::{pacing_burst, pacing_refill};

/// The built-in templates with the operator's folder over them.
///
/// # Errors
/// All mistakes, each with its file and line.
pub fn templates(config: &Config) -> Result<Templates, TemplateErrors> {
    Templates::load(config.delivery.templates_dir.as_deref(), &config.delivery.default_locale)
}

fn house_rules(config: &RecipientsConfig) -> HouseRules {
    HouseRules { exempt_categories: config.exempt_categories.clone(), default_time_zone: default_time_zone(config) }
}

/// The zone of recipients who have none.
pub fn default_time_zone(config: &RecipientsConfig) -> NamedZone {
    NamedZone { name: config.default_time_zone.clone(), zone: config.time_zone() }
}

/// The links with which recipients refuse more, when the service knows where it is reached.
pub fn unsubscribe_links(config: &RecipientsConfig) -> Option<UnsubscribeLinks> {
    let (base, secret) = (config.unsubscribe_base_url.as_ref()?, config.unsubscribe_secret.as_ref()?);
    Some(UnsubscribeLinks::new(base.expose(), secret.expose()))
}

/// The door for direct requests.
pub fn door(config: &Config, database: &Database, templates: Arc<Templates>, rules: Arc<TemplateRules>) -> Door {
    Door {
        rules,
        desk: Desk { ledger: Arc::new(database.clone()) },
        templates,
        unsubscribe: unsubscribe_links(&config.delivery.recipients),
        exempt_categories: config.delivery.recipients.exempt_categories.clone(),
        contacts: Arc::new(database.clone()),
        channels: config.delivery.providers.iter().map(|provider| provider.channel).collect(),
    }
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
        reports: provider.reports.as_ref().and_then(report_settings),
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

/// Both keys are there in a configuration without mistakes.
fn report_settings(reports: &ReportsConfig) -> Option<ReportSettings> {
    let format = match reports.format? {
        ReportFormat::Mailgun => providers::ReportFormat::Mailgun,
        ReportFormat::Sendgrid => providers::ReportFormat::SendGrid,
    };
    Some(ReportSettings { format, key: reports.key.as_ref()?.expose().to_owned() })
}

/// Takes reports of those providers that send some.
///
/// # Errors
/// What is wrong with a provider's secret or key.
pub fn report_desk(config: &Config, database: &Database) -> Result<ReportDesk, String> {
    let mut reporting = HashMap::new();
    for provider in &config.delivery.providers {
        let reader = providers::report_reader(&provider_settings(config, provider), provider.channel);
        if let Some(reader) = reader.map_err(|e| e.to_string())? {
            reporting.insert(provider.name.clone(), ReportingProvider { channel: provider.channel, reader });
        }
    }
    Ok(ReportDesk { providers: reporting, ledger: Arc::new(database.clone()), contacts: Arc::new(database.clone()) })
}

/// The provider's rate, kept by all instances together in Redis.
fn shared_rate(
    config: &Config,
    provider: &ProviderConfig,
    redis: Option<&Arc<RedisLink>>,
    breakers: &Breakers,
) -> Option<(Arc<dyn SharedRate>, Arc<BreakerCell>)> {
    let (per_second, link, breaker) = (provider.max_per_second?, redis?, breakers.redis.as_ref()?);
    let name = format!("{}{}", config.kafka.prefix, provider.name);
    let rate = RedisRate::new(Arc::clone(link), &name, pacing_refill(per_second), pacing_burst(per_second));
    Some((Arc::new(rate), Arc::clone(breaker)))
}

/// A dispatcher for every channel that has a provider.
///
/// # Errors
/// What is wrong with a provider or a template, with the key's name.
pub fn dispatchers(
    config: &Config,
    instance: &str,
    database: &Database,
    redis: Option<&Arc<RedisLink>>,
    breakers: &Breakers,
    clock: &SharedClock,
    templates: &Arc<Templates>,
) -> Result<Vec<DispatchDuty>, String> {
    let recipients = &config.delivery.recipients;
    let window = recipients.throttle_window();
    let context = Arc::new(DispatchContext {
        ledger: Arc::new(database.clone()),
        contacts: Arc::new(database.clone()),
        house: house_rules(recipients),
        throttle: recipients.throttle.map(|per_recipient| Throttle { per_recipient, window }),
        unsubscribe: unsubscribe_links(recipients),
        contact_patience: recipients.awaiting_contact(),
        templates: Arc::clone(templates),
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
        let mut lanes: Vec<Arc<LaneSettings>> = Vec::new();
        for (index, provider) in providers.iter().enumerate() {
            let breaker = breakers.providers.get(&provider.name).cloned();
            let breakers_before = lanes.iter().map(|lane| Arc::clone(&lane.breaker)).collect();
            lanes.push(Arc::new(LaneSettings {
                channel,
                index: index as u16,
                lanes: providers.len() as u16,
                name: provider.name.clone(),
                provider: providers::build(&provider_settings(config, provider), Some(Arc::clone(&inbox)))
                    .map_err(|e| e.to_string())?,
                timeout: provider.timeout(),
                max_in_flight: provider.max_in_flight(config.delivery.max_in_flight),
                on_unknown: match provider.on_unknown() {
                    OnUnknown::Retry => decide::OnUnknown::Retry,
                    OnUnknown::RetryOnce => decide::OnUnknown::RetryOnce,
                    OnUnknown::Hold => decide::OnUnknown::Hold,
                },
                max_per_second: provider.max_per_second,
                shared_rate: shared_rate(config, provider, redis, breakers),
                breaker: breaker.ok_or_else(|| format!("provider {} has no breaker", provider.name))?,
                breakers_before,
            }));
        }
        duties.push(DispatchDuty { channel, instance: instance.to_owned(), lanes, context: Arc::clone(&context) });
    }
    Ok(duties)
}
