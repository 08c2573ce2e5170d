//! Files with secrets: whether other users can read them, and whether the gateway can.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use service::{doctor::Finding, files::user_name};

use super::super::{account::Account, quoted, tools::SystemTools};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct SecretFile {
    /// The setting that names it.
    setting: &'static str,
    path: PathBuf,
    owner: String,
    mode: u32,
    /// Whether everybody may enter all parent directories.
    is_reachable: bool,
    /// Whether the gateway's account can read it, if known.
    is_readable: Option<bool>,
}

/// Missing files are a problem of the configuration.
pub(in super::super) async fn inspect_secret_files(
    files: Vec<(&'static str, PathBuf)>,
    tools: &SystemTools,
    account: &Account,
) -> Vec<SecretFile> {
    let mut secret_files: Vec<SecretFile> = Vec::new();
    for (setting, path) in files {
        let Ok(path) = std::path::absolute(&path) else { continue };
        let Ok(metadata) = fs::metadata(&path) else { continue };
        // A pipe or a device stores nothing that others could read later.
        if !metadata.is_file() || secret_files.iter().any(|file| file.path == path) {
            continue;
        }
        let is_open = |dir: &Path| fs::metadata(dir).is_ok_and(|dir| dir.mode() & 0o001 != 0);
        secret_files.push(SecretFile {
            setting,
            owner: user_name(metadata.uid()),
            mode: metadata.mode() & 0o7777,
            is_reachable: path.ancestors().skip(1).all(is_open),
            is_readable: account.has_access(tools, "-r", &path).await,
            path,
        });
    }
    secret_files
}

pub(in super::super) fn secret_files(files: &[SecretFile], account: &Account) -> Vec<Finding> {
    let name = "secret_files";
    let mut findings: Vec<_> = files.iter().filter_map(|file| secret_file_finding(file, account)).collect();
    if findings.is_empty() && !files.is_empty() {
        let files: Vec<_> = files.iter().map(|file| quoted(&file.path)).collect();
        findings.push(Finding::ok(name, format!("{}: not readable by other users", files.join(", "))));
    }
    findings
}

fn secret_file_finding(file: &SecretFile, account: &Account) -> Option<Finding> {
    let (name, path) = ("secret_files", quoted(&file.path));
    if file.is_readable == Some(false) {
        return Some(Finding::fail(
            name,
            format!("{path} ({}): {} cannot read it", file.setting, account.name),
            format!("sudo chown {} {path} && sudo chmod 600 {path}", account.name),
        ));
    }
    if !file.is_reachable {
        return None;
    }
    let message = |access: &str| {
        let (setting, mode) = (file.setting, file.mode);
        format!("{path} ({setting}) can be {access} by everybody on this machine (mode {mode:o})")
    };
    if file.mode & 0o002 != 0 {
        return Some(Finding::warn(name, message("written"), format!("sudo chmod 600 {path}")));
    }
    (file.mode & 0o004 != 0).then(|| {
        // An account that is neither the owner nor root may depend on this bit.
        let chown = if file.owner == account.name {
            String::new()
        } else {
            format!("sudo chown {} {path} && ", account.name)
        };
        Finding::warn(name, message("read"), format!("{chown}sudo chmod 600 {path}"))
    })
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict::{Fail, Ok, Warn};

    use super::*;

    #[test]
    fn a_secret_that_everybody_can_read_is_reported_unless_a_directory_protects_it() {
        let account = Account::find(Some("_gateway"), &[], std::path::Path::new("/app/.env"));
        for (mode, owner, is_reachable, is_readable, verdict, fix) in [
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
                is_reachable,
                is_readable,
            };
            let found = secret_files(&[file], &account);
            assert_eq!((found.len(), found[0].verdict), (1, verdict), "{found:?}");
            assert_eq!(found[0].fix.as_deref().unwrap_or_default(), fix);
        }
        assert!(secret_files(&[], &account).is_empty());
    }
}
