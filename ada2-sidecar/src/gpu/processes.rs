//! Who a process is: its name, and the systemd unit that it belongs to. Reads `/proc` and `/sys/fs/cgroup`, and
//! never anything that waits for the process itself: its command line does (one wedged in the driver would hang us),
//! its `comm` and its `cgroup` do not.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use super::GpuProcess;

/// `nvidia-smi`'s word for a process that is not there (any more, or in our pid namespace).
const NOT_FOUND: &str = "[Not Found]";
/// `systemd/user.slice/user-1000.slice/user@1000.service/app.slice/engine.service` is six deep.
const MAX_DEPTH: usize = 6;
/// A host with very many containers must not cost us seconds.
const MAX_VISITED: usize = 4096;

/// What the driver says of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) pid: u32,
    pub(super) used: Option<u64>,
}

/// Names every process once; `proc` is `/proc`.
pub(super) fn describe(usages: &[Usage], proc: &Path, engine_unit: &str) -> Vec<GpuProcess> {
    let describe = |Usage { pid, used }| {
        let folder = proc.join(pid.to_string());
        let cgroup = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        GpuProcess { pid, name: name(&folder), unit: unit_of(&cgroup, engine_unit), used }
    };
    once_each(usages).into_iter().map(describe).collect()
}

/// A process that computes and draws is in both lists, with the same figure or without one.
fn once_each(usages: &[Usage]) -> Vec<Usage> {
    let mut by_pid = BTreeMap::new();
    for usage in usages {
        let used = by_pid.entry(usage.pid).or_insert(None);
        *used = usage.used.max(*used);
    }
    by_pid.into_iter().map(|(pid, used)| Usage { pid, used }).collect()
}

/// Whoever owns a process names it: control characters do not get into logs and terminals.
fn name(folder: &Path) -> String {
    let comm = fs::read(folder.join("comm")).unwrap_or_default();
    let name: String =
        String::from_utf8_lossy(&comm).chars().filter(|character| !character.is_control()).collect();
    if name.is_empty() { NOT_FOUND.to_owned() } else { name }
}

/// The unit named by `/proc/<pid>/cgroup`, whose lines are `hierarchy:controllers:path`.
///
/// The engine's own unit counts wherever in the path it stands, since whatever it starts below itself (a container,
/// a scope) is the engine too; otherwise the innermost one is meant.
fn unit_of(cgroup: &str, engine_unit: &str) -> Option<String> {
    let paths = || cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    if paths().flat_map(|path| path.split('/')).any(|part| part == engine_unit && !part.is_empty()) {
        return Some(engine_unit.to_owned());
    }
    paths().find_map(innermost_unit)
}

fn innermost_unit(path: &str) -> Option<String> {
    let parts: Vec<_> = path.split('/').collect();
    let unit = |at: usize| match parts[at] {
        part if is_unit(part) => Some(part.to_owned()),
        // Without systemd as its cgroup driver a container has a bare id below its runtime's name.
        id if is_container_id(id) => {
            let docker = at > 0 && parts[at - 1] == "docker";
            Some(format!("{}-{id}.scope", if docker { "docker" } else { "container" }))
        }
        _ => None,
    };
    (0..parts.len()).rev().find_map(unit)
}

fn is_unit(part: &str) -> bool {
    part.strip_suffix(".service").or_else(|| part.strip_suffix(".scope")).is_some_and(|stem| !stem.is_empty())
}

fn is_container_id(part: &str) -> bool {
    part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether the unit has any process; `cgroups` is `/sys/fs/cgroup`.
pub(super) fn unit_is_active(cgroups: &Path, unit: &str) -> bool {
    if !is_unit(unit) || unit.contains('/') {
        return false;
    }
    let usual = cgroups.join("system.slice").join(unit);
    if usual.is_dir() {
        return is_populated(&usual);
    }
    folders_below(cgroups).any(|folder| folder.ends_with(unit) && is_populated(&folder))
}

/// A unit may keep its processes in groups below its own, where its `cgroup.procs` is empty; `cgroup.events` counts
/// those as well, but only version 2 has it.
fn is_populated(folder: &Path) -> bool {
    let lines = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    lines("cgroup.events").lines().any(|line| line == "populated 1")
        || !lines("cgroup.procs").trim().is_empty()
}

/// Nearest first.
fn folders_below(root: &Path) -> impl Iterator<Item = PathBuf> {
    let mut waiting = VecDeque::from([(root.to_owned(), 0)]);
    std::iter::from_fn(move || {
        let (folder, depth) = waiting.pop_front()?;
        if depth < MAX_DEPTH {
            waiting.extend(folders_in(&folder).map(|inner| (inner, depth + 1)));
        }
        Some(folder)
    })
    .take(MAX_VISITED)
}

fn folders_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

#[cfg(test)]
mod tests;
