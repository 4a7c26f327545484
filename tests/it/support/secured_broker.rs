//! A broker of the tests' own that asks for credentials: SASL, TLS with client certificates, and both.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tempfile::TempDir;

use super::certificates::Certificates;
use super::kafka::Kafka;
use super::servers::required;
use super::service::free_port;
use super::wait::{self, secs};

/// A user of the mechanism PLAIN.
pub const PLAIN_USER: (&str, &str) = ("plain-user", "plain-secret");
/// A user of both SCRAM mechanisms.
pub const SCRAM_USER: (&str, &str) = ("scram-user", "scram-secret");

/// Where the broker listens; all on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// For the tests' own eyes: asks for nothing.
    open: u16,
    /// PLAIN and both SCRAM mechanisms, not encrypted.
    sasl: u16,
    /// TLS; clients need a certificate.
    tls: u16,
    /// SCRAM-SHA-512 only, over TLS.
    sasl_tls: u16,
    controller: u16,
}

pub struct SecuredBroker {
    pub certificates: Certificates,
    ports: Ports,
    process: Option<Child>,
    folder: TempDir,
}

impl SecuredBroker {
    /// Started, and ready for clients.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = Ports {
            open: free_port(),
            sasl: free_port(),
            tls: free_port(),
            sasl_tls: free_port(),
            controller: free_port(),
        };
        let certificates = Certificates::make(&folder.path().join("certificates"));
        let mut broker = Self { certificates, ports, process: None, folder };
        broker.configure(PLAIN_USER.1);
        broker.format();
        broker.run();
        broker
    }

    /// The same broker with the same data, which knows its PLAIN user by this password only.
    #[track_caller]
    pub fn restart_with_password(&mut self, password: &str) {
        self.stop();
        self.configure(password);
        self.run();
    }

    /// A corner of it, as the tests see it: without credentials.
    pub fn corner(&self) -> Kafka {
        Kafka { brokers: address(self.ports.open), prefix: format!("it-{}.", super::unique()) }
    }

    pub fn sasl(&self) -> String {
        address(self.ports.sasl)
    }

    pub fn tls(&self) -> String {
        address(self.ports.tls)
    }

    pub fn sasl_tls(&self) -> String {
        address(self.ports.sasl_tls)
    }

    #[track_caller]
    fn format(&self) {
        let mut command = self.java();
        command.args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", &self.properties()]);
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let (name, password) = SCRAM_USER;
            command.args(["--add-scram", &format!("{mechanism}=[name={name},password={password}]")]);
        }
        let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("java: {e}"));
        assert!(output.status.success(), "its folder is formatted: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The broker ends with this value, and with the test process however that ends: its shell waits for a word, or
    /// for the end of a pipe that only this process holds. Without a word nobody else removes the folder.
    #[track_caller]
    fn run(&mut self) {
        let script = r#"folder=$1; shift; "$@" </dev/null & read -r word; kill -s KILL $!; wait
            [ "$word" ] || rm -rf "$folder""#;
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(self.folder.path());
        let java = self.java();
        command.arg(java.get_program()).args(java.get_args()).args(["kafka.Kafka", &self.properties()]);
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.process = Some(command.spawn().unwrap_or_else(|e| panic!("sh: {e}")));
        self.wait_until_it_answers();
    }

    #[track_caller]
    fn wait_until_it_answers(&self) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address(self.ports.open)).set("reconnect.backoff.max.ms", "500");
        let consumer: BaseConsumer = config.set("group.id", "nobody").create().expect("a consumer");
        let answers = wait::until_or_end(secs(60), || {
            let metadata = consumer.fetch_metadata(None, Duration::from_millis(500)).ok()?;
            (!metadata.brokers().is_empty()).then_some(())
        });
        let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        assert!(answers.is_some(), "the secured broker does not answer:\n{}", log());
    }

    fn stop(&mut self) {
        if let Some(mut shell) = self.process.take() {
            let _ = shell.stdin.take().map(|mut pipe| pipe.write_all(b"end\n"));
            let _ = shell.wait();
        }
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        let jars = Path::new(&required("TEST_KAFKA_JARS")).join("*");
        command.args(["-Xms128m", "-Xmx384m", "-cp", jars.to_str().expect("UTF-8")]);
        command
    }

    fn properties(&self) -> String {
        self.folder.path().join("server.properties").to_str().expect("UTF-8").to_owned()
    }

    #[track_caller]
    fn configure(&self, plain_password: &str) {
        let Ports { open, sasl, tls, sasl_tls, controller } = self.ports;
        let (store, ca) = (self.certificates.store("broker"), self.certificates.pem("ca"));
        let data = self.folder.path().join("data");
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let plain = format!(
            "org.apache.kafka.common.security.plain.PlainLoginModule required user_{}=\"{plain_password}\";",
            PLAIN_USER.0
        );
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{open},SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://127.0.0.1:{tls},\
             SASL_SSL://127.0.0.1:{sasl_tls},CONTROLLER://127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\
             SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
             inter.broker.listener.name=PLAINTEXT\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.sasl_plaintext.plain.sasl.jaas.config={plain}\n\
             listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={scram}\n\
             listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config={scram}\n\
             listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}\n\
             ssl.keystore.type=PEM\n\
             ssl.keystore.location={store}\n\
             ssl.truststore.type=PEM\n\
             ssl.truststore.location={ca}\n\
             listener.name.ssl.ssl.client.auth=required\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             broker.session.timeout.ms=4000\n\
             broker.heartbeat.interval.ms=500\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n",
            data.display()
        );
        fs::write(self.properties(), properties).expect("written");
    }
}

impl Drop for SecuredBroker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
