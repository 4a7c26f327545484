//! The `notification-service` program: parses the command line and runs one command.

use std::process::ExitCode;

fn main() -> ExitCode {
    notification_service::cli::run()
}
