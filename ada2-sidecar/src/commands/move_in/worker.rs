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
    changes::{Change, RecordChange, move_aside, write},
    first_image, nginx,
    record::{Phase, Record, RecordStore},
    recovery_unit,
    reporter::{MoveError, StepReporter},
    settings, undo,
    units::{self, SERVICE, SOCKET, systemctl},
    yaml,
};
use crate::config::Config;

/// Where the service is shown a folder in a home.
const DROP_IN: &str = "/etc/systemd/system/ada2-sidecar.service.d/engine-output.conf";

/// One move-in at work.
struct MoveIn<'a> {
    store: &'a RecordStore,
    record: Record,
    reporter: StepReporter,
    cancel: CancellationToken,
    program: PathBuf,
}

/// Moves in as the record says, or has everything as before.
pub(crate) fn move_in(program: PathBuf) -> bool {
    let (book, mut lines, stop) = (RecordStore::system(), StepReporter::new(), CancellationToken::new());
    cancel_on_signal(&stop);
    let record = match book.load() {
        Ok(Some(record)) if record.phase == Phase::MovingIn => record,
        Ok(_) => return false,
        Err(error) => {
            lines.fail(&MoveError::from_cause("record", "cannot be read", error));
            return false;
        }
    };
    let mut move_in = MoveIn { store: &book, record, reporter: lines, cancel: stop, program };
    let Err(why) = move_in.run() else { return true };
    move_in.reporter.fail(&why);
    if let Err(stop) = undo::undo(&book, &move_in.record, undo::RecoveryTime::Now, &mut move_in.reporter) {
        move_in.reporter.fail(&stop);
    }
    false
}

/// Moves out as the record says. An interruption does not stop it: half of it is worse than the rest.
pub(crate) fn move_out(program: &Path) -> bool {
    let (store, mut reporter) = (RecordStore::system(), StepReporter::new());
    let done = match store.load() {
        Ok(Some(record)) => move_out_of_host(&store, record, program, &mut reporter),
        Ok(None) => return false,
        Err(error) => Err(MoveError::from_cause("record", "cannot be read", error)),
    };
    done.inspect_err(|stop| reporter.fail(stop)).is_ok()
}

fn move_out_of_host(
    store: &RecordStore,
    mut record: Record,
    program: &Path,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    let cannot_write = |error: io::Error| MoveError::from_cause("record", "cannot be written", error);
    if record.phase == Phase::MovedIn {
        let nginx = record.plan.nginx.clone().unwrap_or_else(|| nginx::UNIT.to_owned());
        store
            .with_changes(&mut record, |record_change| recovery_unit::install(program, &nginx, record_change))
            .map_err(cannot_write)?;
        check_nginx_restorable(&record).inspect_err(|_| {
            let _ = undo::finalize(store, record.clone());
        })?;
        record.phase = Phase::MovingOut;
        store.save(&record).map_err(cannot_write)?;
    }
    undo::finish_moving_out(store, &record, undo::RecoveryTime::Now, reporter)
}

/// Before anything stops: with its site back for a moment, nginx must take its configuration.
fn check_nginx_restorable(record: &Record) -> Result<(), MoveError> {
    if undo::site_changes(record).next().is_none() {
        return Ok(());
    }
    let failed = |error: io::Error| MoveError::from_cause("nginx", "its site cannot be put back", error);
    undo::site_changes(record).rev().try_for_each(Change::undo).map_err(failed)?;
    let tested = nginx::test();
    undo::site_changes(record).try_for_each(Change::redo).map_err(failed)?;
    tested
}

/// Standard input ends with the command that started us, however that ends.
fn cancel_on_signal(cancel: &CancellationToken) {
    let on_end_of_input = cancel.clone();
    thread::spawn(move || {
        let mut byte = [0; 1];
        while io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        on_end_of_input.cancel();
    });
    let cancel = cancel.clone();
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
            cancel.cancel();
        });
    });
}

