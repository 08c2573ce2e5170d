//! The part of move-in that changes this host. It runs in a transient unit of its own, so that whatever happens to the
//! terminal or to this process, systemd undoes it: `ExecStopPost=` of that unit, and at the next boot the guard.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    changes::{Change, Note, move_aside, write},
    first_picture, guard,
    lines::{Lines, Stop},
    nginx,
    record::{Book, Phase, Record},
    settings, undo,
    units::{self, SERVICE, SOCKET, systemctl},
    yaml,
};
use crate::config::Config;

/// Where the service is shown a folder in a home.
const DROP_IN: &str = "/etc/systemd/system/ada2-sidecar.service.d/engine-output.conf";

/// One move-in at work.
struct Move<'a> {
    book: &'a Book,
    record: Record,
    lines: Lines,
    stop: CancellationToken,
    program: PathBuf,
}

/// Moves in as the record says, or has everything as before.
pub(crate) fn move_in(program: PathBuf) -> bool {
    let (book, mut lines, stop) = (Book::of_this_host(), Lines::new(), CancellationToken::new());
    stop_when_told(&stop);
    let record = match book.load() {
        Ok(Some(record)) if record.phase == Phase::MovingIn => record,
        Ok(_) => return false,
        Err(error) => {
            lines.fail(&Stop::failed("record", "cannot be read", error));
            return false;
        }
    };
    let mut work = Move { book: &book, record, lines, stop, program };
    let Err(why) = work.run() else { return true };
    work.lines.fail(&why);
    if let Err(stop) = undo::undo(&book, &work.record, undo::When::Now, &mut work.lines) {
        work.lines.fail(&stop);
    }
    false
}

/// Moves out as the record says. An interruption does not stop it: half of it is worse than the rest.
pub(crate) fn move_out(program: &Path) -> bool {
    let (book, mut lines) = (Book::of_this_host(), Lines::new());
    let done = match book.load() {
        Ok(Some(record)) => leave_host(&book, record, program, &mut lines),
        Ok(None) => return false,
        Err(error) => Err(Stop::failed("record", "cannot be read", error)),
    };
    done.inspect_err(|stop| lines.fail(stop)).is_ok()
}

fn leave_host(book: &Book, mut record: Record, program: &Path, lines: &mut Lines) -> Result<(), Stop> {
    let saved = |error: io::Error| Stop::failed("record", "cannot be written", error);
    if record.phase == Phase::MovedIn {
        let nginx = record.plan.nginx.clone().unwrap_or_else(|| nginx::UNIT.to_owned());
        book.noting(&mut record, |note| guard::install(program, &nginx, note)).map_err(saved)?;
        check_nginx_would_come_back(&record).inspect_err(|_| {
            let _ = undo::tidy(book, record.clone());
        })?;
        record.phase = Phase::MovingOut;
        book.save(&record).map_err(saved)?;
    }
    undo::finish_moving_out(book, &record, undo::When::Now, lines)
}

/// Before anything stops: with its site back for a moment, nginx must take its configuration.
fn check_nginx_would_come_back(record: &Record) -> Result<(), Stop> {
    if undo::sites(record).next().is_none() {
        return Ok(());
    }
    let failed = |error: io::Error| Stop::failed("nginx", "its site cannot be put back", error);
    undo::sites(record).rev().try_for_each(Change::undo).map_err(failed)?;
    let tested = nginx::test();
    undo::sites(record).try_for_each(Change::redo).map_err(failed)?;
    tested
}

/// Standard input ends with the command that started us, however that ends.
fn stop_when_told(stop: &CancellationToken) {
    let told = stop.clone();
    thread::spawn(move || {
        let mut byte = [0; 1];
        while io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        told.cancel();
    });
    let told = stop.clone();
    thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
            let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else { return };
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hup.recv() => {}
            }
            told.cancel();
        });
    });
}

