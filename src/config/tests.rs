//! What users of the configuration rely on.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::domain::channel::Channel;

fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("service.toml");
    std::fs::write(&path, file).expect("written");
    Config::load(Some(&path), env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

pub(super) fn good(file: &str, env: &[(&str, &str)]) -> Config {
    load(file, env).unwrap_or_else(|error| panic!("no mistakes expected:\n{error}"))
}

/// The mistakes as `key: problem`.
pub(super) fn mistakes(file: &str, env: &[(&str, &str)]) -> Vec<String> {
    load(file, env).expect_err("mistakes expected").mistakes.iter().map(Mistake::to_string).collect()
}

/// One mistake, which begins like this.
pub(super) fn one_mistake(file: &str, env: &[(&str, &str)], expected: &str) {
    let found = mistakes(file, env);
    assert!(found.len() == 1 && found[0].starts_with(expected), "expected {expected}\nfound {found:#?}");
}

#[test]
fn the_defaults_have_no_mistakes() {
    let config = good("", &[]);
    assert_eq!(config.kafka.brokers, "localhost:9092");
    assert_eq!(config.kafka.partitions.all(), crate::domain::catalog::topics::ALL);
    assert_eq!(config.database.url.expose(), "sqlite://data/notifications.db");
    assert_eq!(config.startup.deadline(), Some(Duration::from_secs(120)));
    assert_eq!(config.delivery.retry.schedule().len(), 6);
    assert_eq!(config.delivery.providers.len(), 6);
    assert_eq!(config.delivery.providers[0].file(), Some(Path::new("data/outbox.jsonl")));
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn the_optional_keys_of_the_manual_are_valid() {
    let is_key = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.starts_with("[[")
            || line.starts_with('"')
            || line.contains(" = ") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let uncomment = |line: &'static str| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line);
    let manual: Vec<&str> = super::load::DEFAULTS.lines().map(uncomment).collect();
    let (manual, instead) = (manual.join("\n"), "jwt_public_key_file = ");
    one_mistake(&manual, &[], "auth.jwt_public_key_file: must not be set beside auth.jwt_secret");
    let config = good(&manual.replace(instead, &format!("# {instead}")), &[]);
    assert!(config.auth.jwt_secret.is_some() && config.auth.audience.is_some());
    assert_eq!(config.routing.routes.len(), 1);
    assert_eq!(config.routing.routes()[0].when.len(), 1);
    let source = &config.routing.sources[0];
    assert_eq!((source.group(), source.claim_idle_ms, source.max_deliveries), (source_defaults().group(), 60_000, 5));
    assert_eq!(config.kafka.properties.len(), 5);
    assert!(config.redis.url.is_some() && config.delivery.templates_dir.is_some());
    assert!(config.delivery.providers[0].secret.is_some() && config.delivery.providers[0].max_per_second.is_some());
    assert_eq!(config.warnings().len(), 6, "keys without effect for a file: {:#?}", config.warnings());
}

#[test]
fn the_default_locale_is_a_language_tag() {
    assert_eq!(good("", &[]).delivery.default_locale, "en");
    assert_eq!(good("", &[("NOTIFICATION__DELIVERY__DEFAULT_LOCALE", "de-AT")]).delivery.default_locale, "de-AT");
    one_mistake("[delivery]\ndefault_locale = \"german!\"\n", &[], "delivery.default_locale: `german!` is no BCP 47");
}

#[test]
fn a_lease_that_nobody_sets_outlasts_the_slowest_provider() {
    let provider = |timeout_ms: u64| {
        format!(
            "[[delivery.providers]]\nname = \"p{timeout_ms}\"\nchannel = \"sms\"\nkind = \"file\"\nurl = \"file:x\"\n\
             timeout_ms = {timeout_ms}\n"
        )
    };
    let lease_ms = |file: &str| good(file, &[]).delivery.lease().as_millis();
    assert_eq!(lease_ms(""), 15_000);
    assert_eq!(lease_ms(&provider(9999)), 15_000);
    assert_eq!(lease_ms(&provider(10_000)), 15_001);
    assert_eq!(lease_ms(&format!("{}{}", provider(60_000), provider(20_000))), 65_001);
    let set = |lease_ms: u64| format!("[delivery]\nlease_ms = {lease_ms}\n{}", provider(1000));
    assert_eq!(lease_ms(&set(6001)), 6001, "what is set holds, a shorter one too");
    one_mistake(&set(6000), &[], "delivery.lease_ms: must be greater than 6000, the longest timeout_ms of a provider");
    one_mistake(&set(0), &[], "delivery.lease_ms: must be between 1 and 2592000000, not 0");
    let by_variable = good("", &[("NOTIFICATION__DELIVERY__LEASE_MS", "20000")]);
    assert_eq!(by_variable.delivery.lease_ms, Some(20_000));
    one_mistake("[delivery]\nlease_ms = \"long\"", &[], "delivery.lease_ms: must be a whole number, 0 or more, not");
}

#[test]
fn a_typical_file_loads() {
    let config = good(
        r#"
        [routing]
        enabled = true
        guarantee = "at_least_once"
        max_retries = 3
        [[routing.routes]]
        topic = "order-events"
        event_type = "OrderDelivered"
        channel = "email"
        template = "order_delivered"
        recipient = "/data/customerId"
        data = { orderId = "/data/orderId" }
        [breaker]
        failure_threshold = 5
        recovery_timeout_ms = 10000
        [delivery]
        enabled = true
        email_from = "Shop <no-reply@example.com>"
        [delivery.retry]
        schedule_ms = [5000, 30000, 120000, 600000, 1800000, 7200000]
        [[delivery.providers]]
        name = "mail"
        channel = "email"
        kind = "smtp"
        url = "smtp://localhost:1025"
        timeout_ms = 5000
        max_per_second = 50
        on_unknown = "retry"
        "#,
        &[],
    );
    let routes = config.routing.routes();
    assert_eq!((routes[0].event_type.as_str(), routes[0].channel), ("OrderDelivered", Channel::Email));
    assert_eq!(config.delivery.providers.len(), 1, "a list replaces the default one");
    assert_eq!(config.delivery.providers_of(Channel::Email).next().expect("mail").kind, ProviderKind::Smtp);
    assert_eq!(config.warnings().len(), 5, "five channels without a provider");
    assert_eq!(config.kafka.client_id, "notification-service", "tables are merged");
}

#[test]
fn every_mistake_is_reported_with_its_key() {
    let file = r#"
        [kafka]
        brokers = ""
        brokrs = "localhost:9092"
        replication_factor = "three"
        [database]
        url = "mysql://root:hunter2@localhost/x"
        [http]
        address = "localhost"
        [shutdown]
        timeout_ms = 10
        [routing]
        guarantee = "thrice"
        [[routing.routes]]
        topic = "audit-events"
        event_type = "X"
        channel = "fax"
        template = "x"
        recipient = "data/customerId"
        [delivery]
        lease_ms = 9000
        [[delivery.providers]]
        channel = "sms"
        kind = "smtp"
        url = "smtp://localhost:25"
        [[delivery.providers]]
        name = "sms"
        channel = "sms"
        kind = "pigeon"
        url = "https://api.example.com"
        timeout_ms = 0
        [surveillance]
    "#;
    let found = mistakes(file, &[("NOTIFICATION__BREAKER__FAILURE_THRESHOLD", "0")]);
    let expected = [
        "breaker.failure_threshold: must be at least 1, not 0 (set by NOTIFICATION__BREAKER__FAILURE_THRESHOLD)",
        "database.url: must begin with postgres:// or postgresql:// or sqlite://",
        "delivery.lease_ms: must be greater than 10000",
        "delivery.providers[0].kind: `smtp` carries only the channel email, not sms",
        "delivery.providers[0].name: is missing",
        "delivery.providers[1].kind: `pigeon` is none of smtp, http, twilio, fcm, slack, inbox, file",
        "delivery.providers[1].timeout_ms: must be between 1 and 60000, not 0",
        "http.address: must be an IP address and a port",
        "kafka.brokers: must not be empty",
        "kafka.brokrs: unknown key, did you mean `brokers`?",
        "kafka.replication_factor: must be a whole number up to 2147483647, not string \"three\"",
        "routing.guarantee: `thrice` is unknown, expected `at_least_once` or `exactly_once`",
        "routing.routes[0].channel: `fax` is none of email, sms, push, webhook, in_app, admin_alert",
        "routing.routes[0].recipient: `data/customerId` is no JSON pointer",
        "routing.routes[0].topic: must be one of order-events, user-events, product-events",
        "shutdown.timeout_ms: must be between 1000 and 2592000000, not 10",
        "surveillance: unknown key",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "expected {expected}\nfound    {found}");
    }
}

#[test]
fn mistakes_print_one_a_line() {
    let error = load("[kafka]\nbrokers = \"\"\nclient_id = \"\"", &[]).expect_err("two mistakes");
    assert_eq!(error.to_string(), "  kafka.brokers: must not be empty\n  kafka.client_id: must not be empty");
}

#[test]
fn an_unknown_key_gets_its_nearest() {
    let hint = |key: &str, name: &str| format!("{key}: unknown key, did you mean `{name}`?");
    one_mistake("[delivery]\npoll_intervall_ms = 1", &[], &hint("delivery.poll_intervall_ms", "poll_interval_ms"));
    one_mistake("[kafka.partitions]\norder-event = 1", &[], &hint("kafka.partitions.order-event", "order-events"));
    one_mistake("[loging]\nformat = \"json\"", &[], &hint("loging", "logging"));
    one_mistake("", &[("NOTIFICATION__HTTP__ADRESS", "x")], &hint("http.adress", "address"));
    one_mistake("[redis]\nfoo = 1", &[], "redis.foo: unknown key, expected one of url");
    let format = "logging.format: `jsn` is none of pretty, json, did you mean `json`?";
    one_mistake("[logging]\nformat = \"jsn\"", &[], format);
}

#[test]
fn the_environment_is_the_topmost_layer() {
    let config = good(
        "[kafka]\nbrokers = \"file:9092\"\n[database]\nmax_connections = 3",
        &[
            ("KAFKA_BROKERS", "embedded"),
            ("DATABASE_URL", "postgres://u:p@db/x"),
            ("REDIS_URL", ""),
            ("HTTP_ADDRESS", "0.0.0.0:0"),
            ("NOTIFICATION__HTTP__ADDRESS", "127.0.0.1:0"),
            ("LOG_FORMAT", "json"),
            ("RUST_LOG", "debug"),
            ("NOTIFICATION__DATABASE__MAX_CONNECTIONS", "7"),
            ("NOTIFICATION__ROUTING__ENABLED", "false"),
            ("NOTIFICATION__DELIVERY__RETRY__SCHEDULE_MS", "[]"),
            ("NOTIFICATION__KAFKA__PARTITIONS__ORDER_EVENTS", "12"),
            ("NOTIFICATION__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "ssl"),
            ("NOTIFICATION__KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", "10000"),
            ("NOTIFICATION__KAFKA__CLIENT_ID", "123"),
            ("NOTIFICATION__DELIVERY__PROVIDERS__1__SECRET", "42"),
            ("NOTIFICATION__DELIVERY__PROVIDERS__1__MAX_PER_SECOND", "9"),
            ("NOTIFICATION_SERVICE_PORT", "tcp://10.0.0.1:80"),
            ("PATH", "/bin"),
        ],
    );
    assert!(
        config.kafka.is_embedded()
            && config.database.url.expose().starts_with("postgres://")
            && config.redis.url.is_none()
    );
    assert_eq!(config.http.address.to_string(), "127.0.0.1:0", "the long name wins");
    assert_eq!((config.logging.format, config.logging.filter.as_str()), (LogFormat::Json, "debug"));
    assert_eq!((config.database.max_connections, config.routing.enabled), (7, false));
    assert_eq!(config.delivery.retry.schedule_ms, Vec::<u64>::new());
    assert_eq!(config.kafka.partitions.order_events, 12);
    assert_eq!(config.kafka.properties["security.protocol"], "ssl");
    assert_eq!(config.kafka.properties["socket.timeout.ms"], "10000");
    assert_eq!(config.kafka.client_id, "123", "a string stays one");
    let provider = &config.delivery.providers[1];
    assert_eq!((provider.secret.as_ref().map(Secret::expose), provider.max_per_second), (Some("42"), Some(9)));
}

#[test]
fn variables_that_set_nothing_are_mistakes() {
    let mistake = |variable: &str, value: &str, expected: &str| one_mistake("", &[(variable, value)], expected);
    mistake(
        "NOTIFICATION__ROUTING__ENABLED",
        "yes",
        "routing.enabled: must be true or false, not string \"yes\" (set by",
    );
    mistake("NOTIFICATION__KAFKA__BROKERS__X", "1", "NOTIFICATION__KAFKA__BROKERS__X: `kafka.brokers` has no keys");
    mistake("NOTIFICATION__DELIVERY__PROVIDERS__6__URL", "x", "NOTIFICATION__DELIVERY__PROVIDERS__6__URL: `delivery.");
    mistake("NOTIFICATION__", "x", "NOTIFICATION__: does not name a key");
    mistake("NOTIFICATION__KAFKA", "x", "kafka: must be a table, not string \"x\"");
}

#[test]
fn properties_need_no_quotes() {
    let config = good("[kafka.properties]\nsecurity.protocol = \"ssl\"\n\"ssl.ca.location\" = \"/ca.pem\"", &[]);
    assert_eq!(config.kafka.properties["security.protocol"], "ssl");
    assert_eq!(config.kafka.properties["ssl.ca.location"], "/ca.pem");
    one_mistake("[kafka.properties]\nlinger.ms = 5", &[], "kafka.properties.\"linger.ms\": must be a string, not");
}

#[test]
fn values_that_exclude_each_other_are_mistakes() {
    let idle = "[routing]\nenabled = false\n[delivery]\nenabled = false";
    one_mistake(idle, &[], "delivery.enabled: must not be false while");
    one_mistake("[routing]\nmax_in_flight = 499", &[], "routing.max_in_flight: must not be less than routing.batch");
    let provider = "[[delivery.providers]]\nname = \"a\"\nchannel = \"sms\"\nkind = \"file\"\nurl = \"file:x\"\n";
    one_mistake(&format!("{provider}{provider}"), &[], "delivery.providers[1].name: `a` is the name of another");
    one_mistake(&format!("{provider}secret = 5"), &[], "delivery.providers[0].secret: must be a string");
    let nowhere = "[delivery]\ntemplates_dir = \"/does/not/exist\"";
    one_mistake(nowhere, &[], "delivery.templates_dir: the folder `/does/not/exist` does not exist");
}

#[test]
fn secrets_are_masked() {
    let file = r#"
        [kafka.properties]
        "sasl.password" = "hunter2"
        "ssl.key.pem" = "hunter2"
        "ssl.key.location" = "/visible/key.pem"
        [[delivery.providers]]
        name = "hook"
        channel = "webhook"
        kind = "http"
        url = "https://user:hunter2@hooks.example/x?client_secret=hunter2&a=b"
        secret = "hunter2"
    "#;
    let urls = [("DATABASE_URL", "postgres://u:hunter2@db/x"), ("REDIS_URL", "redis://:hunter2@cache:6379/1")];
    let config = good(file, &urls);
    for text in [config.show(), format!("{config:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            text.contains("postgres://u:********@db/x") && text.contains("redis://:********@cache:6379/1"),
            "{text}"
        );
    }
    assert!(config.show().contains("/visible/key.pem"));
    assert!(config.show().contains("https://user:********@hooks.example/x?client_secret=********&a=b"));
    let shown = good("", &[]).show();
    assert_eq!(good(&shown, &[]).show(), shown, "what is shown loads");
}

#[test]
fn a_missing_file_is_named_beside_the_other_mistakes() {
    let env = [("KAFKA_BROKERS".to_owned(), "nonsense:port".to_owned())];
    let error = Config::load(Some(Path::new("/no/such.toml")), env.into_iter()).expect_err("no file");
    assert_eq!(error.mistakes.len(), 2, "{error}");
    assert!(error.to_string().starts_with("  /no/such.toml: cannot be read: No such file"), "{error}");
    assert!(error.to_string().contains("kafka.brokers: `nonsense:port` is not of the form host:port (set by KAFKA"));
}

#[test]
fn a_syntax_error_has_its_line_and_column() {
    let found = mistakes("[kafka]\nbrokers = localhost:9092\n[http\naddress = \"x\"\n", &[]);
    assert!(found[0].contains("service.toml: line 2, column 11: "), "{found:#?}");
    assert!(found.len() == 2 && found[1].contains("line 3, column "), "{found:#?}");
}

const STREAM: &str = "[[routing.sources]]\nkind = \"redis_stream\"\nstream = \"shop-events\"\n";
const REDIS: [(&str, &str); 1] = [("REDIS_URL", "redis://localhost:6379")];

fn source_defaults() -> SourceConfig {
    good(STREAM, &REDIS).routing.sources.remove(0)
}

#[test]
fn a_stream_needs_little() {
    let source = source_defaults();
    assert_eq!(source.group(), "notification-service-shop-events");
    assert_eq!((source.field.as_str(), source.claim_idle()), ("event", Duration::from_secs(60)));
    assert_eq!((source.max_deliveries, source.trim_max_length), (5, None));
    let named = [REDIS[0], ("NOTIFICATION__ROUTING__SOURCES__0__CONSUMER", "7")];
    assert_eq!(good(STREAM, &named).routing.sources[0].consumer.as_deref(), Some("7"));
}

#[test]
fn mistakes_of_sources_are_named() {
    one_mistake(STREAM, &[], "redis.url: is missing: routing.sources[0]");
    one_mistake(
        &format!("{STREAM}{STREAM}group = \"g\""),
        &REDIS,
        "routing.sources[1].stream: is the stream of another",
    );
    let kafka = STREAM.replace("shop-events", "orders");
    one_mistake(&kafka, &REDIS, "routing.sources[0].group: `notification-service-orders` is the name of a Kafka group");
    let other = format!("{STREAM}{}group = \"notification-service-shop-events\"", STREAM.replace("shop", "x"));
    one_mistake(&other, &REDIS, "routing.sources[1].group: `notification-service-shop-events` is the group of another");
    let file = "[[routing.sources]]\nkind = \"redis\"\nfield = \"\"\ngroup = \"\"\nconsumer = \"\"\nclaim_idle_ms = 500\n\
                max_deliveries = 2\ntrim_max_length = 0\n";
    let found = mistakes(file, &REDIS);
    let expected = [
        "claim_idle_ms: must be between 2000 and 2592000000, not 500",
        "consumer: must not be empty",
        "field: must not be empty",
        "group: must not be empty",
        "kind: `redis` is none of redis_stream",
        "max_deliveries: must be between 3 and 1000, not 2",
        "stream: is missing",
        "trim_max_length: must be at least 1, not 0",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(&format!("routing.sources[0].{expected}")), "expected {expected}\nfound    {found}");
    }
}
