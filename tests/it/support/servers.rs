//! The servers behind the tests, and their outages.

use std::process::Command;
use std::time::{Duration, Instant};

use super::wait;

/// A variable that names a server.
#[track_caller]
pub fn required(variable: &str) -> String {
    let value = std::env::var(variable).unwrap_or_default();
    assert!(
        !value.is_empty(),
        "{variable} is not set: run scripts/test.sh, or scripts/services.sh up and eval \"$(scripts/services.sh env)\""
    );
    value
}

/// A server that is away. It comes back with the end of this value at the latest: other tests need it.
pub struct Outage {
    server: &'static str,
    ending: &'static str,
    since: Instant,
    over: bool,
}

impl Outage {
    /// Stops a server of `scripts/services.sh`; returns once it is down. Redis forgets everything.
    #[track_caller]
    pub fn of(server: &'static str) -> Self {
        Self::by(server, "stop", "start")
    }

    /// Freezes it: connections stay, and nobody answers.
    #[track_caller]
    pub fn freeze(server: &'static str) -> Self {
        Self::by(server, "pause", "continue")
    }

    #[track_caller]
    fn by(server: &'static str, verb: &str, ending: &'static str) -> Self {
        let mut outage = Self { server, ending, since: Instant::now(), over: false };
        control(server, verb).unwrap_or_else(|why| panic!("{why}"));
        outage.since = Instant::now();
        outage
    }

    /// Keeps the server away for this long, counted from when it was down; meanwhile looks at something.
    pub fn hold(&self, length: Duration, mut look: impl FnMut()) {
        wait::until("the length of the outage", length + wait::secs(1), || {
            look();
            (self.since.elapsed() >= length).then_some(())
        });
    }

    /// Lets the server go on with the data it had; returns once it answers, or at once if it was frozen.
    pub fn end(mut self) {
        self.over = true;
        control(self.server, self.ending).unwrap_or_else(|why| panic!("{why}"));
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        if !self.over
            && let Err(why) = control(self.server, self.ending)
        {
            eprintln!("the tests after this one will fail: {why}");
        }
    }
}

fn control(server: &str, verb: &str) -> Result<(), String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services.sh");
    let output = Command::new(script).args([server, verb]).output().map_err(|e| format!("{script}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("services.sh {server} {verb}: {said}")) }
}