impl Move<'_> {
    fn run(&mut self) -> Result<(), Stop> {
        let nginx = self.record.plan.nginx.clone().unwrap_or_else(|| nginx::UNIT.to_owned());
        let program = self.program.clone();
        self.change("record", |note| guard::install(&program, &nginx, note))?;
        let config = self.configure()?;
        self.move_sites(&nginx)?;
        self.start()?;
        first_picture::wait_until_ready(&self.record.plan, &self.stop, &mut self.lines)?;
        first_picture::make(&self.record.plan, &config, &self.stop, &mut self.lines)?;
        systemctl("sidecar", &["enable", "--quiet", SOCKET, SERVICE])?;
        self.not_stopped()?;
        self.record.phase = Phase::MovedIn;
        let saved = self.book.save(&self.record);
        saved.map_err(|error| Stop::failed("record", "cannot be written", error))?;
        // From here on it is done; what is left over is taken away now, or by the next command.
        if let Err(stop) = undo::tidy(self.book, self.record.clone()) {
            self.lines.warn(stop.step, &stop.message, &stop.fix);
        }
        Ok(())
    }

    fn not_stopped(&self) -> Result<(), Stop> {
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        Ok(())
    }

    fn change(
        &mut self,
        step: &'static str,
        work: impl FnOnce(Note<'_>) -> io::Result<()>,
    ) -> Result<(), Stop> {
        self.not_stopped()?;
        let done = self.book.noting(&mut self.record, work);
        done.map_err(|error| Stop::failed(step, "cannot be changed", error))
    }

    /// The configuration file, and the folder that the sandbox must show. What is read then is what the service will read.
    fn configure(&mut self) -> Result<Config, Stop> {
        let plan = self.record.plan.clone();
        let old = read_or_empty(&plan.config)?;
        let new = yaml::with(&old, &plan.settings).map_err(|why| {
            Stop::at("configuration", format!("{}: {why}", plan.config.display()), "then again")
        })?;
        if new != old {
            self.change("configuration", |note| write(&plan.config, &new, note))?;
        }
        let config = settings::load(&plan.config)?;
        settings::check_in_force(&plan)?;
        let set: Vec<_> = plan.settings.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let what = if set.is_empty() { "nothing to set".to_owned() } else { set.join(", ") };
        self.lines.ok("configuration", &format!("{}: {what}", plan.config.display()));
        if let Some(folder) = &plan.home_folder {
            let text = drop_in(folder);
            if read_or_empty(Path::new(DROP_IN))? != text {
                self.change("configuration", |note| write(Path::new(DROP_IN), &text, note))?;
                systemctl("configuration", &["daemon-reload"])?;
            }
            self.lines.ok("sandbox", &format!("the service sees {} ({DROP_IN})", folder.display()));
        }
        Ok(config)
    }

    fn move_sites(&mut self, nginx: &str) -> Result<(), Stop> {
        let plan = self.record.plan.clone();
        for site in &plan.sites {
            self.change("nginx", |note| move_aside(site, note).map(drop))?;
        }
        if plan.sites.is_empty() {
            return Ok(());
        }
        nginx::test()?;
        if plan.nginx.is_some() {
            nginx::reload(nginx)?;
        }
        units::wait_until_free("nginx", &plan.addresses)?;
        let moved: Vec<_> = plan.sites.iter().map(|site| site.display().to_string()).collect();
        self.lines.ok("nginx", &format!("{} moved aside, reloaded, the port is free", moved.join(", ")));
        Ok(())
    }

    fn start(&mut self) -> Result<(), Stop> {
        self.not_stopped()?;
        self.record.started = true;
        let saved = self.book.save(&self.record);
        saved.map_err(|error| Stop::failed("record", "cannot be written", error))?;
        systemctl("sidecar", &["start", SOCKET, SERVICE]).map_err(|stop| {
            let words = units::last_words(SERVICE);
            let message = if words.is_empty() { stop.message } else { format!("{}: {words}", stop.message) };
            Stop::at("sidecar", message, format!("`journalctl -u {SERVICE}` has the whole story"))
        })?;
        let listens: Vec<_> = self.record.plan.addresses.iter().map(ToString::to_string).collect();
        self.lines.ok("sidecar", &format!("runs and listens on {}", listens.join(", ")));
        Ok(())
    }
}

pub(crate) fn stopped() -> Stop {
    Stop::at(
        "stopped",
        "you, or the end of your session, stopped it",
        "`sudo ada2-sidecar move-in` starts anew",
    )
}

fn read_or_empty(path: &Path) -> Result<String, Stop> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(|error| Stop::failed("configuration", &path.display().to_string(), error)),
    }
}

/// Lets the service see one folder in a home, and nothing else there.
fn drop_in(folder: &Path) -> String {
    let mut quoted = String::new();
    for letter in folder.display().to_string().chars() {
        match letter {
            '%' => quoted.push_str("%%"),
            '"' | '\\' => quoted.extend(['\\', letter]),
            // Twice: once for the quotes, once for the path.
            ':' => quoted.push_str("\\\\:"),
            letter => quoted.push(letter),
        }
    }
    format!(
        "# Written by `ada2-sidecar move-in`: the disk of the engine's pictures is watched, and ProtectHome=yes hides it.\n\
         [Service]\nProtectHome=tmpfs\nBindReadOnlyPaths=\"-{quoted}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_a_home_is_quoted_for_systemd() {
        for (folder, says) in [
            ("/home/x/outputs", "BindReadOnlyPaths=\"-/home/x/outputs\"\n"),
            ("/home/x/100% \"my\"", "BindReadOnlyPaths=\"-/home/x/100%% \\\"my\\\"\"\n"),
            ("/home/x/a:b", "BindReadOnlyPaths=\"-/home/x/a\\\\:b\"\n"),
        ] {
            assert!(drop_in(Path::new(folder)).ends_with(says), "{folder}");
        }
    }
}
