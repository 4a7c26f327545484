//! `serve`: runs until SIGTERM or SIGINT, then drains; a second signal ends it at once.

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CliError, context};
use crate::app::{Service, Setup};
use crate::handlers::Registry;
use crate::telemetry::metrics_server::MetricsPage;

pub fn run(file: Option<&Path>) -> Result<(), CliError> {
    let config = context::load(file)?;
    context::logs(&config);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let io = context::runtime()?;
    let metrics = MetricsPage::install().map_err(|e| CliError::Failed(format!("metrics: {e}")))?;
    let timeout = config.shutdown.timeout();
    let setup = Setup { config, registry: Registry::built_in(), io: io.handle().clone(), metrics };
    let result = actix::System::new().block_on(serve(setup, timeout));
    // Clients that wait for a broker that is away must not keep the process: what they hold is not committed.
    io.shutdown_background();
    result
}

/// Runs the service until a signal.
///
/// # Errors
/// When it cannot start.
pub async fn serve(setup: Setup, timeout: Duration) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let service = tokio::select! {
        service = Service::start(setup) => service.map_err(|e| CliError::Failed(e.to_string()))?,
        () = signals.next() => {
            tracing::info!("stopped while starting");
            return Ok(());
        }
    };
    signals.next().await;
    drain(service, &mut signals, timeout).await;
    Ok(())
}

/// Drains within the time-out; a second signal ends the process at once.
pub async fn drain(service: Service, signals: &mut Signals, timeout: Duration) {
    tokio::select! {
        ended = tokio::time::timeout(timeout, service.drain()) => {
            if ended.is_err() {
                tracing::warn!("the shutdown time-out is over; what is unfinished comes again");
            }
        }
        () = signals.next() => {
            tracing::warn!("second signal: ending at once");
            std::process::exit(1);
        }
    }
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the process may not.
    pub fn new() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|e| CliError::Failed(format!("signals: {e}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
