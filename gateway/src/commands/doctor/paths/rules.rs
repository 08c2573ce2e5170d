//! What is wrong with a place. Pure.

use std::path::Path;

use service::doctor::{Finding, Verdict};

use super::{
    super::{account::Account, quoted},
    LockHolder, PathFacts, PathKind, PathsFacts, Rotation, STDERR_LOG,
};
use crate::{
    config::Config,
    store::fullness::{Fullness, disk_warning, human_size, required_free, usage},
    writable_paths::FileKind,
};

/// What a picture of the largest usual size takes.
const LARGEST_IMAGE: u64 = 16 << 20;
/// newsyslog keeps the log below a tenth of it.
const LARGE_LOG: u64 = 100 << 20;

/// What is wrong with them. `config` is there unless it is broken; `is_daemon` is whether launchd starts the gateway, and `job` the
/// process of it.
pub(in super::super) fn findings(
    places: &PathsFacts,
    config: Option<&Config>,
    is_daemon: bool,
    job: Option<u32>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(place) = &places.store {
        findings.push(store(place, places, job));
    }
    let makes_certificates = config.is_none_or(|config| config.local_ca_dir().is_some());
    if let Some(place) = &places.data {
        findings.push(data(place, places, makes_certificates));
    }
    findings.extend(log(places, is_daemon));
    findings.extend(disks(places));
    findings.extend(retention(places, config));
    findings
}

/// Why the account cannot use it, and the fix; or why that is not known.
fn unusable(name: &'static str, place: &PathFacts, places: &PathsFacts) -> Option<Finding> {
    let (path, account) = (quoted(&place.path.display().to_string()), &places.account);
    if let Some(finding) = unreachable(name, place, &path, account) {
        return Some(finding);
    }
    let owner = &account.name;
    let (what, make) = match place.kind {
        FileKind::Folder => ("folder", format!("sudo mkdir -p {path} && sudo chown {owner} {path}")),
        FileKind::File => ("file", format!("sudo touch {path} && sudo chown {owner} {path}")),
    };
    let is_right = match place.kind {
        FileKind::Folder => matches!(place.found, PathKind::Folder | PathKind::Nothing(_)),
        FileKind::File => !matches!(place.found, PathKind::Folder),
    };
    if !is_right {
        let fix = format!("sudo mv {path} {path}.moved && {make}");
        return Some(Finding::fail(name, format!("{path} is no {what}"), fix));
    }
    match place.writable {
        Some(true) => None,
        Some(false) => Some(Finding::fail(name, format!("{path}: {owner} cannot write there"), make)),
        None => {
            let message = format!("{path}: only {owner} and root can tell: {}", account.doctor_command());
            Some(Finding::skip(name, message))
        }
    }
}

/// What is in the way of looking at it at all.
fn unreachable(name: &'static str, place: &PathFacts, path: &str, account: &Account) -> Option<Finding> {
    let shown = |path: &Path| quoted(&path.display().to_string());
    let owner = &account.name;
    Some(match &place.found {
        PathKind::Folder | PathKind::File(_) | PathKind::Other | PathKind::Nothing(_) => return None,
        PathKind::Hidden(why) if account.is_checkable() => {
            let above = shown(place.path.parent().unwrap_or(&place.path));
            let message = format!("{path}: {owner} may not look there ({why})");
            Finding::fail(name, message, format!("sudo chown {owner} {above}"))
        }
        PathKind::Hidden(_) => {
            Finding::skip(name, format!("{path}: you may not look there; run: {}", account.doctor_command()))
        }
        PathKind::TimedOut => {
            let message = format!("{path}: its disk did not answer within 5 s");
            Finding::fail(name, message, "check that the disk is connected and mounted: mount; df")
        }
        PathKind::Dangling(target) => {
            let target = shown(target);
            let message = format!("{path} is a symbolic link to {target}, which does not exist");
            Finding::fail(name, message, format!("mount the disk with {target}, or name another place"))
        }
        PathKind::BlockedBy(above) => {
            let above = shown(above);
            Finding::fail(
                name,
                format!("{path}: {above} is no folder"),
                format!("sudo mv {above} {above}.moved"),
            )
        }
    })
}

fn store(place: &PathFacts, places: &PathsFacts, job: Option<u32>) -> Finding {
    let (name, path) = ("store", quoted(&place.path.display().to_string()));
    if let Some(LockHolder { process, program }) =
        places.holder.as_ref().filter(|holder| !holder.is_gateway(job))
    {
        return Finding::fail(
            name,
            format!("{path} is held by {program} (process {process}), and a store belongs to one gateway"),
            "stop that process, or give this gateway a UI_IMAGE_DIR of its own",
        );
    }
    if let Some(finding) = unusable(name, place, places) {
        return finding;
    }
    match place.disk {
        Some(disk) if disk.free < required_free(disk.total, LARGEST_IMAGE) => Finding::fail(
            name,
            format!(
                "{path}: {} are free on its disk; pictures are refused below {}",
                human_size(disk.free),
                human_size(required_free(disk.total, 0))
            ),
            "remove something, or bound the store: UI_IMAGE_STORE_MAX_BYTES=20GiB in the env file",
        ),
        Some(disk) => Finding::ok(
            name,
            format!("{path}: {} can write, {} are free", places.account.name, human_size(disk.free)),
        ),
        None => Finding::ok(name, format!("{path}: {} can write", places.account.name)),
    }
}

