//! Findings about the paths that the gateway writes to. Pure.

use std::path::Path;

use service::{
    doctor::{Finding, Verdict},
    files::DiskSpace,
};

use super::{
    super::{
        account::Account,
        launchd::{RESTART, STDERR_LOG},
        quoted,
    },
    LockHolder, PathFacts, PathState, PathsFacts, Rotation,
};
use crate::{
    config::Config,
    store::fullness::{Fullness, disk_warning, human_size, required_free, usage},
    writable_paths::FileKind,
};

/// An image of the largest usual size.
const LARGEST_IMAGE: u64 = 16 << 20;
/// Ten times what newsyslog allows.
const LARGE_LOG: u64 = 100 << 20;

/// `config` is none if it is broken; `is_daemon` is whether launchd starts the gateway, and `job` the process of its job.
pub(in super::super) fn findings(
    facts: &PathsFacts,
    config: Option<&Config>,
    is_daemon: bool,
    job: Option<u32>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(path) = &facts.store {
        findings.push(store(path, facts, job));
    }
    let issues_certificates = config.is_none_or(|config| config.local_ca_dir().is_some());
    if let Some(path) = &facts.data {
        findings.push(data(path, facts, issues_certificates));
    }
    findings.extend(log(facts, is_daemon));
    findings.extend(disks(facts));
    findings.extend(retention(facts, config));
    findings
}

/// Why the account cannot use a path, or why that is unknown.
fn access_problem(name: &'static str, path: &PathFacts, account: &Account) -> Option<Finding> {
    if let Some(finding) = inspection_problem(name, path, account) {
        return Some(finding);
    }
    let (quoted_path, owner) = (quoted(&path.path), &account.name);
    let (kind, create) = match path.kind {
        FileKind::Directory => ("directory", format!("sudo mkdir -p {quoted_path}")),
        FileKind::File => ("file", format!("sudo touch {quoted_path}")),
    };
    let create = format!("{create} && sudo chown {owner} {quoted_path}");
    let has_right_kind = match path.kind {
        FileKind::Directory => matches!(path.state, PathState::Dir | PathState::Missing(_)),
        FileKind::File => !matches!(path.state, PathState::Dir),
    };
    if !has_right_kind {
        let fix = format!("sudo mv {quoted_path} {quoted_path}.moved && {create}");
        return Some(Finding::fail(name, format!("{quoted_path} is not a {kind}"), fix));
    }
    match path.is_writable {
        Some(true) => None,
        Some(false) => {
            Some(Finding::fail(name, format!("{quoted_path}: {owner} cannot write there"), create))
        }
        None => {
            let command = account.doctor_command();
            Some(Finding::skip(name, format!("{quoted_path}: only {owner} and root can check it: {command}")))
        }
    }
}

/// Why a path cannot be inspected at all.
fn inspection_problem(name: &'static str, path: &PathFacts, account: &Account) -> Option<Finding> {
    let (quoted_path, owner) = (quoted(&path.path), &account.name);
    Some(match &path.state {
        PathState::Dir | PathState::File(_) | PathState::Other | PathState::Missing(_) => return None,
        PathState::Hidden(why) if account.is_checkable() => {
            let parent = quoted(path.path.parent().unwrap_or(&path.path));
            let message = format!("{quoted_path}: {owner} has no access ({why})");
            Finding::fail(name, message, format!("sudo chown {owner} {parent}"))
        }
        PathState::Hidden(_) => {
            let command = account.doctor_command();
            Finding::skip(name, format!("{quoted_path}: you have no access; run: {command}"))
        }
        PathState::TimedOut => {
            let message = format!("{quoted_path}: its disk did not answer within 5 s");
            Finding::fail(name, message, "check that the disk is connected and mounted: mount; df")
        }
        PathState::Dangling(target) => {
            let target = quoted(target);
            let message = format!("{quoted_path} is a symbolic link to {target}, which does not exist");
            Finding::fail(name, message, format!("mount the disk with {target}, or configure another path"))
        }
        PathState::BlockedBy(parent) => {
            let parent = quoted(parent);
            let message = format!("{quoted_path}: {parent} is not a directory");
            Finding::fail(name, message, format!("sudo mv {parent} {parent}.moved"))
        }
    })
}

fn store(path: &PathFacts, facts: &PathsFacts, job: Option<u32>) -> Finding {
    let (name, quoted_path, owner) = ("store", quoted(&path.path), &facts.account.name);
    if let Some(LockHolder { process, program }) =
        facts.holder.as_ref().filter(|holder| !holder.is_gateway(job))
    {
        let message = format!(
            "{quoted_path} is held by {program} (process {process}), and a store belongs to one gateway"
        );
        return Finding::fail(name, message, "stop that process, or give this gateway its own UI_IMAGE_DIR");
    }
    if let Some(finding) = access_problem(name, path, &facts.account) {
        return finding;
    }
    match path.disk {
        Some(disk) if lacks_space(disk) => Finding::fail(
            name,
            format!(
                "{quoted_path}: {} are free on its disk; images are refused below {}",
                human_size(disk.free),
                human_size(required_free(disk.total, 0))
            ),
            "free some space, or limit the store: UI_IMAGE_STORE_MAX_BYTES=20GiB in the env file",
        ),
        Some(disk) => {
            Finding::ok(name, format!("{quoted_path}: {owner} can write, {} are free", human_size(disk.free)))
        }
        None => Finding::ok(name, format!("{quoted_path}: {owner} can write")),
    }
}

