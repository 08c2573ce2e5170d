//! The token and other secrets: can the service read them, and can nobody else.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use service::{doctor::Finding, settings::YamlFile};

use super::{
    configuration::{Setup, credential_file, readable_by},
    text::drop_in,
};
use crate::config::KEYS;

const NAME: &str = "token";
const OPEN_TO_ALL: u32 = 0o004;

/// What is judged.
#[derive(Default)]
pub(super) struct Facts {
    /// A token is in force.
    set: bool,
    /// The file of a credential of the unit, if it is not there.
    credential_missing: Option<PathBuf>,
    /// The configuration names a file that the service's own user may not read.
    closed: Option<PathBuf>,
    /// Files with a secret in them that every user of this host may read.
    open: Vec<PathBuf>,
}

impl Facts {
    pub(super) fn look(setup: &Setup) -> Self {
        let service = setup.units.as_ref().map(|units| &units.service).filter(|service| service.is_loaded());
        let credential = service.and_then(credential_file);
        let file = &setup.fixes.file;
        let text = fs::read_to_string(file).unwrap_or_default();
        let (yaml, _) = YamlFile::read_sound(file, &text, KEYS);
        let value = |name: &str| {
            let key = KEYS.iter().find(|key| key.name == name)?;
            yaml.get(key).map(|(value, _)| value)
        };
        let named =
            value("token_file").map(|path| PathBuf::from(path.trim())).filter(|path| path.is_absolute());
        let mut secrets: Vec<PathBuf> = value("token").map(|_| file.clone()).into_iter().collect();
        if setup.environment.variables.contains_key("ADA2_TOKEN") {
            secrets.extend(setup.environment.files.iter().cloned());
        }
        secrets.extend(named.iter().chain(&credential).cloned());
        secrets.sort();
        secrets.dedup();
        Self {
            set: setup.config().is_some_and(|config| config.edge.token.is_some()) || credential.is_some(),
            credential_missing: credential.filter(|file| setup.root && !file.exists()),
            closed: named
                .filter(|file| service.is_some_and(|service| file.exists() && !readable_by(service, file))),
            open: secrets.into_iter().filter(|file| is_open(file)).collect(),
        }
    }

    /// Whether the next start fails of it.
    pub(super) fn stops_the_service(&self) -> bool {
        self.credential_missing.is_some() || self.closed.is_some()
    }

    /// Nothing where no token is set.
    pub(super) fn judge(&self) -> Vec<Finding> {
        if let Some(file) = &self.credential_missing {
            let message = format!(
                "LoadCredential=token:{} is not there, so the service does not start",
                file.display()
            );
            let fix = format!(
                "openssl rand -hex 24 | sudo tee {0} && sudo chmod 600 {0}, then sudo systemctl restart ada2-sidecar",
                file.display()
            );
            return vec![Finding::fail(NAME, message, fix)];
        }
        if let Some(file) = &self.closed {
            let message = format!("token_file {} cannot be read by the service's own user", file.display());
            let line = format!("LoadCredential=token:{}", file.display());
            return vec![Finding::fail(
                NAME,
                message,
                format!("take token_file out of the configuration; {}", drop_in("ada2-sidecar", &line)),
            )];
        }
        let open = |file: &PathBuf| {
            let message = format!("every user of this host can read the token in {}", file.display());
            Finding::warn(NAME, message, shut(file))
        };
        if !self.open.is_empty() {
            return self.open.iter().map(open).collect();
        }
        if self.set {
            vec![Finding::ok(NAME, "set, and closed to other users of this host")]
        } else {
            Vec::new()
        }
    }
}

/// What the service's own user must be able to read cannot just be closed.
fn shut(file: &Path) -> String {
    if file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
        let line = "LoadCredential=token:/etc/ada2-sidecar/token";
        return format!(
            "move it into /etc/ada2-sidecar/token (chmod 600) and take token out of {}; {}",
            file.display(),
            drop_in("ada2-sidecar", line)
        );
    }
    format!("sudo chmod 600 {}", file.display())
}

fn is_open(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & OPEN_TO_ALL != 0)
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    #[test]
    fn a_secret_is_there_readable_for_the_service_and_for_nobody_else() {
        let path = |text: &str| PathBuf::from(text);
        for (facts, verdict, fix) in [
            (Facts::default(), None, ""),
            (Facts { set: true, ..Facts::default() }, Some(Verdict::Ok), ""),
            (
                Facts { set: true, credential_missing: Some(path("/etc/t")), ..Facts::default() },
                Some(Verdict::Fail),
                "sudo tee /etc/t",
            ),
            (
                Facts { set: true, closed: Some(path("/etc/t")), ..Facts::default() },
                Some(Verdict::Fail),
                "LoadCredential=token:/etc/t",
            ),
            (
                Facts { set: true, open: vec![path("/etc/ada2-sidecar/env")], ..Facts::default() },
                Some(Verdict::Warn),
                "sudo chmod 600 /etc/ada2-sidecar/env",
            ),
            (
                Facts { set: true, open: vec![path("/etc/c.yaml")], ..Facts::default() },
                Some(Verdict::Warn),
                "LoadCredential=token:",
            ),
        ] {
            let found = facts.judge();
            assert_eq!(found.first().map(|one| one.verdict), verdict);
            let told = found.first().and_then(|one| one.fix.clone()).unwrap_or_default();
            assert!(told.contains(fix), "{told}");
        }
    }

    #[test]
    fn who_may_read_a_file_is_told_by_its_mode() {
        let file = std::env::temp_dir().join(format!("ada2-secret-{}", uuid::Uuid::new_v4()));
        fs::write(&file, "x").unwrap();
        for (mode, open) in [(0o644, true), (0o640, false), (0o600, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open(&file), open, "{mode:o}");
        }
        fs::remove_file(file).unwrap();
    }
}
