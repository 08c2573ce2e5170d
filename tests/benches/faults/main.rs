//! Every row of the readiness table as a fault that really exists, through a real gateway in front of a real sidecar:
//! what the operator reads, how soon requests are refused, and how soon they are admitted again. Prints the table of
//! `tests/benches/README.md`, and names the goals that were missed; asserts only that each fault is reported by its check.
//!
//! `cargo bench -p benches --bench faults -- [--runs 20] [parts of faults' names]`

mod actions;
mod fault;
mod rows;
mod table;
mod trial;
mod world;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use self::{fault::Fault, trial::Trial};

const RUNS: usize = 20;
/// Concurrent trials; more would disturb each other.
const QUICK_AT_ONCE: usize = 6;
/// Concurrent trials that mostly wait.
const SLOW_AT_ONCE: usize = 40;
/// A trial with longer delays mostly waits.
const SLOW: Duration = Duration::from_secs(8);

#[tokio::main]
async fn main() {
    let (runs, filters) = arguments();
    let is_selected =
        |fault: &Fault| filters.is_empty() || filters.iter().any(|filter| fault.name.contains(filter));
    let faults: Vec<Fault> = rows::all().into_iter().filter(is_selected).collect();
    let started = Instant::now();
    let mut trials: Vec<Vec<Trial>> = faults.iter().map(|_| Vec::new()).collect();
    let (slow, quick): (Vec<_>, Vec<_>) =
        (0..faults.len()).partition(|row| faults[*row].waits() >= SLOW || faults[*row].is_slow_reading());
    for (rows, at_once) in [(quick, QUICK_AT_ONCE), (slow, SLOW_AT_ONCE)] {
        let plan = (0..runs).flat_map(|run| rows.iter().map(move |row| (*row, run)));
        let faults = &faults;
        let mut done = stream::iter(plan)
            .map(|(row, run)| Box::pin(async move { (row, trial::run(&faults[row], run).await) }))
            .buffer_unordered(at_once);
        while let Some((row, trial)) = done.next().await {
            trials[row].push(trial);
            if trials[row].len() == runs {
                let _ =
                    writeln!(std::io::stderr(), "{:>4} s  {}", started.elapsed().as_secs(), faults[row].name);
            }
        }
    }
    let _ = std::io::stdout().write_all(table::print(&faults, &trials, runs).as_bytes());
}

/// `--runs` and the name parts; Cargo's `--bench` is neither.
fn arguments() -> (usize, Vec<String>) {
    let mut given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut runs, mut filters) = (RUNS, Vec::new());
    while let Some(argument) = given.next() {
        if argument == "--runs" {
            runs = given.next().and_then(|runs| runs.parse().ok()).expect("--runs takes a number");
        } else {
            filters.push(argument);
        }
    }
    (runs, filters)
}
