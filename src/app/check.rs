//! What the configuration's own rules cannot see: properties that librdkafka refuses, templates that do not parse,
//! providers that cannot be built, keys that are none.

use super::auth::authority;
use super::delivery::{provider_settings, templates};
use super::kafka::client_settings;
use crate::adapters::providers;
use crate::adapters::redis::RedisProbe;
use crate::config::{Config, Mistake, ProviderKind};

/// All such mistakes, each with its key.
pub fn check(config: &Config) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut add = |key: String, problem: String| mistakes.push(Mistake { key, problem });
    if let Err(error) = client_settings(config).check() {
        add("kafka.properties".into(), error.to_string());
    }
    if let Some(Err(error)) = config.redis.url.as_ref().map(|url| RedisProbe::new(url.expose())) {
        add("redis.url".into(), error);
    }
    if let Err(problem) = authority(&config.auth) {
        add("auth.jwt_public_key_file".into(), problem);
    }
    match templates(config) {
        Ok(templates) => {
            for (index, route) in config.routing.routes.iter().enumerate() {
                if config.delivery.enabled && !templates.has(&route.template) {
                    let problem = format!("there is no template `{}`", route.template);
                    add(format!("routing.routes[{index}].template"), problem);
                }
            }
        }
        Err(errors) => {
            errors.mistakes.iter().for_each(|mistake| add("delivery.templates_dir".into(), mistake.to_string()));
        }
    }
    for (index, provider) in config.delivery.providers.iter().enumerate() {
        // Building a file provider creates its folder, and an inbox needs a database: a check must do without.
        if matches!(provider.kind, ProviderKind::File | ProviderKind::Inbox) {
            continue;
        }
        let settings = provider_settings(config, provider);
        let problems = [
            providers::build(&settings, None).map(drop),
            providers::report_reader(&settings, provider.channel).map(drop),
        ];
        let mut errors: Vec<_> = problems.into_iter().filter_map(Result::err).collect();
        // What both need is told once.
        errors.dedup_by(|a, b| a.key == b.key);
        for error in errors {
            add(format!("delivery.providers[{index}].{}", error.key), error.to_string());
        }
    }
    mistakes
}
