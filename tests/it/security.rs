//! Brokers that ask for credentials: with the right ones it works, with wrong ones it says so and ends.

use std::fs;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::support::command::Invocation;
use crate::support::kafka::{Kafka, NOTIFICATIONS};
use crate::support::published::Story;
use crate::support::secured_broker::{PLAIN_USER, SCRAM_USER, SecuredBroker};
use crate::support::service::Service;
use crate::support::wait::{self, secs};

const DATA: &str = r#"{"orderId":"1","customerId":"someone@example.com","amount":99.10}"#;
/// No credential of these tests may be repeated by the service.
const SECRETS: [&str; 3] = [PLAIN_USER.1, SCRAM_USER.1, "wrong-secret"];

/// One broker for all tests that leave it as it is.
fn broker() -> &'static SecuredBroker {
    static BROKER: OnceLock<SecuredBroker> = OnceLock::new();
    BROKER.get_or_init(SecuredBroker::start)
}

/// The service's side: an address and `[kafka.properties]`.
struct Client {
    kafka: Kafka,
    address: String,
    folder: TempDir,
}

type Properties<'a> = &'a [(&'a str, &'a str)];

impl Client {
    fn new(broker: &SecuredBroker, address: String, properties: Properties<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let lines: String = properties.iter().map(|(name, value)| format!("\"{name}\" = \"{value}\"\n")).collect();
        let settings =
            format!("[delivery]\nenabled = false\n[monitor]\ninterval_ms = 500\n[kafka.properties]\n{lines}");
        fs::write(folder.path().join("service.toml"), settings).expect("written");
        Self { kafka: broker.corner(), address, folder }
    }

    fn with_user(broker: &SecuredBroker, mechanism: &str, (user, password): (&str, &str)) -> Self {
        let protocol = [("security.protocol", "sasl_plaintext"), ("sasl.mechanisms", mechanism)];
        let user = [("sasl.username", user), ("sasl.password", password)];
        Self::new(broker, broker.sasl(), &[protocol, user].concat())
    }

    fn with_certificate(broker: &SecuredBroker, ca: &str, name: &str) -> Self {
        let made = &broker.certificates;
        let (ca, certificate, key) = (made.pem(ca), made.pem(name), made.key(name));
        let certificate = [("ssl.certificate.location", &*certificate), ("ssl.key.location", &*key)];
        let trust = [("security.protocol", "ssl"), ("ssl.ca.location", &*ca)];
        Self::new(broker, broker.tls(), &[trust, certificate].concat())
    }

    fn with_both(broker: &SecuredBroker, mechanism: &str, (user, password): (&str, &str)) -> Self {
        let ca = broker.certificates.pem("ca");
        let protocol = [("security.protocol", "sasl_ssl"), ("ssl.ca.location", &*ca), ("sasl.mechanisms", mechanism)];
        let user = [("sasl.username", user), ("sasl.password", password)];
        Self::new(broker, broker.sasl_tls(), &[&protocol[..], &user].concat())
    }

    fn command(&self, args: &[&str]) -> Invocation {
        Invocation::new(self.folder.path(), &[&["--config", "service.toml"], args].concat())
            .env("KAFKA_BROKERS", &self.address)
            .env("NOTIFICATION__KAFKA__PREFIX", &self.kafka.prefix)
            .env("DATABASE_URL", "sqlite://notifications.db")
    }

    /// Every way in: provisioning, publishing, consuming, producing.
    #[track_caller]
    fn works(&self) -> Service {
        self.command(&["topics", "create"]).run(secs(40)).expect_code(0);
        let published = self.command(&["publish", "OrderCreated", "--data", DATA]).run(secs(40)).expect_code(0);
        let mut service = Service::spawn(self.command(&["serve"]));
        service.wait_until_ready();
        wait::until("the event has become a request", secs(30), || {
            (self.kafka.count(NOTIFICATIONS) == 1).then_some(())
        });
        self.kafka.wait_until_routed(secs(20));
        let story = Story::of(&self.kafka);
        let causes: Vec<&str> = story.requests.iter().map(|request| request.causation_id()).collect();
        assert_eq!(causes, [published.stdout.trim()]);
        service
    }

    #[track_caller]
    fn works_and_stops(&self) {
        let mut service = self.works();
        service.terminate();
        assert_eq!(service.wait_for_exit(secs(20)).code(), Some(0));
    }

