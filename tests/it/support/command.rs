//! The real binary, with an environment and a folder of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_notification-service");
/// Lines of the service's log that a failed test shows.
const SHOWN_LINES: usize = 60;

/// A command line that is ready to run. Nothing of the caller's environment reaches it but the PATH.
pub struct Invocation {
    args: Vec<String>,
    env: Vec<(String, String)>,
    folder: PathBuf,
}

/// A command that ended.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// A process that is ended with its owner. Its output is in files: a pipe that nobody reads would stop it.
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    started: Instant,
}

impl Invocation {
    pub fn new(folder: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self { args, env: Vec::new(), folder: folder.to_owned() }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn spawn(&self) -> Process {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| self.folder.join(format!("{number}.{kind}"));
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let mut command = Command::new(BINARY);
        command.args(&self.args).current_dir(&self.folder);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Process::spawn(command, stdout, stderr)
    }

    /// Runs to the end, which must come in time.
    #[track_caller]
    pub fn run(&self, within: Duration) -> Finished {
        let mut process = self.spawn();
        let Some(status) = process.wait(within) else {
            panic!("`{}` did not end within {within:?}", self.args.join(" "));
        };
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let (stdout, stderr) = (read(&process.stdout), read(&process.stderr));
        Finished { code: status.code(), stdout, stderr, took: process.started.elapsed() }
    }
}

impl Finished {
    /// All that it said.
    pub fn output(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "after {:?} it said:\n{}", self.took, self.output());
        self
    }

    #[track_caller]
    pub fn expect_words(self, words: &[&str]) -> Self {
        let output = self.output();
        for word in words {
            assert!(output.contains(word), "`{word}` is missing in:\n{output}");
        }
        self
    }

    /// The number beside a word of the standard output, as in `delivered: 12` (the last one, if there are several).
    #[track_caller]
    pub fn count(&self, label: &str) -> u64 {
        let found = self.stdout.lines().rev().find_map(|line| {
            let words: Vec<&str> = line
                .split(|c: char| c.is_whitespace() || matches!(c, ':' | '=' | ','))
                .filter(|w| !w.is_empty())
                .collect();
            let at = words.iter().position(|word| *word == label)?;
            let beside = [words.get(at + 1), at.checked_sub(1).and_then(|before| words.get(before))];
            beside.into_iter().flatten().find_map(|word| word.parse().ok())
        });
        found.unwrap_or_else(|| panic!("no count of `{label}` in:\n{}", self.output()))
    }

    /// The standard output as one JSON object.
    #[track_caller]
    pub fn json_object(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|e| panic!("no JSON object ({e}):\n{}", self.output()))
    }
}

impl Process {
    /// Starts any program, with its output in these files.
    #[track_caller]
    pub fn spawn(mut command: Command, stdout: PathBuf, stderr: PathBuf) -> Self {
        let create = |path: &Path| File::create(path).expect("a file for its output");
        command.stdin(Stdio::null()).stdout(create(&stdout)).stderr(create(&stderr));
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
        Self { child, stdout, stderr, started: Instant::now() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_none()
    }

    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        wait::until_or_end(within, || self.child.try_wait().expect("its state"))
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal by its name, such as `STOP`.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", "kill -s \"$1\" \"$0\"", &id, signal]).status().expect("a shell");
        assert!(status.success(), "SIG{signal} could not be sent to {id}");
    }

    /// SIGKILL: it has no time for anything.
    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().expect("it is running");
        self.child.wait().expect("it ended")
    }

    pub fn standard_error(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.standard_error();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("--- the last lines of process {}:\n{}\n---", self.child.id(), tail.join("\n"));
        }
    }
}
