//! The token: whether the service can read it, and other users cannot.

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

/// The facts.
#[derive(Default)]
pub(super) struct TokenFacts {
    /// Whether a token is configured.
    is_set: bool,
    /// The file of the unit's credential, if it does not exist.
    credential_missing: Option<PathBuf>,
    /// The file that the configuration names, if the service's user may not read it.
    unreadable_file: Option<PathBuf>,
    /// Files with a token that every user of this host may read.
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
        let token_file =
            value("token_file").map(|path| PathBuf::from(path.trim())).filter(|path| path.is_absolute());
        let mut secrets: Vec<PathBuf> = value("token").map(|_| file.clone()).into_iter().collect();
        if setup.environment.variables.contains_key("ADA2_TOKEN") {
            secrets.extend(setup.environment.files.iter().cloned());
        }
        secrets.extend(token_file.iter().chain(&credential).cloned());
        secrets.sort();
        secrets.dedup();
        Self {
            is_set: setup.config().is_some_and(|config| config.token.is_some()) || credential.is_some(),
            credential_missing: credential.filter(|file| setup.root && !file.exists()),
            unreadable_file: token_file
                .filter(|file| service.is_some_and(|service| file.exists() && !readable_by(service, file))),
            world_readable: secrets.into_iter().filter(|file| is_world_readable(file)).collect(),
        }
    }

    /// Whether it makes the next start fail.
    pub(super) fn prevents_start(&self) -> bool {
        self.credential_missing.is_some() || self.unreadable_file.is_some()
    }

    /// No line if no token is configured.
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        if let Some(file) = &self.credential_missing {
            let message = format!(
                "the file of LoadCredential=token:{} does not exist, so the service does not start",
                file.display()
            );
            let fix = format!(
                "openssl rand -hex 24 | sudo tee {0} && sudo chmod 600 {0} && sudo systemctl restart ada2-sidecar",
                file.display()
            );
            return vec![Finding::fail(NAME, message, fix)];
        }
        if let Some(file) = &self.unreadable_file {
            let message = format!("the service's user cannot read token_file {}", file.display());
            let line = format!("LoadCredential=token:{}", file.display());
            return vec![Finding::fail(
                NAME,
                message,
                format!("remove token_file from the configuration; {}", drop_in_fix("ada2-sidecar", &line)),
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
            vec![Finding::ok(NAME, "set, and unreadable to other users of this host")]
        } else {
            Vec::new()
        }
    }
}

/// A file that the service's user must be able to read needs more than another mode.
fn restrict_fix(file: &Path) -> String {
    if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        let line = "LoadCredential=token:/etc/ada2-sidecar/token";
        return format!(
            "move it into /etc/ada2-sidecar/token (chmod 600) and remove token from {}; {}",
            file.display(),
            drop_in_fix("ada2-sidecar", line)
        );
    }
    format!("sudo chmod 600 {}", file.display())
}

pub(super) fn is_world_readable(file: &Path) -> bool {
    fs::metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & WORLD_READABLE != 0)
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    #[test]
    fn a_token_must_be_readable_to_the_service_and_to_nobody_else() {
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
            let findings = facts.evaluate();
            assert_eq!(findings.first().map(|one| one.verdict), verdict);
            let actual = findings.first().and_then(|one| one.fix.clone()).unwrap_or_default();
            assert!(actual.contains(fix), "{actual}");
        }
    }

    #[test]
    fn the_mode_says_whether_a_file_is_world_readable() {
        let file = std::env::temp_dir().join(format!("ada2-secret-{}", uuid::Uuid::new_v4()));
        fs::write(&file, "x").unwrap();
        for (mode, open) in [(0o644, true), (0o640, false), (0o600, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_world_readable(&file), open, "{mode:o}");
        }
        fs::remove_file(file).unwrap();
    }
}
