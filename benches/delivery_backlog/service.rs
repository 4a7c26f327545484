//! The service as a process, with the `http` provider for e-mails.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

pub const SERVICE: &str = env!("CARGO_BIN_EXE_notification-service");
/// Between two looks whether it is ready.
const LOOK: Duration = Duration::from_millis(50);
/// The service promises its end within 20 s.
const STOP: Duration = Duration::from_secs(30);

/// The long names of the keys, which win over the short ones; what else the environment sets is left to experiments.
pub fn service_command(brokers: &str, prefix: &str) -> Command {
    let mut command = Command::new(SERVICE);
    command
        .stdin(Stdio::null())
        .env("NOTIFICATION__KAFKA__BROKERS", brokers)
        .env("NOTIFICATION__KAFKA__PREFIX", prefix);
    command
}

/// The running service, killed when dropped.
pub struct Service {
    child: Child,
    port: u16,
    log: PathBuf,
    /// Its configuration and its log; removed after the process has ended.
    _folder: tempfile::TempDir,
}

impl Service {
    /// Starts it and waits until it is ready.
    pub fn start(brokers: &str, prefix: &str, database: &str, provider: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config.toml");
        let providers = format!(
            "[[delivery.providers]]\nname = \"bench\"\nchannel = \"email\"\nkind = \"http\"\nurl = \"{provider}\"\n"
        );
        fs::write(&config, providers)?;
        let log = folder.path().join("log");
        let output = File::create(&log)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = service_command(brokers, prefix)
            .arg("--config")
            .arg(&config)
            .arg("serve")
            .env("NOTIFICATION__DATABASE__URL", database)
            .env("NOTIFICATION__HTTP__ADDRESS", format!("127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{SERVICE} cannot be run"))?;
        let service = Self { child, port, log, _folder: folder };
        let asked = Instant::now();
        while !service.is_ready() {
            ensure!(asked.elapsed() < crate::PATIENCE, "it does not get ready; its log:\n{}", service.log_tail());
            thread::sleep(LOOK);
        }
        Ok(service)
    }

    fn is_ready(&self) -> bool {
        let ask = || -> Option<String> {
            let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            stream.write_all(b"GET /health/ready HTTP/1.0\r\n\r\n").ok()?;
            let mut page = String::new();
            stream.read_to_string(&mut page).ok()?;
            Some(page)
        };
        ask().is_some_and(|page| page.lines().next().is_some_and(|status| status.contains(" 200 ")))
    }

    pub fn id(&self) -> String {
        self.child.id().to_string()
    }

    pub fn stop(&mut self) -> Result<ExitStatus> {
        // The standard library only knows SIGKILL. The number is the child's until it is waited for.
        let sent = Command::new("sh").args(["-c", r#"kill -TERM "$0""#, &self.id()]).status()?;
        ensure!(sent.success(), "SIGTERM could not be sent to the service");
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(asked.elapsed() < STOP, "it still runs {STOP:?} after SIGTERM; its log:\n{}", self.log_tail());
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