impl MoveIn<'_> {
    fn run(&mut self) -> Result<(), MoveError> {
        let nginx = self.record.plan.nginx.clone().unwrap_or_else(|| nginx::UNIT.to_owned());
        let program = self.program.clone();
        self.apply("record", |record_change| recovery_unit::install(&program, &nginx, record_change))?;
        let config = self.configure()?;
        self.move_sites(&nginx)?;
        self.start()?;
        first_image::wait_until_ready(&self.record.plan, &self.cancel, &mut self.reporter)?;
        first_image::generate(&self.record.plan, &config, &self.cancel, &mut self.reporter)?;
        systemctl("sidecar", &["enable", "--quiet", SOCKET, SERVICE])?;
        self.check_cancelled()?;
        self.record.phase = Phase::MovedIn;
        let saved = self.store.save(&self.record);
        saved.map_err(|error| MoveError::from_cause("record", "cannot be written", error))?;
        // From here on it is done; what is left over is taken away now, or by the next command.
        if let Err(stop) = undo::finalize(self.store, self.record.clone()) {
            self.reporter.warn(stop.step, &stop.message, &stop.fix);
        }
        Ok(())
    }

    fn check_cancelled(&self) -> Result<(), MoveError> {
        if self.cancel.is_cancelled() {
            return Err(MoveError::interrupted());
        }
        Ok(())
    }

    fn apply(
        &mut self,
        step: &'static str,
        work: impl FnOnce(RecordChange<'_>) -> io::Result<()>,
    ) -> Result<(), MoveError> {
        self.check_cancelled()?;
        let done = self.store.with_changes(&mut self.record, work);
        done.map_err(|error| MoveError::from_cause(step, "cannot be changed", error))
    }

    /// The configuration file, and the folder that the sandbox must show. What is read then is what the service will read.
    fn configure(&mut self) -> Result<Config, MoveError> {
        let plan = self.record.plan.clone();
        let old = read_or_empty(&plan.config)?;
        let new = yaml::set_keys(&old, &plan.settings).map_err(|why| {
            MoveError::new("configuration", format!("{}: {why}", plan.config.display()), "then again")
        })?;
        if new != old {
            self.apply("configuration", |record_change| write(&plan.config, &new, record_change))?;
        }
        let config = settings::load(&plan.config)?;
        settings::check_not_overridden(&plan)?;
        let set: Vec<_> = plan.settings.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let what = if set.is_empty() { "nothing to set".to_owned() } else { set.join(", ") };
        self.reporter.ok("configuration", &format!("{}: {what}", plan.config.display()));
        if let Some(folder) = &plan.home_folder {
            let text = drop_in(folder);
            if read_or_empty(Path::new(DROP_IN))? != text {
                self.apply("configuration", |record_change| write(Path::new(DROP_IN), &text, record_change))?;
                systemctl("configuration", &["daemon-reload"])?;
            }
            self.reporter.ok("sandbox", &format!("the service sees {} ({DROP_IN})", folder.display()));
        }
        Ok(config)
    }

    fn move_sites(&mut self, nginx: &str) -> Result<(), MoveError> {
        let plan = self.record.plan.clone();
        for site in &plan.sites {
            self.apply("nginx", |record_change| move_aside(site, record_change).map(drop))?;
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
        self.reporter.ok("nginx", &format!("{} moved aside, reloaded, the port is free", moved.join(", ")));
        Ok(())
    }

    fn start(&mut self) -> Result<(), MoveError> {
        self.check_cancelled()?;
        self.record.started = true;
        let saved = self.store.save(&self.record);
        saved.map_err(|error| MoveError::from_cause("record", "cannot be written", error))?;
        systemctl("sidecar", &["start", SOCKET, SERVICE]).map_err(|stop| {
            let log = units::last_log_lines(SERVICE);
            let message = if log.is_empty() { stop.message } else { format!("{}: {log}", stop.message) };
            MoveError::new("sidecar", message, format!("`journalctl -u {SERVICE}` has the whole story"))
        })?;
        let listens: Vec<_> = self.record.plan.addresses.iter().map(ToString::to_string).collect();
        self.reporter.ok("sidecar", &format!("runs and listens on {}", listens.join(", ")));
        Ok(())
    }
}

fn read_or_empty(path: &Path) -> Result<String, MoveError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => {
            text.map_err(|error| MoveError::from_cause("configuration", &path.display().to_string(), error))
        }
    }
}

/// Lets the service see one folder in a home, and nothing else there.
fn drop_in(folder: &Path) -> String {
    let mut quoted = String::new();
    for c in folder.display().to_string().chars() {
        match c {
            '%' => quoted.push_str("%%"),
            '"' | '\\' => quoted.extend(['\\', c]),
            // Twice: once for the quotes, once for the path.
            ':' => quoted.push_str("\\\\:"),
            c => quoted.push(c),
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