fn data(place: &PathFacts, places: &PathsFacts, is_needed: bool) -> Finding {
    let (name, path) = ("data_dir", quoted(&place.path.display().to_string()));
    match unusable(name, place, places) {
        // The lists of models are kept there as well, and it does without.
        Some(finding) if !is_needed && finding.verdict == Verdict::Fail => {
            Finding { verdict: Verdict::Warn, ..finding }
        }
        Some(finding) => finding,
        None => Finding::ok(name, format!("{path}: {} can write", places.account.name)),
    }
}

fn log(places: &PathsFacts, is_daemon: bool) -> Vec<Finding> {
    let name = "log";
    let rule = places.rotation.as_ref();
    let Some(place) = &places.log else {
        return match (is_daemon, places.stderr) {
            (true, bytes) => vec![Finding::warn(
                name,
                format!(
                    "the log goes to {STDERR_LOG} ({}), which nobody rotates",
                    human_size(bytes.unwrap_or(0))
                ),
                "GATEWAY_LOG_FILE=/var/lib/gateway/logs/gateway.log in the env file, then: sudo launchctl kill SIGTERM \
                 system/com.ai.gateway",
            )],
            (false, _) => vec![Finding::ok(name, "the log goes to standard error")],
        };
    };
    let path = place.path.display().to_string();
    let mut findings = vec![unusable(name, place, places).unwrap_or_else(|| match place.found {
        PathKind::File(bytes) if bytes > LARGE_LOG => Finding::warn(
            name,
            format!("{} has {}: nobody rotates it", quoted(&path), human_size(bytes)),
            "rotate it by its path (newsyslog, logrotate): the gateway begins it anew by itself",
        ),
        _ => Finding::ok(name, format!("{}: {} can write", quoted(&path), places.account.name)),
    })];
    if is_daemon {
        findings.extend(rule.map(|rule| rotation(rule, &path)));
    }
    findings
}

fn rotation(rotation: &Rotation, path: &str) -> Finding {
    let name = "log_rotation";
    let is_ours =
        |rule: &&String| rule.rsplit('/').next() == path.rsplit('/').next() && rule.contains("gateway");
    if rotation.rules.iter().any(|rule| rule == path) {
        return Finding::ok(name, format!("newsyslog rotates {}", quoted(path)));
    }
    if rotation.unread {
        return Finding::skip(name, "newsyslog's configuration cannot be read here: sudo gateway doctor");
    }
    let fix = "sudo cp com.ai.gateway.newsyslog.conf /etc/newsyslog.d/com.ai.gateway.conf (from the package), with this path in it";
    match rotation.rules.iter().find(is_ours) {
        Some(other) => Finding::warn(
            name,
            format!("newsyslog rotates {} and not the log, {}", quoted(other), quoted(path)),
            fix,
        ),
        None => Finding::warn(
            name,
            format!("no rule of newsyslog names {}: the log grows for ever", quoted(path)),
            fix,
        ),
    }
}

/// A line for each disk that is nearly full; the store's own shortage is reported with the store.
fn disks(places: &PathsFacts) -> Vec<Finding> {
    let named = [("the pictures", &places.store), ("the data", &places.data), ("the log", &places.log)];
    let mut seen = Vec::new();
    let mut findings = Vec::new();
    for (what, place) in named.into_iter().filter_map(|(what, place)| Some((what, place.as_ref()?))) {
        let Some((disk, device)) = place.disk.zip(place.device) else { continue };
        if seen.contains(&device) {
            continue;
        }
        seen.push(device);
        let (taken, all) = usage(disk);
        let is_told = what == "the pictures" && disk.free < required_free(disk.total, LARGEST_IMAGE);
        if !is_told && Fullness::default().update(taken, all) {
            let message = disk_warning(disk, &[what]);
            let (message, fix) = message.split_once(": ").unwrap_or((&message, "remove something"));
            findings.push(Finding::warn("disk", message, fix));
        }
    }
    findings
}

/// A bound that the disk cannot hold deletes nothing before the disk is full.
fn retention(places: &PathsFacts, config: Option<&Config>) -> Option<Finding> {
    let bound = config?.retention.max_bytes?;
    let disk = places.store.as_ref()?.disk?;
    (bound > disk.total).then(|| {
        Finding::warn(
            "retention",
            format!(
                "UI_IMAGE_STORE_MAX_BYTES is {}, more than the disk's {}: the disk is full before it deletes anything",
                human_size(bound),
                human_size(disk.total)
            ),
            "a lower UI_IMAGE_STORE_MAX_BYTES in the env file",
        )
    })
}

#[cfg(test)]
mod tests;
