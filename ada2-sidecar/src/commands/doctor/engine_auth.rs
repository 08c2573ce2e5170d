//! The file with the login at the engine: whether the service can read it, and other users cannot.

use std::{
    fs,
    path::{Path, PathBuf},
};

use service::{doctor::Finding, settings::YamlFile};

use super::{
    configuration::{DoctorContext, readable_by},
    fixes::drop_in_fix,
    token::is_world_readable,
};
use crate::{commands::systemd::SystemdUnit, config::KEYS};

const NAME: &str = "engine_auth";

/// No line if there is no such file.
pub(super) fn check(setup: &DoctorContext) -> Option<Finding> {
    let service = setup.units.as_ref().map(|units| &units.service).filter(|service| service.is_loaded());
    let named = named_file(&setup.fixes.file);
    if let Some(file) = &named
        && service.is_some_and(|service| file.exists() && !readable_by(service, file))
    {
        return Some(unreadable(file));
    }
    let credential = service.and_then(|service: &SystemdUnit| service.credential(NAME));
    let file = credential.or(named).filter(|file| file.exists())?;
    Some(if is_world_readable(&file) { world_readable(&file) } else { sound() })
}

/// The file that the configuration names.
fn named_file(configuration: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(configuration).unwrap_or_default();
    let (yaml, _) = YamlFile::parse_lenient(configuration, &text, KEYS);
    let key = KEYS.iter().find(|key| key.name == "engine_auth_file")?;
    let (path, _) = yaml.get(key)?;
    Some(PathBuf::from(path.trim())).filter(|path| path.is_absolute())
}

fn unreadable(file: &Path) -> Finding {
    let line = format!("LoadCredential={NAME}:{}", file.display());
    Finding::fail(
        NAME,
        format!("the service's user cannot read engine_auth_file {}", file.display()),
        format!("remove engine_auth_file from the configuration; {}", drop_in_fix("ada2-sidecar", &line)),
    )
}

fn world_readable(file: &Path) -> Finding {
    let message = format!("every user of this host can read the engine's password in {}", file.display());
    Finding::warn(NAME, message, format!("sudo chmod o-rwx {}", file.display()))
}

fn sound() -> Finding {
    Finding::ok(NAME, "set, and unreadable to other users of this host")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_that_the_configuration_names_is_found_and_judged_by_its_mode() {
        let directory = std::env::temp_dir().join(format!("ada2-auth-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        let (configuration, secret) = (directory.join("config.yaml"), directory.join("login"));
        fs::write(&secret, "a\nb\n").unwrap();
        for (text, expected) in [
            (format!("engine_auth_file: {}", secret.display()), Some(secret.clone())),
            ("engine_auth_file: relative".to_owned(), None),
            ("engine: invokeai".to_owned(), None),
        ] {
            fs::write(&configuration, text).unwrap();
            assert_eq!(named_file(&configuration), expected);
        }
        for (mode, open) in [(0o644, true), (0o600, false)] {
            fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_world_readable(&secret), open);
        }
        fs::remove_dir_all(directory).unwrap();
        assert!(unreadable(&secret).fix.unwrap().contains("LoadCredential=engine_auth:"));
    }
}
