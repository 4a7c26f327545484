//! The command line: what it says, and with which exit code it ends.

use std::fs;
use std::net::TcpListener;
use std::thread;

use tempfile::TempDir;

use crate::support::command::{Finished, Invocation};
use crate::support::events::{Event, object, order_created, quoted, user_registered};
use crate::support::kafka::Kafka;
use crate::support::service::{Service, free_port};
use crate::support::wait::{self, secs};

const FINE: i32 = 0;
const FAILED: i32 = 1;
const MISTAKE: i32 = 2;

#[test]
fn help_and_defaults_are_fine() {
    let corner = Corner::new();
    corner.run(&["--help"]).expect_code(FINE).expect_words(&[
        "demo",
        "serve",
        "topics",
        "publish",
        "load-test",
        "config",
    ]);
    corner.run(&["--version"]).expect_code(FINE).expect_words(&["notification-service"]);
    corner.run(&["config", "check"]).expect_code(FINE);
    let shown = corner.run(&["config", "show"]).expect_code(FINE);
    assert!(shown.stdout.contains("localhost:9092"), "{}", shown.stdout);
}

#[test]
fn usage_mistakes_exit_with_2() {
    let corner = Corner::new();
    let mistakes: [&[&str]; 5] = [
        &["no-such-command"],
        &["serve", "--no-such-option"],
        &["load-test", "--count", "many"],
        &["publish"],
        &["topics", "rename"],
    ];
    for args in mistakes {
        let finished = corner.run(args);
        assert_eq!(finished.code, Some(MISTAKE), "{args:?}: {}", finished.output());
        assert!(!finished.stderr.is_empty(), "{args:?} says what is wrong");
    }
}

#[test]
fn all_mistakes_of_a_configuration_are_listed_at_once() {
    let corner = Corner::new();
    let file = corner.file(
        "service.toml",
        "[kafka]\nbrokrs = \"localhost:9092\"\nreplication_factor = \"three\"\n\
         [database]\nurl = \"mysql://localhost/x\"\n\
         [delivery.retry]\nschedule_ms = [0]\n\
         [[delivery.providers]]\nchannel = \"fax\"\nkind = \"http\"\nurl = \"x\"\n",
    );
    let keys = [
        "kafka.brokrs",
        "`brokers`",
        "kafka.replication_factor",
        "database.url",
        "delivery.retry.schedule_ms",
        "delivery.providers[0].name",
        "delivery.providers[0].channel",
        "delivery.providers[0].url",
        "breaker.failure_threshold",
    ];
    for command in [["config", "check"].as_slice(), &["serve"]] {
        let args = [command, &["--config", &file]].concat();
        let wrong = corner.command(&args).env("NOTIFICATION__BREAKER__FAILURE_THRESHOLD", "0");
        wrong.run(secs(20)).expect_code(MISTAKE).expect_words(&keys);
    }
}

#[test]
fn a_missing_configuration_file_is_a_mistake() {
    let corner = Corner::new();
    for command in [["config", "check"].as_slice(), &["serve"]] {
        let args = [command, &["--config", "/no/such/file.toml"]].concat();
        corner.run(&args).expect_code(MISTAKE).expect_words(&["/no/such/file.toml"]);
    }
}

#[test]
fn secrets_are_masked() {
    let corner = Corner::new();
    let file = corner.file(
        "service.toml",
        "[kafka.properties]\n\"sasl.password\" = \"hunter2\"\n\
         [[delivery.providers]]\nname = \"hook\"\nchannel = \"webhook\"\n\
         kind = \"http\"\nurl = \"https://user:hunter2@hooks.example/x\"\nsecret = \"hunter2\"\n",
    );
    let show = corner.command(&["config", "show", "--config", &file]);
    let show = show.env("DATABASE_URL", "postgres://me:hunter2@db/x").env("REDIS_URL", "redis://:hunter2@cache:6379");
    let shown = show.run(secs(20)).expect_code(FINE).expect_words(&["me:", "hooks.example", "sasl.password"]);
    assert!(!shown.output().contains("hunter2"), "{}", shown.output());
}

#[test]
fn a_command_without_a_broker_gives_up_and_names_the_variable() {
    let data = r#"{"orderId":"1","customerId":"c","amount":1}"#;
    let commands: [&[&str]; 3] = [
        &["topics", "create"],
        &["publish", "OrderCreated", "--data", data],
        &["load-test", "--count", "10", "--batch", "10"],
    ];
    thread::scope(|scope| {
        for args in commands {
            scope.spawn(move || {
                let corner = Corner::new();
                let broker = format!("127.0.0.1:{}", free_port());
                let finished = corner.command(args).env("KAFKA_BROKERS", &broker).run(secs(35));
                finished.expect_code(FAILED).expect_words(&["KAFKA_BROKERS", &broker]);
            });
        }
    });
}

#[test]
fn a_port_in_use_is_named() {
    let corner = Corner::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let serve = corner.embedded(&["serve"]).env("HTTP_ADDRESS", &address);
    serve.run(secs(30)).expect_code(FAILED).expect_words(&["HTTP_ADDRESS", &address]);
}

#[test]
fn an_unusable_database_path_is_named() {
    let corner = Corner::new();
    // A file where a folder would have to be: not even root can create something in it.
    let file = corner.file("file", "");
    let serve = corner.embedded(&["serve"]).env("HTTP_ADDRESS", &format!("127.0.0.1:{}", free_port()));
    let serve = serve.env("DATABASE_URL", &format!("sqlite://{file}/notifications.db"));
    let serve = serve.env("NOTIFICATION__STARTUP__DEADLINE_MS", "5000");
    serve.run(secs(30)).expect_code(FAILED).expect_words(&["DATABASE_URL", &file]);
}

