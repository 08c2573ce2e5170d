//! Undoing a move-in, finishing a move-out, and deciding which of them a record that was left behind asks for. Everything
//! here can be done again from any point: it may be interrupted itself.

use super::{
    changes::Change,
    guard,
    leave::{Stopping, give_back, stop},
    lines::{Lines, Stop},
    nginx,
    record::{Book, Phase, Record},
    units::{self, SERVICE, SOCKET, systemctl},
};

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// On a host that runs.
    Now,
    /// While it boots: before nginx and our socket, which must not be waited for.
    AtBoot,
}

/// Finishes what a record asks for. True if there was something to do.
pub(crate) fn recover(book: &Book, when: When, lines: &mut Lines) -> Result<bool, Stop> {
    let loaded = book.load().map_err(|error| {
        Stop::at("record", error.to_string(), "put nginx's site back by hand, then remove that folder")
    })?;
    match loaded {
        None => return Ok(false),
        Some(record) if record.phase == Phase::MovingIn => undo(book, &record, when, lines)?,
        Some(record) if record.phase == Phase::MovingOut => finish_moving_out(book, &record, when, lines)?,
        Some(record) => return tidy(book, record),
    }
    Ok(true)
}

/// Everything as before.
pub(crate) fn undo(book: &Book, record: &Record, when: When, lines: &mut Lines) -> Result<(), Stop> {
    let stopping = if record.started { units_down(record, when)? } else { None };
    revert(record.changes.iter().rev(), lines)?;
    if !record.changes.is_empty() {
        systemctl("undo", &["daemon-reload"])?;
    }
    nginx_up(record, when, lines)?;
    if let Some(stopping) = stopping {
        stopping.finish()?;
    }
    if record.started && when == When::Now {
        // A start that failed is no state to leave behind; one that is not failed is nothing to reset.
        let _ = systemctl("undo", &["reset-failed", SERVICE, SOCKET]);
    }
    if record.started && record.plan.first_time && when == When::Now {
        // What the service's first start left: its state directory.
        let _ = systemctl("undo", &["clean", "--what=state", SERVICE]);
    }
    end(book)?;
    lines.ok("undo", "everything is as before");
    Ok(())
}

/// Takes our units down and has nginx serve again. Settings stay.
pub(crate) fn finish_moving_out(
    book: &Book,
    record: &Record,
    when: When,
    lines: &mut Lines,
) -> Result<(), Stop> {
    revert(sites(record).rev(), lines)?;
    let stopping = units_down(record, when)?;
    lines.ok("sidecar", "stopped and disabled");
    nginx_up(record, when, lines)?;
    if let Some(stopping) = stopping {
        stopping.finish()?;
    }
    end(book)
}

/// The part of the record that move-out undoes: nginx's files.
pub(crate) fn sites(record: &Record) -> impl DoubleEndedIterator<Item = &Change> {
    let aside =
        |folder: &std::path::Path| folder.extension().is_some_and(|ending| ending == "moved-by-ada2-sidecar");
    record.changes.iter().filter(move |change| match change {
        Change::Moved { .. } => true,
        Change::Folder(path) => aside(path),
        Change::Created(_) | Change::Replaced { .. } => false,
    })
}

/// After a move-in that is done: what is left is to forget what will not be undone any more.
pub(crate) fn tidy(book: &Book, mut record: Record) -> Result<bool, Stop> {
    let lasting: Vec<_> = sites(&record).cloned().collect();
    if lasting == record.changes {
        return Ok(false);
    }
    // A move-out that was cut off in its first look may have left a site in place.
    let done = lasting.iter().try_for_each(Change::redo);
    done.map_err(|error| Stop::failed("nginx", "its site cannot be moved aside", error))?;
    guard::remove()?;
    record.changes = lasting;
    book.save(&record).map_err(|error| Stop::failed("record", "cannot be written", error))?;
    Ok(true)
}

fn revert<'a>(changes: impl Iterator<Item = &'a Change>, lines: &mut Lines) -> Result<(), Stop> {
    let mut first = None;
    for change in changes {
        if let Err(error) = change.undo() {
            let stop = Stop::at(
                "undo",
                error.to_string(),
                "do that by hand, then `sudo ada2-sidecar move-out --yes`",
            );
            // The others are undone all the same.
            lines.fail(&stop);
            first.get_or_insert(stop);
        }
    }
    first.map_or(Ok(()), Err)
}

/// Disabled and stopped. At boot a start that is queued already is called off.
fn units_down(record: &Record, when: When) -> Result<Option<Stopping>, Stop> {
    systemctl("sidecar", &["disable", "--quiet", SERVICE, SOCKET])?;
    match when {
        When::Now => {
            let mut all = record.plan.addresses.clone();
            // The socket unit may have been edited since.
            all.extend(units::addresses().unwrap_or_default());
            stop(&all).map(Some)
        }
        When::AtBoot => systemctl("sidecar", &["stop", "--no-block", SERVICE, SOCKET]).map(|()| None),
    }
}

/// At boot it is started anyway, after us.
fn nginx_up(record: &Record, when: When, lines: &mut Lines) -> Result<(), Stop> {
    let moved = record.changes.iter().any(|change| matches!(change, Change::Moved { .. }));
    match &record.plan.nginx {
        Some(unit) if when == When::Now && moved => {
            nginx::test()?;
            give_back(unit, &record.plan.addresses, lines)
        }
        _ => Ok(()),
    }
}

/// The guard goes before the record: without a record it does nothing.
fn end(book: &Book) -> Result<(), Stop> {
    guard::remove()?;
    book.remove().map_err(|error| Stop::failed("record", "cannot be removed", error))
}
