//! Structured logs: one JSON object a line for machines, readable lines with colour only on a terminal for people.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Pretty,
    Json,
}

/// Sends logs to standard error, so that standard output stays for results.
pub fn init(format: Format, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second initialisation (tests in one process) is harmless: the first one stays.
    let _ = match format {
        Format::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        Format::Pretty => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}
