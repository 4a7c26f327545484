//! The `notification-service` program: parses the command line and runs one command.

use std::process::ExitCode;

/// Records are allocated on poll threads and freed on others, many thousand times a second: the system's allocator
/// spends a third of the routing stage's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages, which make 60 MB of an idle process and fill the memory that it has given back:
    // bounded memory is worth more here than the few misses that they save. A kernel that refuses has none.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    notification_service::cli::run()
}
