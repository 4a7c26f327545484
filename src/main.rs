//! The `notification-service` program: parses the command line and runs one command.

use std::process::ExitCode;

/// Records are allocated on poll threads and freed on others, many thousand times a second: the system's allocator
/// spends a third of the routing stage's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    notification_service::cli::run()
}
