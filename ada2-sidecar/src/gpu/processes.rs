//! The name of a process, and its systemd unit, from `/proc` and `/sys/fs/cgroup`. Nothing here waits for the process: reading
//! `cmdline` would (and hang with a process that hangs in the driver), reading `comm` and `cgroup` does not.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use super::{GpuProcess, GpuProcessType};

/// As `nvidia-smi` writes a process that does not exist (any more, or in our PID namespace).
const NOT_FOUND: &str = "[Not Found]";
/// `systemd/user.slice/user-1000.slice/user@1000.service/app.slice/engine.service` is six deep.
const MAX_DEPTH: usize = 6;
/// From a process to the engine that started it, through shells and wrappers.
const MAX_ANCESTORS: usize = 16;
/// Hosts with very many containers must not take seconds.
const MAX_VISITED: usize = 4096;

/// As the driver lists a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessUsage {
    pub(super) pid: u32,
    pub(super) used: Option<u64>,
    pub(super) process_type: GpuProcessType,
}

/// Describes every process once; `proc` is `/proc`.
pub(super) fn describe(usages: &[ProcessUsage], proc: &Path, engine_unit: &str) -> Vec<GpuProcess> {
    let describe = |ProcessUsage { pid, used, process_type }| {
        let dir = proc.join(pid.to_string());
        GpuProcess { pid, name: name(&dir), unit: unit_of(pid, proc, engine_unit), process_type, used }
    };
    merge_by_pid(usages).into_iter().map(describe).collect()
}

/// A process that computes and draws is in both lists, with the same usage or without one.
fn merge_by_pid(usages: &[ProcessUsage]) -> Vec<ProcessUsage> {
    let mut by_pid: BTreeMap<u32, ProcessUsage> = BTreeMap::new();
    for usage in usages {
        let entry = by_pid.entry(usage.pid).or_insert(*usage);
        entry.used = usage.used.max(entry.used);
        if entry.process_type != usage.process_type {
            entry.process_type = GpuProcessType::Both;
        }
    }
    by_pid.into_values().collect()
}

/// The unit of a process. The engine's descendants count as the engine's, wherever they were moved to.
fn unit_of(pid: u32, proc: &Path, engine_unit: &str) -> Option<String> {
    let unit = unit_in(&cgroup(pid, proc), engine_unit);
    if unit.as_deref() == Some(engine_unit) {
        return unit;
    }
    let started_by_engine = std::iter::successors(parent(pid, proc), |pid| parent(*pid, proc))
        .take(MAX_ANCESTORS)
        .any(|ancestor| unit_in(&cgroup(ancestor, proc), engine_unit).as_deref() == Some(engine_unit));
    if started_by_engine { Some(engine_unit.to_owned()) } else { unit }
}

fn cgroup(pid: u32, proc: &Path) -> String {
    fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).unwrap_or_default()
}

/// The second field after the name, which is in parentheses and may contain any character. 0: no parent.
fn parent(pid: u32, proc: &Path) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent > 1)
}

/// Removes control characters: a process's owner chooses its name, which appears in logs and terminals.
fn name(dir: &Path) -> String {
    let comm = fs::read(dir.join("comm")).unwrap_or_default();
    let name: String =
        String::from_utf8_lossy(&comm).chars().filter(|character| !character.is_control()).collect();
    if name.is_empty() { NOT_FOUND.to_owned() } else { name }
}

/// The name of a process.
pub(crate) fn name_of(pid: u32, proc: &Path) -> String {
    name(&proc.join(pid.to_string()))
}

/// The innermost unit that a process is in.
pub(crate) fn innermost_unit_of(pid: u32, proc: &Path) -> Option<String> {
    unit_in(&cgroup(pid, proc), "")
}

/// The unit named by `/proc/<pid>/cgroup`, whose lines are `hierarchy:controllers:path`.
///
/// The engine's unit counts anywhere in the path, because what it starts below itself (a container, a scope) belongs to the
/// engine; otherwise the innermost unit counts.
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
        // Without systemd as cgroup driver, a container has a bare id below its runtime's name.
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
    unit_dir(cgroups, unit).is_some_and(|dir| is_populated(&dir))
}

/// The unit's processes, those in groups below its own included; `cgroups` is `/sys/fs/cgroup`.
pub(crate) fn pids_of_unit(cgroups: &Path, unit: &str) -> Vec<u32> {
    let Some(dir) = unit_dir(cgroups, unit) else { return Vec::new() };
    let pids = |dir: PathBuf| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    dirs_below(&dir)
        .flat_map(|dir| pids(dir).lines().filter_map(|line| line.trim().parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn unit_dir(cgroups: &Path, unit: &str) -> Option<PathBuf> {
    if !is_unit(unit) || unit.contains('/') {
        return None;
    }
    let system_dir = cgroups.join("system.slice").join(unit);
    if system_dir.is_dir() {
        return Some(system_dir);
    }
    let mut matches = dirs_below(cgroups).filter(|dir| dir.ends_with(unit));
    let first_match = matches.next()?;
    // A user's unit may exist in several slices: the one with processes counts.
    Some(
        std::iter::once(first_match.clone())
            .chain(matches)
            .find(|dir| is_populated(dir))
            .unwrap_or(first_match),
    )
}

/// A unit's processes may be in groups below its own, with its `cgroup.procs` empty; `cgroup.events` counts those too, but
/// exists only in version 2.
fn is_populated(dir: &Path) -> bool {
    let lines = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    lines("cgroup.events").lines().any(|line| line == "populated 1")
        || !lines("cgroup.procs").trim().is_empty()
}

/// Breadth first.
fn dirs_below(root: &Path) -> impl Iterator<Item = PathBuf> {
    let mut queue = VecDeque::from([(root.to_owned(), 0)]);
    std::iter::from_fn(move || {
        let (dir, depth) = queue.pop_front()?;
        if depth < MAX_DEPTH {
            queue.extend(dirs_in(&dir).map(|child| (child, depth + 1)));
        }
        Some(dir)
    })
    .take(MAX_VISITED)
}

fn dirs_in(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

#[cfg(test)]
mod tests;
