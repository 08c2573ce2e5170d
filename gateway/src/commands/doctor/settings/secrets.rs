//! Files that hold secrets: who else can read them, and whether the gateway can.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use service::{doctor::Finding, files::user_name};

use super::super::{account::Account, quoted, tools::SystemTools};

/// What others may do with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct SecretFile {
    /// The setting that names it.
    setting: &'static str,
    path: PathBuf,
    owner: String,
    mode: u32,
    /// Whether every folder above can be passed by everybody.
    is_reachable: bool,
    /// Whether the gateway's account can read it, if known.
    readable: Option<bool>,
}

/// Looks at them. Those that are not there are the configuration's problem.
pub(in super::super) async fn inspect_secret_files(
    files: Vec<(&'static str, PathBuf)>,
    tools: &SystemTools,
    account: &Account,
) -> Vec<SecretFile> {
    let mut seen = Vec::new();
    for (setting, path) in files {
        let Ok(path) = std::path::absolute(&path) else { continue };
        let Ok(found) = fs::metadata(&path) else { continue };
        // A pipe or a device holds nothing that others could read later.
        if !found.is_file() || seen.iter().any(|known: &SecretFile| known.path == path) {
            continue;
        }
        let readable = account.has_access(tools, "-r", &path).await;
        let is_reached = path
            .ancestors()
            .skip(1)
            .all(|above| fs::metadata(above).is_ok_and(|above| above.mode() & 0o001 != 0));
        seen.push(SecretFile {
            setting,
            owner: user_name(found.uid()),
            mode: found.mode() & 0o7777,
            is_reachable: is_reached,
            readable,
            path,
        });
    }
    seen
}

/// What is wrong with them.
pub(in super::super) fn secret_files(files: &[SecretFile], account: &Account) -> Vec<Finding> {
    let name = "secret_files";
    let mut findings: Vec<_> = files.iter().filter_map(|file| secret_file_finding(file, account)).collect();
    if findings.is_empty() && !files.is_empty() {
        let files: Vec<_> = files.iter().map(|file| shown(&file.path)).collect();
        findings.push(Finding::ok(name, format!("{}: not readable by other users", files.join(", "))));
    }
    findings
}

fn secret_file_finding(file: &SecretFile, account: &Account) -> Option<Finding> {
    let (name, path) = ("secret_files", shown(&file.path));
    if file.readable == Some(false) {
        return Some(Finding::fail(
            name,
            format!("{path} ({}): {} cannot read it", file.setting, account.name),
            format!("sudo chown {} {path} && sudo chmod 600 {path}", account.name),
        ));
    }
    if file.mode & 0o002 != 0 && file.is_reachable {
        let message = format!(
            "{path} ({}) can be written by everybody on this machine (mode {:o})",
            file.setting, file.mode
        );
        return Some(Finding::warn(name, message, format!("sudo chmod 600 {path}")));
    }
    if file.mode & 0o004 != 0 && file.is_reachable {
        let message = format!(
            "{path} ({}) can be read by everybody on this machine (mode {:o})",
            file.setting, file.mode
        );
        // Who is neither the owner nor root reads it by this bit, perhaps.
        let owner = if file.owner == account.name {
            String::new()
        } else {
            format!("sudo chown {} {path} && ", account.name)
        };
        return Some(Finding::warn(name, message, format!("{owner}sudo chmod 600 {path}")));
    }
    None
}

fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict::{Fail, Ok, Warn};

    use super::*;

    #[test]
    fn a_secret_that_everybody_can_read_is_told_and_one_behind_a_closed_folder_is_not() {
        let account = Account::find(Some("_gateway"), &[], std::path::Path::new("/app/.env"));
        for (mode, owner, is_reached, readable, verdict, fix) in [
            (0o600, "_gateway", true, Some(true), Ok, ""),
            (0o640, "root", true, None, Ok, ""),
            (0o644, "_gateway", false, Some(true), Ok, ""),
            (0o644, "_gateway", true, Some(true), Warn, "sudo chmod 600 /env"),
            (0o644, "root", true, Some(true), Warn, "sudo chown _gateway /env && sudo chmod 600 /env"),
            (0o666, "_gateway", true, Some(true), Warn, "sudo chmod 600 /env"),
            (0o600, "root", true, Some(false), Fail, "sudo chown _gateway /env && sudo chmod 600 /env"),
        ] {
            let path = PathBuf::from("/env");
            let file = SecretFile {
                setting: "env file",
                path,
                owner: owner.to_owned(),
                mode,
                is_reachable: is_reached,
                readable,
            };
            let found = secret_files(&[file], &account);
            assert_eq!((found.len(), found[0].verdict), (1, verdict), "{found:?}");
            assert_eq!(found[0].fix.as_deref().unwrap_or_default(), fix);
        }
        assert!(secret_files(&[], &account).is_empty());
    }
}
