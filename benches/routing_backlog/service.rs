//! The service as a process: started, asked, stopped.

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
    pub child: Child,
    pub port: u16,
    log: PathBuf,
    /// Its configuration, its log, and its database if it makes one; removed after the process has ended.
    _folder: tempfile::TempDir,
}

impl Service {
    /// Starts it with a configuration file and settings of the environment.
    pub fn start(brokers: &str, prefix: &str, file: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config.toml");
        fs::write(&config, file)?;
        let log = folder.path().join("log");
        let output = File::create(&log)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = service_command(brokers, prefix)
            .arg("--config")
            .arg(&config)
            .arg("serve")
            .env("NOTIFICATION__HTTP__ADDRESS", format!("127.0.0.1:{port}"))
            .envs(settings.iter().copied())
            .current_dir(folder.path())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{SERVICE} cannot be run"))?;
        Ok(Self { child, port, log, _folder: folder })
    }

    /// Waits until it takes events.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let asked = Instant::now();
        while get(self.port, "/health/ready").is_none() {
            ensure!(asked.elapsed() < crate::PATIENCE, "it does not get ready; its log:\n{}", self.log_tail());
            thread::sleep(LOOK);
        }
        Ok(())
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

/// What the service answers; `None` for anything but 200.
pub fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().next()?.contains(" 200 ").then_some(answer)
}
