//! A drain in a process of its own: what it takes to fill a ledger, or the bare loop before, leaves nothing behind in its
//! memory.

use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use notification_service::adapters::sql::Database;
use notification_service::ports::provider::Provider;
use serde::{Deserialize, Serialize};

use crate::database::CONNECTIONS;
use crate::drain::Stage;
use crate::machine::{cpu_seconds, peak_memory};
use crate::memory::{forget_peak, resident};
use crate::provider::Target;
use crate::round::Work;

/// What it took.
#[derive(Serialize, Deserialize)]
pub struct Alone {
    pub seconds: f64,
    /// In seconds.
    pub cpu: f64,
    /// The most that was resident above what was before the first notification, in bytes.
    pub memory: u64,
    /// Accepted by the provider, and how many of them were distinct.
    pub total: u64,
    pub distinct: u64,
}

/// Has another process drain the ledger.
pub async fn drain(url: &str, work: Work) -> Result<Alone> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--bench", "--drain-of", url, "--events", &work.events.to_string()]);
    if work.target == Target::Http {
        command.arg("--http");
    }
    if let Some(batch) = work.batch {
        command.args(["--batch", &batch.to_string()]);
    }
    command.stderr(Stdio::inherit());
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("the process that drains")?;
    ensure!(output.status.success(), "the process that drains ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("what the process that drains says")
}

/// Drains the ledger, in the process that was started for it.
pub async fn work(url: &str, work: Work) -> Result<Alone> {
    let stage = Stage::new(work.batch)?;
    let database = Database::open(url, CONNECTIONS).await?;
    let carrier = work.target.carrier(work.events)?;
    forget_peak()?;
    let (idle, cpu) = (resident()?, cpu_seconds("self")?);
    let provider: Arc<dyn Provider> = Arc::clone(&carrier.provider);
    let took = stage.drain(&database, provider, work.events).await.context("the drain")?;
    let cpu = cpu_seconds("self")? - cpu;
    let memory = peak_memory("self")?.saturating_sub(idle);
    database.close().await;
    let (total, distinct) = carrier.accepted.total_and_distinct();
    Ok(Alone { seconds: took.as_secs_f64(), cpu, memory, total, distinct })
}
