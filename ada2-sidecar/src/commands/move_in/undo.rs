//! Undoes a move-in, finishes a move-out, and decides which of them a leftover record needs. All of it can be repeated from
//! any point, as it may be interrupted itself.

use std::path::Path;

use super::{
    changes::Change,
    nginx,
    record::{Phase, Record, RecordStore},
    recovery_unit,
    reporter::{MoveError, StepReporter},
    shutdown::{Stopping, restore_nginx, stop_sidecar},
    units::{self, SERVICE, SOCKET, systemctl},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecoveryTime {
    Now,
    /// Before nginx and the sidecar's socket, which must not be waited for.
    AtBoot,
}

/// Finishes or undoes what the record says. True if there was something to do.
pub(crate) fn recover(
    store: &RecordStore,
    when: RecoveryTime,
    reporter: &mut StepReporter,
) -> Result<bool, MoveError> {
    let loaded = store.load().map_err(|error| {
        MoveError::new(
            "record",
            error.to_string(),
            "restore nginx's site manually, then remove that directory",
        )
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

/// Restores the state before the move-in.
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
        // It fails if no start failed, which does not matter.
        let _ = systemctl("undo", &["reset-failed", SERVICE, SOCKET]);
    }
    if record.started && record.plan.first_time && when == RecoveryTime::Now {
        // The state directory of the service's first start.
        let _ = systemctl("undo", &["clean", "--what=state", SERVICE]);
    }
    remove_record(store)?;
    reporter.ok("undo", "everything is as before");
    Ok(())
}

/// Stops the sidecar and lets nginx serve again. Settings stay.
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

/// The changes that move-out undoes: those of nginx's files.
pub(crate) fn site_changes(record: &Record) -> impl DoubleEndedIterator<Item = &Change> {
    let is_moved_aside =
        |dir: &Path| dir.extension().is_some_and(|extension| extension == "moved-by-ada2-sidecar");
    record.changes.iter().filter(move |change| match change {
        Change::Moved { .. } => true,
        Change::Directory(path) => is_moved_aside(path),
        Change::Created(_) | Change::Replaced { .. } => false,
    })
}

/// Completes a move-in: the record forgets the changes that move-out will not undo.
pub(crate) fn finalize(store: &RecordStore, mut record: Record) -> Result<bool, MoveError> {
    let remaining: Vec<_> = site_changes(&record).cloned().collect();
    if remaining == record.changes {
        return Ok(false);
    }
    // An interrupted check of move-out may have left a site in place.
    let result = remaining.iter().try_for_each(Change::redo);
    result.map_err(|error| MoveError::from_cause("nginx", "its site cannot be moved aside", error))?;
    recovery_unit::remove()?;
    record.changes = remaining;
    store.save(&record).map_err(|error| MoveError::from_cause("record", "cannot be written", error))?;
    Ok(true)
}

fn revert<'a>(
    changes: impl Iterator<Item = &'a Change>,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    let mut first_error = None;
    for change in changes {
        if let Err(error) = change.undo() {
            let error = MoveError::new(
                "undo",
                error.to_string(),
                "do that manually, then `sudo ada2-sidecar move-out --yes`",
            );
            // The other changes are undone all the same.
            reporter.fail(&error);
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Disables and stops the units. At boot a queued start is cancelled.
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

/// At boot nginx starts anyway, later.
fn restart_nginx(record: &Record, when: RecoveryTime, reporter: &mut StepReporter) -> Result<(), MoveError> {
    let is_moved = record.changes.iter().any(|change| matches!(change, Change::Moved { .. }));
    match &record.plan.nginx {
        Some(unit) if when == RecoveryTime::Now && is_moved => {
            nginx::test()?;
            restore_nginx(unit, &record.plan.addresses, reporter)
        }
        _ => Ok(()),
    }
}

/// The recovery unit goes first: without a record it does nothing.
fn remove_record(store: &RecordStore) -> Result<(), MoveError> {
    recovery_unit::remove()?;
    store.remove().map_err(|error| MoveError::from_cause("record", "cannot be removed", error))
}
