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
mod first_picture;
mod guard;
mod launch;
mod leave;
mod lines;
pub(super) mod nginx;
mod output;
mod program;
mod record;
mod settings;
mod survey;
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
    lines::{Lines, Stop},
    record::{Book, Phase, Plan, Record},
    undo::{When, recover},
};
use super::EXIT_NO;
use crate::config::KEYS;

/// `move-in`, and what systemd calls of it.
pub(super) fn move_in(arguments: &ArgMatches) -> io::Result<ExitCode> {
    let program = std::env::current_exe()?;
    let well = if arguments.get_flag("worker") {
        worker::move_in(program)
    } else if arguments.get_flag("recover") {
        let when = if arguments.get_flag("at-boot") { When::AtBoot } else { When::Now };
        let mut lines = Lines::new();
        recover(&Book::of_this_host(), when, &mut lines).inspect_err(|stop| lines.fail(stop)).is_ok()
    } else {
        told(|lines| enter(arguments, &program, lines))
    };
    Ok(code(well))
}

/// `move-out`, and what systemd calls of it.
pub(super) fn move_out(arguments: &ArgMatches) -> io::Result<ExitCode> {
    let program = std::env::current_exe()?;
    let well = if arguments.get_flag("worker") {
        worker::move_out(&program)
    } else {
        told(|lines| leave_host(arguments, &program, lines))
    };
    Ok(code(well))
}

fn code(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NO) }
}

fn told(work: impl FnOnce(&mut Lines) -> Result<bool, Stop>) -> bool {
    let mut lines = Lines::new();
    work(&mut lines).unwrap_or_else(|stop| {
        lines.fail(&stop);
        false
    })
}

fn enter(arguments: &ArgMatches, program: &Path, lines: &mut Lines) -> Result<bool, Stop> {
    must_be_root("move-in")?;
    let _lock = launch::lock()?;
    let book = Book::of_this_host();
    recover_first(&book, lines)?;
    let plan = match survey::look(arguments, lines)? {
        survey::Outcome::AlreadyIn(addresses) => {
            let given = KEYS.iter().find(|key| {
                let mut ids = arguments.ids().map(clap::Id::as_str);
                ids.any(|id| id == key.name && arguments.value_source(id) == Some(ValueSource::CommandLine))
            });
            if let Some(key) = given {
                let message =
                    format!("the sidecar has moved in already; --{} would change nothing", key.flag());
                let fix = "edit /etc/ada2-sidecar/config.yaml, then `sudo ada2-sidecar reload`; or `sudo ada2-sidecar \
                           move-out --yes` and the same command again";
                return Err(Stop::at("settings", message, fix));
            }
            lines.ok("port", "the sidecar has moved in already");
            return first_picture::check_ready(&addresses, lines).map(|()| true);
        }
        survey::Outcome::Move(plan) => *plan,
    };
    if let Some(record) = loaded(&book)? {
        let message = format!(
            "the record says that the sidecar has moved in ({:?}), and it does not hold the port",
            record.phase
        );
        return Err(Stop::at(
            "record",
            message,
            "`sudo ada2-sidecar move-out --yes` puts everything back; then move-in again",
        ));
    }
    book.save(&Record::new(plan)).map_err(|error| Stop::failed("record", "cannot be written", error))?;
    if !launch::in_unit(program, &["move-in", "--worker"])? {
        return Ok(false);
    }
    say(
        "\nMoved in. `sudo ada2-sidecar move-out` gives the port back to nginx; `ada2-sidecar readyz` shows its state.",
    );
    Ok(true)
}

fn leave_host(arguments: &ArgMatches, program: &Path, lines: &mut Lines) -> Result<bool, Stop> {
    must_be_root("move-out")?;
    let _lock = launch::lock()?;
    let begun = Instant::now();
    let book = Book::of_this_host();
    let interrupted = loaded(&book)?.is_some_and(|record| record.phase != Phase::MovedIn);
    if interrupted && recover(&book, When::Now, lines)? {
        lines.ok("record", "an interrupted move is undone or finished");
        return Ok(true);
    }
    let known = loaded(&book)?.map_or_else(started_by_hand, |record| Ok(Some(record)))?;
    let Some(record) = known else {
        lines.ok("record", "the sidecar has not moved in; nothing to do");
        return Ok(true);
    };
    confirm(arguments, &record)?;
    book.save(&record).map_err(|error| Stop::failed("record", "cannot be written", error))?;
    if !launch::in_unit(program, &["move-out", "--worker"])? {
        return Ok(false);
    }
    say(&format!(
        "\nMoved out within {:.1} s. Settings stay in /etc/ada2-sidecar: `sudo ada2-sidecar move-in` takes them again, \
         `sudo apt purge ada2-sidecar` removes everything.",
        begun.elapsed().as_secs_f32()
    ));
    Ok(true)
}

fn must_be_root(command: &str) -> Result<(), Stop> {
    if is_root() {
        return Ok(());
    }
    Err(Stop::at("root", "this changes the system's files", format!("sudo ada2-sidecar {command}")))
}

fn loaded(book: &Book) -> Result<Option<Record>, Stop> {
    book.load().map_err(|error| Stop::failed("record", "cannot be read", error))
}

/// What an earlier command left half done.
fn recover_first(book: &Book, lines: &mut Lines) -> Result<(), Stop> {
    if recover(book, When::Now, lines)? {
        lines.ok("record", "an interrupted move is undone or finished");
    }
    Ok(())
}

/// Our units, enabled or started without move-in: there is no site of nginx's to put back.
fn started_by_hand() -> Result<Option<Record>, Stop> {
    let ours = [units::SERVICE, units::SOCKET];
    if !ours.iter().any(|unit| units::is_busy(unit) || units::is_enabled(unit)) {
        return Ok(None);
    }
    let plan = Plan {
        config: PathBuf::new(),
        settings: Vec::new(),
        home_folder: None,
        sites: Vec::new(),
        nginx: None,
        addresses: units::addresses()?,
        first_time: false,
        ready_seconds: 0,
    };
    let mut record = Record::new(plan);
    record.phase = Phase::MovedIn;
    Ok(Some(record))
}

fn confirm(arguments: &ArgMatches, record: &Record) -> Result<(), Stop> {
    if arguments.get_flag("yes") {
        return Ok(());
    }
    let stop = |message: &str| Err(Stop::at("confirm", message, "sudo ada2-sidecar move-out --yes"));
    if !io::stdin().is_terminal() {
        return stop("without a terminal there is nobody to ask");
    }
    let nginx = if record.plan.sites.is_empty() { "" } else { ", and put nginx's site back" };
    let mut out = io::stdout();
    let question = format!("Stop the sidecar, cancelling pictures that are being made{nginx}? [y/N]: ");
    let _ = write!(out, "{question}").and_then(|()| out.flush());
    let mut line = String::new();
    match io::stdin().read_line(&mut line) {
        Ok(_) if matches!(line.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => stop("not confirmed"),
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