#[test]
fn without_a_broker_the_service_lives_waits_and_gives_up() {
    let corner = Corner::new();
    let broker = format!("127.0.0.1:{}", free_port());
    let serve = corner.embedded(&["serve"]).env("KAFKA_BROKERS", &broker);
    let mut service = Service::spawn(serve.env("NOTIFICATION__STARTUP__DEADLINE_MS", "8000"));
    wait::until("the service is live", secs(8), || {
        service.try_get("/health/live").ok().filter(|answer| answer.status == 200).map(drop)
    });
    for path in ["/health/ready", "/health/startup", "/health"] {
        let answer = service.get(path);
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        assert!(answer.took < secs(1), "{path} took {:?}", answer.took);
    }
    assert_eq!(service.get("/health").json()["status"], "unhealthy");
    assert!(service.is_running(), "it waits");
    let status = service.wait_for_exit(secs(20));
    assert_eq!(status.code(), Some(FAILED), "{}", service.log());
    assert!(service.log().contains("KAFKA_BROKERS"), "it says for what it waited: {}", service.log());
}

#[test]
fn the_demo_accounts_for_every_event_of_a_file() {
    let corner = Corner::new();
    let args = ["demo", "--events", &corner.events(), "--exit"];
    let finished = corner.command(&args).env("HTTP_ADDRESS", &format!("127.0.0.1:{}", free_port()));
    let finished = finished.run(secs(120)).expect_code(FINE);
    let counts =
        [("events", 7), ("delivered", 3), ("skipped", 2), ("suppressed", 0), ("waiting", 1), ("dead-lettered", 1)];
    for (label, count) in counts {
        assert_eq!(finished.count(label), count, "{label} in:\n{}", finished.stdout);
    }
}

#[test]
fn the_demo_s_summary_can_be_one_json_object() {
    let corner = Corner::new();
    let args = ["demo", "--events", &corner.events(), "--exit", "--json"];
    let demo = corner.command(&args).env("HTTP_ADDRESS", &format!("127.0.0.1:{}", free_port()));
    let summary = demo.run(secs(120)).expect_code(FINE).json_object();
    let counts =
        [("events", 7), ("delivered", 3), ("skipped", 2), ("suppressed", 0), ("waiting", 1), ("deadLettered", 1)];
    for (key, count) in counts {
        assert_eq!(summary.get(key).and_then(|value| value.as_u64()), Some(count), "{key} in {summary:?}");
    }
}

#[test]
#[ignore = "needs Kafka and PostgreSQL: scripts/test.sh"]
fn topics_are_created_once_and_their_drift_is_told() {
    let (corner, kafka) = (Corner::new(), Kafka::corner());
    let command = |args: &[&str]| {
        corner.command(args).env("KAFKA_BROKERS", &kafka.brokers).env("NOTIFICATION__KAFKA__PREFIX", &kafka.prefix)
    };
    let orders = kafka.named("order-events");
    let drifts = |args: &[&str]| command(args).env("NOTIFICATION__KAFKA__PARTITIONS__ORDER_EVENTS", "5");

    command(&["topics", "describe"]).run(secs(40)).expect_code(FAILED).expect_words(&[&orders, "missing"]);
    command(&["topics", "create"]).run(secs(40)).expect_code(FINE);
    command(&["topics", "create"]).run(secs(40)).expect_code(FINE);
    wait::until("the new topics are described", secs(20), || {
        (command(&["topics", "describe"]).run(secs(40)).code == Some(FINE)).then_some(())
    });

    let told = drifts(&["topics", "describe"]).run(secs(40)).expect_code(FAILED);
    let line = told.output().lines().find(|line| line.contains(&orders)).map(str::to_owned).unwrap_or_default();
    assert!(line.contains('3') && line.contains('5'), "the drift in words beside the topic: {line}");
    drifts(&["topics", "create"]).run(secs(40)).expect_code(FINE);
    command(&["topics", "describe"]).run(secs(40)).expect_code(FINE);

    command(&["topics", "delete"]).run(secs(40)).expect_code(FINE);
    wait::until("the topics are gone", secs(20), || {
        (command(&["topics", "describe"]).run(secs(40)).code == Some(FAILED)).then_some(())
    });
}

/// A folder of the test's own, in which commands run.
struct Corner(TempDir);

impl Corner {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn command(&self, args: &[&str]) -> Invocation {
        Invocation::new(self.0.path(), args)
    }

    /// A command that needs no server.
    fn embedded(&self, args: &[&str]) -> Invocation {
        self.command(args).env("DATABASE_URL", "sqlite://notifications.db").env("KAFKA_BROKERS", "embedded")
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Finished {
        self.command(args).run(secs(20))
    }

    /// Writes a file; returns its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Seven lines: three are delivered, two skipped, one waits for its contact, and one is no event.
    fn events(&self) -> String {
        let nobody = object(&[("userId", quoted("user-1"))]);
        let lines = [
            user_registered("event-1", "user-1").json(),
            order_created("event-2", "order-1", "user-1", "99.10").json(),
            order_created("event-3", "order-2", "someone@example.com", "1e3").json(),
            Event::new("UserLogin", "event-4", "user-1", nobody.clone()).json(),
            Event::new("CartAbandoned", "event-5", "cart-1", nobody).json(),
            order_created("event-6", "order-3", "stranger", "5").json(),
            "this line is no event".to_owned(),
        ];
        self.file("events.jsonl", &lines.join("\n"))
    }
}
