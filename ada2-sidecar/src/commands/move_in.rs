//! `ada2-sidecar move-in` and `move-out`: the sidecar takes over nginx's port, and gives it back.
//!
//! ```text
//! move-in ─► preflight (changes nothing) ─► record on disk ─► transient unit: worker ─► moved in
//!                                                            │ any failure, any signal
//!                                                            ▼
//!                                                          undo ◄─ ExecStopPost= of the unit, the next boot, the next command
//! ```

mod access;
mod card;
mod changes;
mod engine;
mod first_image;
mod launch;
pub(super) mod nginx;
mod output_dir;
mod preflight;
pub(super) mod record;
mod recovery_unit;
mod reporter;
mod settings;
mod shutdown;
mod undo;
mod units;
mod worker;
mod yaml;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::{ArgMatches, parser::ValueSource};
use service::files::is_root;

use self::{
    record::{Phase, Plan, Record, RecordStore},
    reporter::{MoveError, StepReporter},
    undo::{RecoveryTime, recover},
};
use super::exit_code;
use crate::config::KEYS;

/// `move-in`, and its hidden modes that systemd runs.
pub(super) fn move_in(arguments: &ArgMatches) -> io::Result<ExitCode> {
    let program = std::env::current_exe()?;
    let success = if arguments.get_flag("worker") {
        worker::move_in(program)
    } else if arguments.get_flag("recover") {
        let when = if arguments.get_flag("at-boot") { RecoveryTime::AtBoot } else { RecoveryTime::Now };
        let mut reporter = StepReporter::new();
        recover(&RecordStore::system(), when, &mut reporter).inspect_err(|error| reporter.fail(error)).is_ok()
    } else {
        report_failure(|reporter| run_move_in(arguments, &program, reporter))
    };
    Ok(exit_code(success))
}

/// `move-out`, and its hidden mode that systemd runs.
pub(super) fn move_out(arguments: &ArgMatches) -> io::Result<ExitCode> {
    let program = std::env::current_exe()?;
    let success = if arguments.get_flag("worker") {
        worker::move_out(&program)
    } else {
        report_failure(|reporter| run_move_out(arguments, &program, reporter))
    };
    Ok(exit_code(success))
}

fn report_failure(work: impl FnOnce(&mut StepReporter) -> Result<bool, MoveError>) -> bool {
    let mut reporter = StepReporter::new();
    work(&mut reporter).unwrap_or_else(|error| {
        reporter.fail(&error);
        false
    })
}

fn run_move_in(
    arguments: &ArgMatches,
    program: &Path,
    reporter: &mut StepReporter,
) -> Result<bool, MoveError> {
    must_be_root("move-in")?;
    let _lock = launch::lock()?;
    let store = RecordStore::system();
    recover_first(&store, reporter)?;
    let plan = match preflight::inspect(arguments, reporter)? {
        preflight::PreflightOutcome::AlreadyMovedIn(addresses) => {
            let flag = KEYS.iter().find(|key| {
                let mut ids = arguments.ids().map(clap::Id::as_str);
                ids.any(|id| id == key.name && arguments.value_source(id) == Some(ValueSource::CommandLine))
            });
            if let Some(key) = flag {
                let message =
                    format!("the sidecar has already moved in, so --{} would change nothing", key.flag());
                let fix = "edit /etc/ada2-sidecar/config.yaml, then `sudo ada2-sidecar reload`; or `sudo ada2-sidecar \
                           move-out --yes`, then the same command again";
                return Err(MoveError::new("settings", message, fix));
            }
            reporter.ok("port", "the sidecar has already moved in");
            return first_image::check_ready(&addresses, reporter).map(|()| true);
        }
        preflight::PreflightOutcome::Move(plan) => *plan,
    };
    if let Some(record) = load_record(&store)? {
        let message = format!(
            "according to its record the sidecar has moved in ({:?}), but it does not hold the port",
            record.phase
        );
        return Err(MoveError::new(
            "record",
            message,
            "`sudo ada2-sidecar move-out --yes` restores everything; then move-in again",
        ));
    }
    store
        .save(&Record::new(plan))
        .map_err(|error| MoveError::from_cause("record", "cannot be written", error))?;
    if !launch::run_in_unit(program, &["move-in", "--worker"])? {
        return Ok(false);
    }
    print_line(
        "\nMoved in. `sudo ada2-sidecar move-out` gives the port back to nginx; `ada2-sidecar readyz` shows the readiness.",
    );
    Ok(true)
}

