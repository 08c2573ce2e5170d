//! Undoing a move-in, finishing a move-out, and deciding which of them a record that was left behind asks for. Everything
//! here can be done again from any point: it may be interrupted itself.

use super::{
    changes::Change,
    nginx,
    record::{Phase, Record, RecordStore},
    recovery_unit,
    reporter::{MoveError, StepReporter},
    shutdown::{Stopping, restore_nginx, stop_sidecar},
    units::{self, SERVICE, SOCKET, systemctl},
};

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecoveryTime {
    /// On a host that runs.
    Now,
    /// While it boots: before nginx and our socket, which must not be waited for.
    AtBoot,
}

/// Finishes what a record asks for. True if there was something to do.
pub(crate) fn recover(
    store: &RecordStore,
    when: RecoveryTime,
    reporter: &mut StepReporter,
) -> Result<bool, MoveError> {
    let loaded = store.load().map_err(|error| {
        MoveError::new("record", error.to_string(), "put nginx's site back by hand, then remove that folder")
    })?;
    match loaded {
        None => return Ok(false),
        Some(record) if record.phase == Phase::MovingIn => undo(store, &record, when, reporter)?,
        Some(record) if record.phase == Phase::MovingOut => {
            finish_moving_out(store, &record, when, reporter)?;
        }
        Some(record) => return finalize(store, record),
    }
    Ok(true)
}

/// Everything as before.
pub(crate) fn undo(
    store: &RecordStore,
    record: &Record,
    when: RecoveryTime,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    let stopping = if record.started { stop_units(record, when)? } else { None };
    revert(record.changes.iter().rev(), reporter)?;
    if !record.changes.is_empty() {
        systemctl("undo", &["daemon-reload"])?;
    }
    restart_nginx(record, when, reporter)?;
    if let Some(stopping) = stopping {
        stopping.finish()?;
    }
    if record.started && when == RecoveryTime::Now {
        // A start that failed is no state to leave behind; one that is not failed is nothing to reset.
        let _ = systemctl("undo", &["reset-failed", SERVICE, SOCKET]);
    }
    if record.started && record.plan.first_time && when == RecoveryTime::Now {
        // What the service's first start left: its state directory.
        let _ = systemctl("undo", &["clean", "--what=state", SERVICE]);
    }
    remove_record(store)?;
    reporter.ok("undo", "everything is as before");
    Ok(())
}

/// Takes our units down and has nginx serve again. Settings stay.
pub(crate) fn finish_moving_out(
    store: &RecordStore,
    record: &Record,
    when: RecoveryTime,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    revert(site_changes(record).rev(), reporter)?;
    let stopping = stop_units(record, when)?;
    reporter.ok("sidecar", "stopped and disabled");
    restart_nginx(record, when, reporter)?;
    if let Some(stopping) = stopping {
        stopping.finish()?;
    }
    remove_record(store)
}

/// The part of the record that move-out undoes: nginx's files.
pub(crate) fn site_changes(record: &Record) -> impl DoubleEndedIterator<Item = &Change> {
    let is_moved_aside =
        |folder: &std::path::Path| folder.extension().is_some_and(|ending| ending == "moved-by-ada2-sidecar");
    record.changes.iter().filter(move |change| match change {
        Change::Moved { .. } => true,
        Change::Folder(path) => is_moved_aside(path),
        Change::Created(_) | Change::Replaced { .. } => false,
    })
}

/// After a move-in that is done: what is left is to forget what will not be undone any more.
pub(crate) fn finalize(store: &RecordStore, mut record: Record) -> Result<bool, MoveError> {
    let remaining: Vec<_> = site_changes(&record).cloned().collect();
    if remaining == record.changes {
        return Ok(false);
    }
    // A move-out that was cut off in its first look may have left a site in place.
    let done = remaining.iter().try_for_each(Change::redo);
    done.map_err(|error| MoveError::from_cause("nginx", "its site cannot be moved aside", error))?;
    recovery_unit::remove()?;
    record.changes = remaining;
    store.save(&record).map_err(|error| MoveError::from_cause("record", "cannot be written", error))?;
    Ok(true)
}

fn revert<'a>(
    changes: impl Iterator<Item = &'a Change>,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    let mut first = None;
    for change in changes {
        if let Err(error) = change.undo() {
            let stop = MoveError::new(
                "undo",
                error.to_string(),
                "do that by hand, then `sudo ada2-sidecar move-out --yes`",
            );
            // The others are undone all the same.
            reporter.fail(&stop);
            first.get_or_insert(stop);
        }
    }
    first.map_or(Ok(()), Err)
}

/// Disabled and stopped. At boot a start that is queued already is called off.
fn stop_units(record: &Record, when: RecoveryTime) -> Result<Option<Stopping>, MoveError> {
    systemctl("sidecar", &["disable", "--quiet", SERVICE, SOCKET])?;
    match when {
        RecoveryTime::Now => {
            let mut all = record.plan.addresses.clone();
            // The socket unit may have been edited since.
            all.extend(units::listen_addresses().unwrap_or_default());
            stop_sidecar(&all).map(Some)
        }
        RecoveryTime::AtBoot => systemctl("sidecar", &["stop", "--no-block", SERVICE, SOCKET]).map(|()| None),
    }
}

/// At boot it is started anyway, after us.
fn restart_nginx(record: &Record, when: RecoveryTime, reporter: &mut StepReporter) -> Result<(), MoveError> {
    let moved = record.changes.iter().any(|change| matches!(change, Change::Moved { .. }));
    match &record.plan.nginx {
        Some(unit) if when == RecoveryTime::Now && moved => {
            nginx::test()?;
            restore_nginx(unit, &record.plan.addresses, reporter)
        }
        _ => Ok(()),
    }
}

/// The guard goes before the record: without a record it does nothing.
fn remove_record(store: &RecordStore) -> Result<(), MoveError> {
    recovery_unit::remove()?;
    store.remove().map_err(|error| MoveError::from_cause("record", "cannot be removed", error))
}
