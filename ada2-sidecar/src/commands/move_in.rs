//! `ada2-sidecar move-in` and `move-out`: the sidecar takes nginx's place on its port, and gives it back.
//!
//! ```text
//! move-in ─► survey (nothing changes) ─► record on disk ─► transient unit: worker ─► moved in
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
use super::EXIT_FAILURE;
use crate::config::KEYS;

/// `move-in`, and what systemd calls of it.
pub(super) fn move_in(arguments: &ArgMatches) -> io::Result<ExitCode> {
    let program = std::env::current_exe()?;
    let success = if arguments.get_flag("worker") {
        worker::move_in(program)
    } else if arguments.get_flag("recover") {
        let when = if arguments.get_flag("at-boot") { RecoveryTime::AtBoot } else { RecoveryTime::Now };
        let mut reporter = StepReporter::new();
        recover(&RecordStore::system(), when, &mut reporter).inspect_err(|stop| reporter.fail(stop)).is_ok()
    } else {
        report_failure(|lines| run_move_in(arguments, &program, lines))
    };
    Ok(exit_code(success))
}

/// `move-out`, and what systemd calls of it.
pub(super) fn move_out(arguments: &ArgMatches) -> io::Result<ExitCode> {
    let program = std::env::current_exe()?;
    let success = if arguments.get_flag("worker") {
        worker::move_out(&program)
    } else {
        report_failure(|lines| run_move_out(arguments, &program, lines))
    };
    Ok(exit_code(success))
}

fn exit_code(success: bool) -> ExitCode {
    if success { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

fn report_failure(work: impl FnOnce(&mut StepReporter) -> Result<bool, MoveError>) -> bool {
    let mut reporter = StepReporter::new();
    work(&mut reporter).unwrap_or_else(|stop| {
        reporter.fail(&stop);
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
            let given = KEYS.iter().find(|key| {
                let mut ids = arguments.ids().map(clap::Id::as_str);
                ids.any(|id| id == key.name && arguments.value_source(id) == Some(ValueSource::CommandLine))
            });
            if let Some(key) = given {
                let message =
                    format!("the sidecar has moved in already; --{} would change nothing", key.flag());
                let fix = "edit /etc/ada2-sidecar/config.yaml, then `sudo ada2-sidecar reload`; or `sudo ada2-sidecar \
                           move-out --yes` and the same command again";
                return Err(MoveError::new("settings", message, fix));
            }
            reporter.ok("port", "the sidecar has moved in already");
            return first_image::check_ready(&addresses, reporter).map(|()| true);
        }
        preflight::PreflightOutcome::Move(plan) => *plan,
    };
    if let Some(record) = load_record(&store)? {
        let message = format!(
            "the record says that the sidecar has moved in ({:?}), and it does not hold the port",
            record.phase
        );
        return Err(MoveError::new(
            "record",
            message,
            "`sudo ada2-sidecar move-out --yes` puts everything back; then move-in again",
        ));
    }
    store
        .save(&Record::new(plan))
        .map_err(|error| MoveError::from_cause("record", "cannot be written", error))?;
    if !launch::run_in_unit(program, &["move-in", "--worker"])? {
        return Ok(false);
    }
    print_line(
        "\nMoved in. `sudo ada2-sidecar move-out` gives the port back to nginx; `ada2-sidecar readyz` shows its state.",
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
        reporter.ok("record", "an interrupted move is undone or finished");
        return Ok(true);
    }
    let known = load_record(&store)?.map_or_else(started_by_hand, |record| Ok(Some(record)))?;
    let Some(record) = known else {
        reporter.ok("record", "the sidecar has not moved in; nothing to do");
        return Ok(true);
    };
    confirm(arguments, &record)?;
    store.save(&record).map_err(|error| MoveError::from_cause("record", "cannot be written", error))?;
    if !launch::run_in_unit(program, &["move-out", "--worker"])? {
        return Ok(false);
    }
    print_line(&format!(
        "\nMoved out within {:.1} s. Settings stay in /etc/ada2-sidecar: `sudo ada2-sidecar move-in` takes them again, \
         `sudo apt purge ada2-sidecar` removes everything.",
        started.elapsed().as_secs_f32()
    ));
    Ok(true)
}

fn must_be_root(command: &str) -> Result<(), MoveError> {
    if is_root() {
        return Ok(());
    }
    Err(MoveError::new("root", "this changes the system's files", format!("sudo ada2-sidecar {command}")))
}

fn load_record(store: &RecordStore) -> Result<Option<Record>, MoveError> {
    store.load().map_err(|error| MoveError::from_cause("record", "cannot be read", error))
}

/// What an earlier command left half done.
fn recover_first(store: &RecordStore, reporter: &mut StepReporter) -> Result<(), MoveError> {
    if recover(store, RecoveryTime::Now, reporter)? {
        reporter.ok("record", "an interrupted move is undone or finished");
    }
    Ok(())
}

/// Our units, enabled or started without move-in: there is no site of nginx's to put back.
fn started_by_hand() -> Result<Option<Record>, MoveError> {
    let ours = [units::SERVICE, units::SOCKET];
    if !ours.iter().any(|unit| units::is_running(unit) || units::is_enabled(unit)) {
        return Ok(None);
    }
    let plan = Plan {
        config: PathBuf::new(),
        settings: Vec::new(),
        home_folder: None,
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
        return cancelled("without a terminal there is nobody to ask");
    }
    let nginx = if record.plan.sites.is_empty() { "" } else { ", and put nginx's site back" };
    let mut out = io::stdout();
    let question = format!("Stop the sidecar, cancelling pictures that are being made{nginx}? [y/N]: ");
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