fn run_move_out(
    arguments: &ArgMatches,
    program: &Path,
    reporter: &mut StepReporter,
) -> Result<bool, MoveError> {
    must_be_root("move-out")?;
    let _lock = launch::lock()?;
    let started = Instant::now();
    let store = RecordStore::system();
    let interrupted = load_record(&store)?.is_some_and(|record| record.phase != Phase::MovedIn);
    if interrupted && recover(&store, RecoveryTime::Now, reporter)? {
        reporter.ok("record", "an interrupted move was undone or finished");
        return Ok(true);
    }
    let record = load_record(&store)?.map_or_else(record_of_manual_start, |record| Ok(Some(record)))?;
    let Some(record) = record else {
        reporter.ok("record", "the sidecar has not moved in; nothing to do");
        return Ok(true);
    };
    confirm(arguments, &record)?;
    store.save(&record).map_err(|error| MoveError::from_cause("record", "cannot be written", error))?;
    if !launch::run_in_unit(program, &["move-out", "--worker"])? {
        return Ok(false);
    }
    print_line(&format!(
        "\nMoved out within {:.1} s. The settings stay in /etc/ada2-sidecar for the next `sudo ada2-sidecar move-in`; \
         `sudo apt purge ada2-sidecar` removes everything.",
        started.elapsed().as_secs_f32()
    ));
    Ok(true)
}

fn must_be_root(command: &str) -> Result<(), MoveError> {
    if is_root() {
        return Ok(());
    }
    Err(MoveError::new("root", "this command changes system files", format!("sudo ada2-sidecar {command}")))
}

fn load_record(store: &RecordStore) -> Result<Option<Record>, MoveError> {
    store.load().map_err(|error| MoveError::from_cause("record", "cannot be read", error))
}

/// Finishes or undoes what an earlier command left.
fn recover_first(store: &RecordStore, reporter: &mut StepReporter) -> Result<(), MoveError> {
    if recover(store, RecoveryTime::Now, reporter)? {
        reporter.ok("record", "an interrupted move was undone or finished");
    }
    Ok(())
}

/// For units that were enabled or started without move-in: there is no nginx site to restore.
fn record_of_manual_start() -> Result<Option<Record>, MoveError> {
    let names = [units::SERVICE, units::SOCKET];
    if !names.iter().any(|unit| units::is_running(unit) || units::is_enabled(unit)) {
        return Ok(None);
    }
    let plan = Plan {
        config: PathBuf::new(),
        settings: Vec::new(),
        home_dir: None,
        sites: Vec::new(),
        nginx: None,
        addresses: units::listen_addresses()?,
        first_time: false,
        ready_seconds: 0,
    };
    let mut record = Record::new(plan);
    record.phase = Phase::MovedIn;
    Ok(Some(record))
}

fn confirm(arguments: &ArgMatches, record: &Record) -> Result<(), MoveError> {
    if arguments.get_flag("yes") {
        return Ok(());
    }
    let cancelled =
        |message: &str| Err(MoveError::new("confirm", message, "sudo ada2-sidecar move-out --yes"));
    if !io::stdin().is_terminal() {
        return cancelled("standard input is not a terminal, so you cannot be asked");
    }
    let nginx = if record.plan.sites.is_empty() { "" } else { ", and restore nginx's site" };
    let mut out = io::stdout();
    let question = format!("Stop the sidecar, cancel the images it is making{nginx}? [y/N]: ");
    let _ = write!(out, "{question}").and_then(|()| out.flush());
    let mut line = String::new();
    match io::stdin().read_line(&mut line) {
        Ok(_) if matches!(line.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => cancelled("not confirmed"),
    }
}

fn print_line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
