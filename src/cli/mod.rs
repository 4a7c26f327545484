//! The command line: one file per command.

mod account;
mod config;
mod context;
mod demo;
mod load_test;
mod migrate;
mod publish;
mod sample;
mod serve;
mod templates;
mod token;
mod topics;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Exit code 2: the call or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// Exit code 1: it was tried and failed.
    #[error("{0}")]
    Failed(String),
}

/// Turns domain events on Kafka into delivered notifications, and can prove it.
#[derive(Parser)]
#[command(name = "notification-service", version, about, max_term_width = 100)]
struct Cli {
    /// A TOML file over the built-in configuration
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole service on embedded parts and show what happens to sample events
    Demo(demo::Args),
    /// Run the service
    Serve,
    /// Provision the six topics
    Topics(topics::Args),
    /// Send domain events
    Publish(publish::Args),
    /// Publish events and follow them to their requests, or to their acceptance
    LoadTest(load_test::Args),
    /// Check or show the configuration
    Config(config::Args),
    /// Check the templates, or render one with data of your own
    Templates(templates::Args),
    /// Make tokens for the API
    Token(token::Args),
    /// Bring the database's tables up to date
    Migrate,
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    let file = config.as_deref();
    let result = match command {
        Command::Demo(args) => demo::run(file, &args),
        Command::Serve => serve::run(file),
        Command::Topics(args) => topics::run(file, &args),
        Command::Publish(args) => publish::run(file, &args),
        Command::LoadTest(args) => load_test::run(file, &args),
        Command::Config(args) => config::run(file, &args),
        Command::Templates(args) => templates::run(file, &args),
        Command::Token(args) => token::run(file, &args),
        Command::Migrate => migrate::run(file),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(match error {
                CliError::Usage(_) => 2,
                CliError::Failed(_) => 1,
            })
        }
    }
}
