//! The token and other secrets: can the service read them, and can nobody else.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use service::{doctor::Finding, settings::YamlFile};

use super::{
    configuration::{DoctorContext, readable_by},
    fixes::drop_in_fix,
};
use crate::{commands::systemd::SystemdUnit, config::KEYS};

const NAME: &str = "token";
const WORLD_READABLE: u32 = 0o004;

/// What is judged.
#[derive(Default)]
pub(super) struct TokenFacts {
    /// A token is in force.
    is_set: bool,
    /// The file of a credential of the unit, if it is not there.
    credential_missing: Option<PathBuf>,
    /// The configuration names a file that the service's own user may not read.
    unreadable_file: Option<PathBuf>,
    /// Files with a secret in them that every user of this host may read.
    world_readable: Vec<PathBuf>,
}

impl TokenFacts {
    pub(super) fn gather(setup: &DoctorContext) -> Self {
        let service = setup.units.as_ref().map(|units| &units.service).filter(|service| service.is_loaded());
        let credential = service.and_then(SystemdUnit::token_credential);
        let file = &setup.fixes.file;
        let text = fs::read_to_string(file).unwrap_or_default();
        let (yaml, _) = YamlFile::parse_lenient(file, &text, KEYS);
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
            is_set: setup.config().is_some_and(|config| config.access.token.is_some())
                || credential.is_some(),
            credential_missing: credential.filter(|file| setup.root && !file.exists()),
            unreadable_file: named
                .filter(|file| service.is_some_and(|service| file.exists() && !readable_by(service, file))),
            world_readable: secrets.into_iter().filter(|file| is_world_readable(file)).collect(),
        }
    }

    /// Whether the next start fails of it.
    pub(super) fn prevents_start(&self) -> bool {
        self.credential_missing.is_some() || self.unreadable_file.is_some()
    }

    /// Nothing where no token is set.
    pub(super) fn evaluate(&self) -> Vec<Finding> {
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
        if let Some(file) = &self.unreadable_file {
            let message = format!("token_file {} cannot be read by the service's own user", file.display());
            let line = format!("LoadCredential=token:{}", file.display());
            return vec![Finding::fail(
                NAME,
                message,
                format!("take token_file out of the configuration; {}", drop_in_fix("ada2-sidecar", &line)),
            )];
        }
        let open = |file: &PathBuf| {
            let message = format!("every user of this host can read the token in {}", file.display());
            Finding::warn(NAME, message, restrict_fix(file))
        };
        if !self.world_readable.is_empty() {
            return self.world_readable.iter().map(open).collect();
        }
        if self.is_set {
            vec![Finding::ok(NAME, "set, and closed to other users of this host")]
        } else {
            Vec::new()
        }
    }
}

/// What the service's own user must be able to read cannot just be closed.
fn restrict_fix(file: &Path) -> String {
    if file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
        let line = "LoadCredential=token:/etc/ada2-sidecar/token";
        return format!(
            "move it into /etc/ada2-sidecar/token (chmod 600) and take token out of {}; {}",
            file.display(),
            drop_in_fix("ada2-sidecar", line)
        );
    }
    format!("sudo chmod 600 {}", file.display())
}

fn is_world_readable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & WORLD_READABLE != 0)
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    #[test]
    fn a_secret_is_there_readable_for_the_service_and_for_nobody_else() {
        let path = |text: &str| PathBuf::from(text);
        for (facts, verdict, fix) in [
            (TokenFacts::default(), None, ""),
            (TokenFacts { is_set: true, ..TokenFacts::default() }, Some(Verdict::Ok), ""),
            (
                TokenFacts {
                    is_set: true,
                    credential_missing: Some(path("/etc/t")),
                    ..TokenFacts::default()
                },
                Some(Verdict::Fail),
                "sudo tee /etc/t",
            ),
            (
                TokenFacts { is_set: true, unreadable_file: Some(path("/etc/t")), ..TokenFacts::default() },
                Some(Verdict::Fail),
                "LoadCredential=token:/etc/t",
            ),
            (
                TokenFacts {
                    is_set: true,
                    world_readable: vec![path("/etc/ada2-sidecar/env")],
                    ..TokenFacts::default()
                },
                Some(Verdict::Warn),
                "sudo chmod 600 /etc/ada2-sidecar/env",
            ),
            (
                TokenFacts {
                    is_set: true,
                    world_readable: vec![path("/etc/c.yaml")],
                    ..TokenFacts::default()
                },
                Some(Verdict::Warn),
                "LoadCredential=token:",
            ),
        ] {
            let found = facts.evaluate();
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
            assert_eq!(is_world_readable(&file), open, "{mode:o}");
        }
        fs::remove_file(file).unwrap();
    }
}