    /// Every command ends soon, with code 1 and one line that has these words. By default the service would wait for two
    /// minutes, and the others for twenty seconds.
    #[track_caller]
    fn is_refused(&self, words: &[&str]) {
        let commands: [&[&str]; 3] = [&["serve"], &["topics", "create"], &["publish", "OrderCreated", "--data", DATA]];
        for args in commands {
            let command = self.command(args).env("HTTP_ADDRESS", "127.0.0.1:0").env("RUST_LOG", "warn");
            let finished = command.run(secs(15)).expect_code(1).expect_words(words);
            let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("KAFKA_BROKERS")).collect();
            assert!(matches!(lines[..], [line] if line.starts_with("error: ")), "one line: {}", finished.output());
            let told = SECRETS.iter().find(|secret| finished.output().contains(*secret));
            assert_eq!(told, None, "{}", finished.output());
        }
    }
}

const USER: [&str; 3] = ["the user or the password is refused", "\"sasl.username\"", "\"sasl.password\""];

#[test]
#[ignore = "needs Kafka's jars: scripts/test.sh"]
fn sasl_plain_works() {
    Client::with_user(broker(), "PLAIN", PLAIN_USER).works_and_stops();
}

#[test]
#[ignore = "needs Kafka's jars: scripts/test.sh"]
fn sasl_scram_works() {
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        Client::with_user(broker(), mechanism, SCRAM_USER).works_and_stops();
    }
}

#[test]
#[ignore = "needs Kafka's jars: scripts/test.sh"]
fn a_client_certificate_works() {
    Client::with_certificate(broker(), "ca", "client").works_and_stops();
}

#[test]
#[ignore = "needs Kafka's jars: scripts/test.sh"]
fn sasl_over_tls_works() {
    Client::with_both(broker(), "SCRAM-SHA-512", SCRAM_USER).works_and_stops();
}

#[test]
#[ignore = "needs Kafka's jars: scripts/test.sh"]
fn wrong_passwords_and_unknown_users_end_it() {
    let refused = [
        ("PLAIN", (PLAIN_USER.0, "wrong-secret")),
        ("SCRAM-SHA-256", (SCRAM_USER.0, "wrong-secret")),
        ("SCRAM-SHA-512", ("nobody", SCRAM_USER.1)),
    ];
    for (mechanism, user) in refused {
        Client::with_user(broker(), mechanism, user).is_refused(&USER);
    }
    Client::with_both(broker(), "SCRAM-SHA-512", ("nobody", "wrong-secret")).is_refused(&USER);
}

#[test]
#[ignore = "needs Kafka's jars: scripts/test.sh"]
fn a_mechanism_that_the_broker_does_not_have_ends_it() {
    let words = ["the SASL mechanism is refused", "kafka.properties.\"sasl.mechanisms\"", "SCRAM-SHA-512"];
    Client::with_both(broker(), "PLAIN", PLAIN_USER).is_refused(&words);
}

#[test]
#[ignore = "needs Kafka's jars: scripts/test.sh"]
fn a_missing_or_foreign_client_certificate_ends_it() {
    let words = ["the client's certificate is refused, or missing", "kafka.properties.\"ssl.certificate.location\""];
    Client::with_certificate(broker(), "ca", "stranger").is_refused(&words);
    let ca = broker().certificates.pem("ca");
    let without = [("security.protocol", "ssl"), ("ssl.ca.location", &*ca)];
    Client::new(broker(), broker().tls(), &without).is_refused(&words);
}

#[test]
#[ignore = "needs Kafka's jars: scripts/test.sh"]
fn a_broker_of_an_unknown_authority_ends_it() {
    let words = ["the broker's certificate is not trusted", "kafka.properties.\"ssl.ca.location\""];
    Client::with_certificate(broker(), "stranger-ca", "client").is_refused(&words);
}

#[test]
#[ignore = "needs Kafka's jars: scripts/test.sh"]
fn a_running_service_outlives_the_loss_of_its_credentials() {
    let mut broker = SecuredBroker::start();
    let client = Client::with_user(&broker, "PLAIN", PLAIN_USER);
    let mut service = client.works();
    broker.restart_with_password("another-secret");
    let problem = wait::until("the refusal is told", secs(30), || {
        let health = service.get("/health");
        let problem = health.json()["details"]["kafka"]["problem"].as_str().map(str::to_owned)?;
        (health.status == 503 && problem.contains(USER[0])).then_some(problem)
    });
    assert!(USER.iter().all(|word| problem.contains(word)), "{problem}");
    assert!(service.log().contains(USER[0]), "in the log as well");
    assert_eq!(service.get("/health/live").status, 200, "no restart would help");
    assert!(service.is_running());

    broker.restart_with_password(PLAIN_USER.1);
    wait::until("it is healthy again", secs(30), || (service.get("/health").status == 200).then_some(()));
    client.command(&["publish", "OrderCreated", "--data", DATA]).run(secs(40)).expect_code(0);
    wait::until("and at work", secs(30), || (client.kafka.count(NOTIFICATIONS) == 2).then_some(()));
    assert_eq!(service.metrics().sum("actor_restarts_total", &[]), 0);
}
