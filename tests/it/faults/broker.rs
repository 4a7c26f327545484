//! One real broker, a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::support::command::Process;
use crate::support::servers::required;
use crate::support::service::free_port;
use crate::support::wait::secs;

/// A clean stop hands leaderships over first.
const STOP: std::time::Duration = secs(60);

/// Up to three of them share a small machine, and start often: the thorough compiler would never earn its time back.
const JVM: [&str; 5] =
    ["-Xms128m", "-Xmx448m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"];

pub struct Broker {
    pub id: usize,
    /// Where tests and other brokers reach it.
    pub port: u16,
    /// Where the proxy reaches it; it tells clients that come this way to use `advertised`.
    pub proxied: u16,
    /// The proxy's port.
    pub advertised: u16,
    controller: u16,
    folder: PathBuf,
    process: Option<Process>,
    starts: u32,
}

impl Broker {
    pub fn new(id: usize, under: &Path) -> Self {
        let folder = under.join(format!("broker-{id}"));
        fs::create_dir_all(folder.join("data")).expect("a folder for its data");
        let [port, proxied, advertised, controller] = [(); 4].map(|()| free_port());
        Self { id, port, proxied, advertised, controller, folder, process: None, starts: 0 }
    }

    /// Itself in `controller.quorum.voters`.
    pub fn voter(&self) -> String {
        format!("{}@127.0.0.1:{}", self.id, self.controller)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Writes its configuration and begins to make its data folder one of Kafka's.
    pub fn format(&self, voters: &str, replicas: usize) -> Process {
        fs::write(self.file("server.properties"), self.properties(voters, replicas)).expect("written");
        fs::write(self.file("log4j2.yaml"), LOGGING).expect("written");
        let args = ["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"];
        self.java("format", &JVM, "kafka.tools.StorageTool", &args)
    }

    pub fn start(&mut self) {
        assert!(self.process.is_none(), "broker {} is stopped", self.id);
        self.starts += 1;
        self.process = Some(self.java(&format!("start-{}", self.starts), &JVM, "kafka.Kafka", &[]));
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> ExitStatus {
        self.process.take().expect("it runs").kill()
    }

    /// SIGTERM.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        process.terminate();
        process.wait(STOP).unwrap_or_else(|| panic!("broker {} does not stop", self.id))
    }

    /// Sends it a signal by its name, such as `STOP`.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    fn java(&self, name: &str, options: &[&str], class: &str, args: &[&str]) -> Process {
        let classes = format!("{}:{}/*", self.folder.display(), required("TEST_KAFKA_JARS"));
        let mut command = Command::new("java");
        command.args(options).args(["-cp", &classes, class]).args(args).arg(self.file("server.properties"));
        Process::spawn(command, self.file(&format!("{name}.log")), self.file(&format!("{name}.stderr")))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn properties(&self, voters: &str, replicas: usize) -> String {
        let Self { id, port, proxied, advertised, controller, .. } = self;
        let (data, in_sync) = (self.folder.join("data"), replicas.div_ceil(2));
        format!(
            "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{advertised}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT
log.dirs={}
log.retention.hours=24
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=5
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
{BROKER_SETTINGS}",
            data.display(),
        )
    }
}

/// Leaders go back soon to where they belong, and transactions that timed out end soon: their defaults (5 min and 10 s)
/// would hide the one and add to every other measured stall. A busy machine is no reason for elections.
const BROKER_SETTINGS: &str = "broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=9000
controller.quorum.fetch.timeout.ms=5000
controller.quorum.election.timeout.ms=2000
leader.imbalance.check.interval.seconds=5
leader.imbalance.per.broker.percentage=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
";

const LOGGING: &str = "Configuration:
  status: ERROR
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: \"%d %p %m (%c)%n\"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: out
";