fn lacks_space(disk: DiskSpace) -> bool {
    disk.free < required_free(disk.total, LARGEST_IMAGE)
}

fn data(path: &PathFacts, facts: &PathsFacts, is_required: bool) -> Finding {
    let name = "data_dir";
    match access_problem(name, path, &facts.account) {
        // Otherwise it holds only the cached lists of models.
        Some(finding) if !is_required && finding.verdict == Verdict::Fail => {
            Finding { verdict: Verdict::Warn, ..finding }
        }
        Some(finding) => finding,
        None => Finding::ok(name, format!("{}: {} can write", quoted(&path.path), facts.account.name)),
    }
}

fn log(facts: &PathsFacts, is_daemon: bool) -> Vec<Finding> {
    let name = "log";
    let Some(path) = &facts.log else {
        let size = human_size(facts.stderr_size.unwrap_or(0));
        return vec![if is_daemon {
            Finding::warn(
                name,
                format!("the log goes to {STDERR_LOG} ({size}), which is never rotated"),
                format!(
                    "GATEWAY_LOG_FILE=/var/lib/gateway/logs/gateway.log in the env file, then: {RESTART}"
                ),
            )
        } else {
            Finding::ok(name, "the log goes to standard error")
        }];
    };
    let quoted_path = quoted(&path.path);
    let mut findings = vec![access_problem(name, path, &facts.account).unwrap_or_else(|| match path.state {
        PathState::File(size) if size > LARGE_LOG => Finding::warn(
            name,
            format!("{quoted_path} has {}: it is not rotated", human_size(size)),
            "rotate it by renaming (newsyslog, logrotate): the gateway then reopens it",
        ),
        _ => Finding::ok(name, format!("{quoted_path}: {} can write", facts.account.name)),
    })];
    if is_daemon {
        findings.extend(facts.rotation.as_ref().map(|rules| rotation(rules, &path.path)));
    }
    findings
}

fn rotation(rotation: &Rotation, log: &Path) -> Finding {
    let (name, quoted_log) = ("log_rotation", quoted(log));
    let is_gateway_log =
        |path: &&Path| path.file_name() == log.file_name() && path.to_string_lossy().contains("gateway");
    let mut paths = rotation.paths.iter().map(Path::new);
    if paths.clone().any(|path| path == log) {
        return Finding::ok(name, format!("newsyslog rotates {quoted_log}"));
    }
    if rotation.is_incomplete {
        return Finding::skip(name, "newsyslog's configuration cannot be read here: sudo gateway doctor");
    }
    let message = match paths.find(is_gateway_log) {
        Some(other) => format!("newsyslog rotates {}, not the log, {quoted_log}", quoted(other)),
        None => format!("newsyslog has no rule for {quoted_log}: the log grows forever"),
    };
    let fix = "sudo cp com.ai.gateway.newsyslog.conf /etc/newsyslog.d/com.ai.gateway.conf (from the package), with this path in it";
    Finding::warn(name, message, fix)
}

/// A finding for each disk that is nearly full; the store's own shortage is reported with the store.
fn disks(facts: &PathsFacts) -> Vec<Finding> {
    let paths = [("the images", &facts.store), ("the data", &facts.data), ("the log", &facts.log)];
    let mut devices = Vec::new();
    let mut findings = Vec::new();
    for (contents, path) in paths.into_iter().filter_map(|(contents, path)| Some((contents, path.as_ref()?)))
    {
        let Some((disk, device)) = path.disk.zip(path.device) else { continue };
        if devices.contains(&device) {
            continue;
        }
        devices.push(device);
        let (used, capacity) = usage(disk);
        let is_reported = contents == "the images" && lacks_space(disk);
        if !is_reported && Fullness::default().update(used, capacity) {
            let message = disk_warning(disk, &[contents]);
            let (message, fix) = message.split_once(": ").unwrap_or((&message, "free some space"));
            findings.push(Finding::warn("disk", message, fix));
        }
    }
    findings
}

/// A limit above the disk's size deletes nothing before the disk is full.
fn retention(facts: &PathsFacts, config: Option<&Config>) -> Option<Finding> {
    let limit = config?.retention.max_bytes?;
    let disk = facts.store.as_ref()?.disk?;
    (limit > disk.total).then(|| {
        Finding::warn(
            "retention",
            format!(
                "UI_IMAGE_STORE_MAX_BYTES is {}, more than the disk's {}: the disk is full before anything is deleted",
                human_size(limit),
                human_size(disk.total)
            ),
            "a lower UI_IMAGE_STORE_MAX_BYTES in the env file",
        )
    })
}

#[cfg(test)]
mod tests;
