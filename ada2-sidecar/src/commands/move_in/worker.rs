//! The part of move-in and move-out that changes this host. It runs in a transient unit of its own, so that systemd undoes
//! an interrupted move-in: by `ExecStopPost=` of that unit, and at the next boot by the recovery unit.

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

/// Exposes the output directory in a home to the service.
const DROP_IN: &str = "/etc/systemd/system/ada2-sidecar.service.d/engine-output.conf";

struct MoveIn<'a> {
    store: &'a RecordStore,
    record: Record,
    reporter: StepReporter,
    cancel: CancellationToken,
    program: PathBuf,
}

/// Moves in according to the record, or restores the previous state.
pub(crate) fn move_in(program: PathBuf) -> bool {
    let (store, mut reporter, cancel) =
        (RecordStore::system(), StepReporter::new(), CancellationToken::new());
    cancel_on_signal(&cancel);
    let record = match store.load() {
        Ok(Some(record)) if record.phase == Phase::MovingIn => record,
        Ok(_) => return false,
        Err(error) => {
            reporter.fail(&MoveError::from_cause("record", "cannot be read", error));
            return false;
        }
    };
    let mut move_in = MoveIn { store: &store, record, reporter, cancel, program };
    let Err(error) = move_in.run() else { return true };
    move_in.reporter.fail(&error);
    if let Err(error) = undo::undo(&store, &move_in.record, undo::RecoveryTime::Now, &mut move_in.reporter) {
        move_in.reporter.fail(&error);
    }
    false
}

/// Moves out according to the record. An interruption does not stop it: half a move-out is worse than a complete one.
pub(crate) fn move_out(program: &Path) -> bool {
    let (store, mut reporter) = (RecordStore::system(), StepReporter::new());
    let result = match store.load() {
        Ok(Some(record)) => move_out_of_host(&store, record, program, &mut reporter),
        Ok(None) => return false,
        Err(error) => Err(MoveError::from_cause("record", "cannot be read", error)),
    };
    result.inspect_err(|error| reporter.fail(error)).is_ok()
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

/// Before anything stops: with its site back for a moment, nginx must accept its configuration.
fn check_nginx_restorable(record: &Record) -> Result<(), MoveError> {
    if undo::site_changes(record).next().is_none() {
        return Ok(());
    }
    let failed = |error: io::Error| MoveError::from_cause("nginx", "its site cannot be restored", error);
    undo::site_changes(record).rev().try_for_each(Change::undo).map_err(failed)?;
    let test_result = nginx::test();
    undo::site_changes(record).try_for_each(Change::redo).map_err(failed)?;
    test_result
}

/// Standard input ends when the command that started this process ends, for whatever reason.
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
        // The move is complete; what finalize leaves, the next command finishes.
        if let Err(error) = undo::finalize(self.store, self.record.clone()) {
            self.reporter.warn(error.step, &error.message, &error.fix);
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
        let result = self.store.with_changes(&mut self.record, work);
        result.map_err(|error| MoveError::from_cause(step, "cannot be changed", error))
    }

    /// Writes the configuration file and exposes the output directory, then reads the configuration as the service will.
    fn configure(&mut self) -> Result<Config, MoveError> {
        let plan = self.record.plan.clone();
        let old = read_or_empty(&plan.config)?;
        let new = yaml::set_keys(&old, &plan.settings).map_err(|error| {
            MoveError::new("configuration", format!("{}: {error}", plan.config.display()), "then again")
        })?;
        if new != old {
            self.apply("configuration", |record_change| write(&plan.config, &new, record_change))?;
        }
        let config = settings::load(&plan.config)?;
        settings::check_not_overridden(&plan)?;
        let set: Vec<_> = plan.settings.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let settings = if set.is_empty() { "nothing to set".to_owned() } else { set.join(", ") };
        self.reporter.ok("configuration", &format!("{}: {settings}", plan.config.display()));
        if let Some(dir) = &plan.home_dir {
            let text = drop_in(dir);
            if read_or_empty(Path::new(DROP_IN))? != text {
                self.apply("configuration", |record_change| write(Path::new(DROP_IN), &text, record_change))?;
                systemctl("configuration", &["daemon-reload"])?;
            }
            self.reporter.ok("sandbox", &format!("the service sees {} ({DROP_IN})", dir.display()));
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
        systemctl("sidecar", &["start", SOCKET, SERVICE]).map_err(|error| {
            let log = units::last_log_lines(SERVICE);
            let message = if log.is_empty() { error.message } else { format!("{}: {log}", error.message) };
            MoveError::new("sidecar", message, format!("`journalctl -u {SERVICE}` shows the full log"))
        })?;
        let addresses: Vec<_> = self.record.plan.addresses.iter().map(ToString::to_string).collect();
        self.reporter.ok("sidecar", &format!("runs and listens on {}", addresses.join(", ")));
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

/// Exposes one directory in a home to the service, and nothing else there.
fn drop_in(dir: &Path) -> String {
    let mut quoted = String::new();
    for c in dir.display().to_string().chars() {
        match c {
            '%' => quoted.push_str("%%"),
            '"' | '\\' => quoted.extend(['\\', c]),
            // Escaped twice: for the quotes and for the path.
            ':' => quoted.push_str("\\\\:"),
            c => quoted.push(c),
        }
    }
    format!(
        "# Written by `ada2-sidecar move-in`: ProtectHome=yes would hide the engine's output directory, whose disk is monitored.\n\
         [Service]\nProtectHome=tmpfs\nBindReadOnlyPaths=\"-{quoted}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_systemd() {
        for (dir, expected) in [
            ("/home/x/outputs", "BindReadOnlyPaths=\"-/home/x/outputs\"\n"),
            ("/home/x/100% \"my\"", "BindReadOnlyPaths=\"-/home/x/100%% \\\"my\\\"\"\n"),
            ("/home/x/a:b", "BindReadOnlyPaths=\"-/home/x/a\\\\:b\"\n"),
        ] {
            assert!(drop_in(Path::new(dir)).ends_with(expected), "{dir}");
        }
    }
}
