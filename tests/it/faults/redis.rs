//! A Redis of the run's own, which keeps nothing over a restart.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::support::command::Process;
use crate::support::service::free_port;
use crate::support::wait::{self, secs};

pub struct Redis {
    folder: PathBuf,
    port: u16,
    process: Process,
}

impl Redis {
    #[track_caller]
    pub fn start(folder: &Path) -> Self {
        let port = free_port();
        Self { folder: folder.to_owned(), port, process: spawn(folder, port) }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many keys it has.
    #[track_caller]
    pub fn size(&self) -> u64 {
        let asked = connection(&self.url()).and_then(|mut redis| redis::cmd("DBSIZE").query(&mut redis));
        asked.expect("Redis answers")
    }

    /// FLUSHALL.
    #[track_caller]
    pub fn flush(&self) {
        let flushed = connection(&self.url()).and_then(|mut redis| redis::cmd("FLUSHALL").query::<()>(&mut redis));
        flushed.expect("Redis answers");
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> ExitStatus {
        self.process.kill()
    }

    /// Starts it after [`Redis::kill`].
    #[track_caller]
    pub fn restart(&mut self) {
        self.process = spawn(&self.folder, self.port);
    }
}

#[track_caller]
fn spawn(folder: &Path, port: u16) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    let process = Process::spawn(command, folder.join("redis.log"), folder.join("redis.stderr"));
    wait::until("Redis answers", secs(20), || connection(&format!("redis://127.0.0.1:{port}")).ok().map(drop));
    process
}

fn connection(url: &str) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(url)?.get_connection_with_timeout(secs(2))
}
