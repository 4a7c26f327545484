//! What a long run shows meanwhile: a line that changes on a terminal, else a line for each fault.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::feeder::Feed;
use super::inject::Fault;
use super::plan::Step;
use super::settings::Settings;
use super::stage::Stage;
use super::watch::Watch;
use crate::support::wait::secs;

/// Erases the line.
const ERASE: &str = "\r\x1b[K";

struct Shown {
    began: Instant,
    length: Duration,
    guarantee: &'static str,
    feed: Feed,
    watch: Watch,
    now: Mutex<&'static str>,
    stop: AtomicBool,
}

pub struct Progress(Arc<Shown>);

impl Progress {
    pub fn start(settings: &Settings, stage: &Stage) -> Self {
        let shown = Arc::new(Shown {
            began: Instant::now(),
            length: settings.length,
            guarantee: settings.guarantee.as_str(),
            feed: stage.feeder.feed.clone(),
            watch: stage.watch.clone(),
            now: Mutex::new("undisturbed"),
            stop: AtomicBool::new(false),
        });
        if std::io::stderr().is_terminal() {
            let shown = shown.clone();
            thread::spawn(move || {
                while !shown.stop.load(Ordering::Relaxed) {
                    shown.line();
                    thread::sleep(secs(1));
                }
            });
        }
        Self(shown)
    }

    /// What happens from now on.
    pub fn now(&self, what: &'static str) {
        *self.0.now.lock().expect("no panic") = what;
    }

    /// A fault begins.
    pub fn begins(&self, step: &Step) {
        self.now(step.kind.as_str());
        self.tell(&format!("{} for {:.1} s", step.kind.as_str(), step.hold.as_secs_f64()));
    }

    /// A fault is over and recovered from.
    pub fn ends(&self, step: &Step, fault: &Fault, stall: Duration) {
        self.now("undisturbed");
        let effect = if fault.took_effect { "" } else { ", without effect" };
        self.tell(&format!("{}{effect}: recovered in {:.1} s", step.kind.as_str(), stall.as_secs_f64()));
    }

    fn tell(&self, what: &str) {
        self.erase();
        eprintln!("{}  {what}", minutes(self.0.began.elapsed()));
    }

    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
        self.erase();
    }

    fn erase(&self) {
        if std::io::stderr().is_terminal() {
            eprint!("{ERASE}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shown {
    fn line(&self) {
        let (at, of, now) = (minutes(self.began.elapsed()), minutes(self.length), self.now.lock().expect("no panic"));
        let (events, requests) = (self.feed.appended(), self.watch.requests());
        eprint!("{ERASE}{} {at} of {of}  {events} events in  {requests} requests out  {now}", self.guarantee);
        // It is only for people.
        let _ = std::io::stderr().flush();
    }
}

fn minutes(time: Duration) -> String {
    format!("{:02}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}
