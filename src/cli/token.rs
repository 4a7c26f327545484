//! `token create`: a bearer token for the API.

use std::path::Path;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};

use super::{CliError, context};
use crate::adapters::jwt;
use crate::app;
use crate::domain::role::Role;

#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print a token that is signed with auth.jwt_secret
    Create(Create),
}

#[derive(ClapArgs)]
struct Create {
    /// viewer (reads, with addresses masked), operator or admin
    #[arg(long)]
    role: Role,
    /// Who it is for: rates are kept by it
    #[arg(long, default_value = "cli")]
    subject: String,
    /// Hours until it expires, at most a year
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8784))]
    hours: u32,
}

pub fn run(file: Option<&Path>, args: &Args) -> Result<(), CliError> {
    let Action::Create(Create { role, subject, hours }) = &args.action;
    let auth = context::load(file)?.auth;
    let Some(secret) = &auth.jwt_secret else {
        let reason = "auth.jwt_secret (JWT_SECRET) is not set: tokens are made with it. With auth.jwt_public_key_file, \
                      whoever has the private key makes them";
        return Err(CliError::Usage(reason.to_owned()));
    };
    let lifetime = Duration::from_secs(u64::from(*hours) * 3600);
    let token = jwt::issue(secret.expose(), subject, *role, lifetime, &app::expected_of_tokens(&auth));
    println!("{}", token.map_err(CliError::Failed)?);
    Ok(())
}
