//! The machine, and output for people.

use std::fs;
use std::thread;

use anyhow::{Context as _, Result, ensure};

/// Of the CPU times in /proc.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process, all threads.
pub fn cpu_seconds(process: &str) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name in parentheses may hold blanks; the times are the 12th and 13th field behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 2, "{path} has no CPU times");
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// The most memory that a process ever had resident, in bytes.
pub fn peak_memory(process: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.map(|line| line.trim().trim_end_matches("kB").trim());
    Ok(kilobytes.with_context(|| format!("{path} has no VmHWM"))?.parse::<u64>()? * 1024)
}

pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, model)| model.trim());
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn print_row(cells: [String; 8]) {
    let [round, bare, service, ratio, from_consumed, bare_cpu, service_cpu, peak] = cells;
    println!(
        "{round:>6}  {bare:>10}  {service:>13}  {ratio:>5}  {from_consumed:>13}  {bare_cpu:>8}  {service_cpu:>11}  {peak:>7}"
    );
}

/// What happens meanwhile: not part of the result.
pub fn progress(text: &str) {
    eprintln!("# {text}");
}
