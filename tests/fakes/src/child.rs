//! A service in a process of its own, for benches that measure or kill it: mostly this same program, started again with
//! other arguments. It prints where it listens once it is ready.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Duration,
};

/// What `/proc` counts processor time in: `sysconf(_SC_CLK_TCK)` on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    /// Where it listens.
    pub url: String,
    process: std::process::Child,
}

impl Child {
    /// Returns once it listens.
    pub fn start(arguments: &[&str]) -> Self {
        let this_program = std::env::current_exe().expect("this program has a path");
        Self::start_as(Command::new(this_program).args(arguments))
    }

    /// By this command, which starts this program, such as under a profiler. Returns once it listens.
    pub fn start_as(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("this program can be started");
        let mut url = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut url).expect("it says where it listens");
        assert!(url.starts_with("http://"), "{command:?}: {url:?}");
        Self { url: url.trim().to_owned(), process }
    }

    /// Another program that was given this address. It may not listen yet.
    pub fn of(command: &mut Command, url: String) -> Self {
        Self { url, process: command.spawn().expect("the program can be started") }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Run in the child: prints its address, then serves until it is killed.
pub async fn listening(url: &str) {
    let _ = writeln!(std::io::stdout(), "{url}");
    std::future::pending::<()>().await;
}

/// Processor time of a process so far.
pub fn processor_time(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name is in parentheses; utime and stime are the 14th and 15th of all.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    Duration::from_secs_f64(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// The most memory that a process had since [`reset_peak`], in MiB.
pub fn peak_mib(id: u32) -> u64 {
    kib(id, "VmHWM:") >> 10
}

/// The memory that a process has now, in KiB.
pub fn resident_kib(id: u32) -> u64 {
    kib(id, "VmRSS:")
}

fn kib(id: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

/// Resets the peak.
pub fn reset_peak(id: u32) {
    let _ = fs::write(format!("/proc/{id}/clear_refs"), "5");
}
