//! Who a process is: its name, and the systemd unit that it belongs to. Reads `/proc` and `/sys/fs/cgroup`, and
//! never anything that waits for the process itself: its command line does (one wedged in the driver would hang us),
//! its `comm` and its `cgroup` do not.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use super::{GpuProcess, GpuProcessType};

/// `nvidia-smi`'s word for a process that is not there (any more, or in our pid namespace).
const NOT_FOUND: &str = "[Not Found]";
/// `systemd/user.slice/user-1000.slice/user@1000.service/app.slice/engine.service` is six deep.
const MAX_DEPTH: usize = 6;
/// From a process to the engine that started it, through shells and wrappers.
const MAX_ANCESTORS: usize = 16;
/// A host with very many containers must not cost us seconds.
const MAX_VISITED: usize = 4096;

/// What the driver says of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessUsage {
    pub(super) pid: u32,
    pub(super) used: Option<u64>,
    pub(super) process_type: GpuProcessType,
}

/// Names every process once; `proc` is `/proc`.
pub(super) fn describe(usages: &[ProcessUsage], proc: &Path, engine_unit: &str) -> Vec<GpuProcess> {
    let describe = |ProcessUsage { pid, used, process_type: work }| {
        let folder = proc.join(pid.to_string());
        GpuProcess {
            pid,
            name: name(&folder),
            unit: unit_of(pid, proc, engine_unit),
            process_type: work,
            used,
        }
    };
    merge_by_pid(usages).into_iter().map(describe).collect()
}

/// A process that computes and draws is in both lists, with the same figure or without one.
fn merge_by_pid(usages: &[ProcessUsage]) -> Vec<ProcessUsage> {
    let mut by_pid: BTreeMap<u32, ProcessUsage> = BTreeMap::new();
    for usage in usages {
        let known = by_pid.entry(usage.pid).or_insert(*usage);
        known.used = usage.used.max(known.used);
        if known.process_type != usage.process_type {
            known.process_type = GpuProcessType::Both;
        }
    }
    by_pid.into_values().collect()
}

/// The unit of a process. The engine's own counts for whatever it started, wherever that was moved to since.
fn unit_of(pid: u32, proc: &Path, engine_unit: &str) -> Option<String> {
    let own = unit_in(&cgroup(pid, proc), engine_unit);
    if own.as_deref() == Some(engine_unit) {
        return own;
    }
    let started_by_engine = std::iter::successors(parent(pid, proc), |pid| parent(*pid, proc))
        .take(MAX_ANCESTORS)
        .any(|ancestor| unit_in(&cgroup(ancestor, proc), engine_unit).as_deref() == Some(engine_unit));
    if started_by_engine { Some(engine_unit.to_owned()) } else { own }
}

fn cgroup(pid: u32, proc: &Path) -> String {
    fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).unwrap_or_default()
}

/// The second field behind the name, which is in parentheses and may hold any character. Nobody's is 0.
fn parent(pid: u32, proc: &Path) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent > 1)
}

/// Whoever owns a process names it: control characters do not get into logs and terminals.
fn name(folder: &Path) -> String {
    let comm = fs::read(folder.join("comm")).unwrap_or_default();
    let name: String =
        String::from_utf8_lossy(&comm).chars().filter(|character| !character.is_control()).collect();
    if name.is_empty() { NOT_FOUND.to_owned() } else { name }
}

/// What a process calls itself.
pub(crate) fn name_of(pid: u32, proc: &Path) -> String {
    name(&proc.join(pid.to_string()))
}

/// The innermost unit that a process is in.
pub(crate) fn innermost_unit_of(pid: u32, proc: &Path) -> Option<String> {
    unit_in(&cgroup(pid, proc), "")
}

/// The unit named by `/proc/<pid>/cgroup`, whose lines are `hierarchy:controllers:path`.
///
/// The engine's own unit counts wherever in the path it stands, since whatever it starts below itself (a container,
/// a scope) is the engine too; otherwise the innermost one is meant.
fn unit_in(cgroup: &str, engine_unit: &str) -> Option<String> {
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
    folder_of(cgroups, unit).is_some_and(|folder| is_populated(&folder))
}

/// The unit's processes, those in groups below its own included; `cgroups` is `/sys/fs/cgroup`.
pub(crate) fn pids_of_unit(cgroups: &Path, unit: &str) -> Vec<u32> {
    let Some(folder) = folder_of(cgroups, unit) else { return Vec::new() };
    let pids = |folder: PathBuf| fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    folders_below(&folder)
        .flat_map(|folder| {
            pids(folder).lines().filter_map(|line| line.trim().parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

fn folder_of(cgroups: &Path, unit: &str) -> Option<PathBuf> {
    if !is_unit(unit) || unit.contains('/') {
        return None;
    }
    let usual = cgroups.join("system.slice").join(unit);
    if usual.is_dir() {
        return Some(usual);
    }
    let mut homes = folders_below(cgroups).filter(|folder| folder.ends_with(unit));
    let first = homes.next()?;
    // A user's unit may be known in several slices: the one with processes is meant.
    Some(std::iter::once(first.clone()).chain(homes).find(|folder| is_populated(folder)).unwrap_or(first))
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
