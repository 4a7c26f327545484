//! What the demo shows: a line per notable event, and a live summary on a terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use crate::cli::account::Account;
use crate::telemetry::events::{Notable, NotableKind, journal};

/// The terminal, or whatever stands in for it. With `--json` the story goes to standard error.
#[derive(Clone)]
pub struct Screen {
    bar: ProgressBar,
    started: Instant,
    to_stderr: bool,
    colour: bool,
}

impl Screen {
    pub fn new(json: bool) -> Self {
        let terminal = if json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { bar, started: Instant::now(), to_stderr: json, colour }
    }

    /// A line of the demo itself.
    pub fn say(&self, text: &str) {
        self.line("demo", "1", text);
    }

    /// The live summary.
    pub fn progress(&self, account: &Account) {
        self.bar.set_message(format!(
            "{} events fed: {} delivered, {} skipped, {} waiting, {} dead-lettered, {} on their way",
            account.events, account.delivered, account.skipped, account.waiting, account.dead_lettered, account.open
        ));
    }

    /// Takes the summary away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints notable events as they happen, until aborted.
    pub fn follow_journal(&self) -> JoinHandle<()> {
        let (screen, mut journal) = (self.clone(), journal());
        actix_rt::spawn(async move {
            loop {
                match journal.recv().await {
                    Ok(notable) => screen.notable(&notable),
                    Err(RecvError::Lagged(missed)) => screen.say(&format!("({missed} lines left out)")),
                    Err(RecvError::Closed) => return,
                }
            }
        })
    }

    fn notable(&self, notable: &Notable) {
        let (word, colour) = match notable.kind {
            NotableKind::Delivered => ("delivered", "32"),
            NotableKind::Waiting => ("waiting", "36"),
            NotableKind::Retry => ("retry", "33"),
            NotableKind::DeadLetter => ("dead letter", "31"),
            NotableKind::Outage => ("outage", "35"),
            NotableKind::Recovery => ("recovery", "34"),
            NotableKind::Restart => ("restart", "31"),
        };
        self.line(word, colour, &notable.text);
    }

    fn line(&self, word: &str, colour: &str, text: &str) {
        let at = self.started.elapsed().as_secs_f64();
        let word = if self.colour { format!("\x1b[{colour}m{word:<11}\x1b[0m") } else { format!("{word:<11}") };
        let line = format!("{at:6.2}s  {word}  {text}");
        self.bar.suspend(|| if self.to_stderr { eprintln!("{line}") } else { println!("{line}") });
    }
}
