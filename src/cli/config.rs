//! `config check|show`.

use std::path::Path;

use clap::{Args as ClapArgs, Subcommand};

use super::{CliError, context};

#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List all mistakes, each with its key
    Check,
    /// Print the effective configuration, secrets masked
    Show,
}

pub fn run(file: Option<&Path>, args: &Args) -> Result<(), CliError> {
    let config = context::load(file)?;
    match args.action {
        Action::Check => {
            for warning in config.warnings() {
                println!("warning: {warning}");
            }
            println!("the configuration is fine");
        }
        Action::Show => print!("{}", config.show()),
    }
    Ok(())
}
