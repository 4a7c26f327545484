//! `topics create|describe|delete`.

use std::io::IsTerminal as _;
use std::path::Path;

use clap::{Args as ClapArgs, Subcommand};

use super::{CliError, context};
use crate::adapters::kafka::{AdminError, TopicReport};
use crate::app;
use crate::config::Config;

#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create the topics that are missing; never changes one that exists
    Create,
    /// Show the topics; exit 1 when one is missing or differs from the configuration
    Describe,
    /// Delete the topics and everything in them
    Delete {
        /// Do not ask back on a terminal
        #[arg(long)]
        yes: bool,
    },
}

pub fn run(file: Option<&Path>, args: &Args) -> Result<(), CliError> {
    let config = context::load(file)?;
    context::logs(&config);
    context::real_kafka(&config)?;
    context::runtime()?.block_on(async {
        match args.action {
            Action::Create => create(&config).await,
            Action::Describe => describe(&config).await,
            Action::Delete { yes } => delete(&config, yes).await,
        }
    })
}

fn failed(error: AdminError) -> CliError {
    CliError::Failed(error.to_string())
}

async fn create(config: &Config) -> Result<(), CliError> {
    let (admin, plans) = (context::admin(config)?, app::topic_plans(config));
    // Asked first: without a broker this is the question with the short deadline.
    admin.describe(&plans, context::PATIENCE).await.map_err(failed)?;
    let created = admin.create(&plans, context::PATIENCE).await.map_err(failed)?;
    for report in admin.describe(&plans, context::PATIENCE).await.map_err(failed)? {
        let is_new = created.contains(&report.plan.name);
        let word = if is_new { "created".to_owned() } else { report.drift().unwrap_or_else(|| "exists".to_owned()) };
        // A topic that was created a moment ago may not be in every broker's metadata yet.
        let word = if is_new || report.found.is_some() { word } else { "exists".to_owned() };
        println!("{}", line(&report, &word));
    }
    Ok(())
}

async fn describe(config: &Config) -> Result<(), CliError> {
    let (admin, plans) = (context::admin(config)?, app::topic_plans(config));
    let reports = admin.describe(&plans, context::PATIENCE).await.map_err(failed)?;
    let mut drifting = 0;
    for report in &reports {
        let drift = report.drift();
        drifting += usize::from(drift.is_some());
        println!("{}", line(report, drift.as_deref().unwrap_or("as configured")));
    }
    match drifting {
        0 => Ok(()),
        count => Err(CliError::Failed(format!("{count} of {} topics are missing or drift", reports.len()))),
    }
}

async fn delete(config: &Config, yes: bool) -> Result<(), CliError> {
    let plans = app::topic_plans(config);
    if !yes && std::io::stdin().is_terminal() {
        let names: Vec<&str> = plans.iter().map(|p| p.name.as_str()).collect();
        eprint!("delete {} with all their records? [y/N] ", names.join(", "));
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        if read.is_err() || !matches!(answer.trim(), "y" | "yes") {
            return Err(CliError::Failed("nothing is deleted".into()));
        }
    }
    let admin = context::admin(config)?;
    admin.describe(&plans, context::PATIENCE).await.map_err(failed)?;
    let names: Vec<&str> = plans.iter().map(|p| p.name.as_str()).collect();
    let deleted = admin.delete(&names, context::PATIENCE).await.map_err(failed)?;
    for name in names {
        println!("{name}: {}", if deleted.iter().any(|d| d == name) { "deleted" } else { "was missing" });
    }
    Ok(())
}

fn line(report: &TopicReport, word: &str) -> String {
    let (partitions, replication) = report.found.unwrap_or((report.plan.partitions, report.plan.replication));
    let name = &report.plan.name;
    format!("{name:<22} partitions {partitions:<3} replication {replication:<3} {word}")
}
