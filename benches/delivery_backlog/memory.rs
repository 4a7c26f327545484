//! Memory of this process beside what it has when idle.

use std::fs;

use anyhow::{Context as _, Result};

/// What is resident now, in bytes.
pub fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.map(|line| line.trim().trim_end_matches("kB").trim());
    Ok(kilobytes.context("/proc/self/status has no VmRSS")?.parse::<u64>()? * 1024)
}

/// Lets the kernel measure the peak from now on.
pub fn forget_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("the peak of memory cannot be reset")
}
