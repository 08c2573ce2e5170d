//! Hints about files that the unit's sandbox hides: the service runs as its own user, without home directories, and gets
//! "permission denied" for files that the operator can read.

use std::{fs::File, io::ErrorKind, path::Path};

use service::settings::{SettingSource, SettingSpec, Settings};

/// Hidden by `ProtectHome=yes`.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Settings that name a file with a secret, and what that file is called in `LoadCredential=`.
pub(crate) const CREDENTIALS: [(&str, &str); 2] =
    [("token_file", "token"), ("engine_auth_file", "engine_auth")];

fn credential_of(key: &str) -> Option<&'static str> {
    CREDENTIALS.iter().find(|(setting, _)| *setting == key).map(|(_, credential)| *credential)
}

/// A systemd credential with the name of a secret is its file.
pub(crate) fn credential(
    environment: &dyn Fn(&str) -> Option<String>,
    key: &SettingSpec,
) -> Option<(String, SettingSource)> {
    let credential = credential_of(key.name)?;
    let file = Path::new(&environment("CREDENTIALS_DIRECTORY")?).join(credential);
    file.is_file().then(|| (file.display().to_string(), SettingSource::Credential(credential)))
}

/// Warns that a credential overrides the file of a secret in the configuration file.
pub(crate) fn overridden_secret_file(
    s: &Settings,
    key: &str,
    configured: Option<(String, SettingSource)>,
) -> Option<String> {
    let (used, (path, source)) = (s.source(key), configured?);
    let path = path.trim();
    let is_other = !path.is_empty() && Some(path) != s.raw(key);
    let SettingSource::Credential(credential) = &used else { return None };
    is_other.then(|| {
        format!(
            "{source}: {key}: no effect: {used} takes precedence; remove {key}, or remove LoadCredential={credential}: \
             from the unit"
        )
    })
}

/// Whether `ProtectHome=yes` hides it.
pub(crate) fn is_in_home_dir(path: &Path) -> bool {
    HOMES.iter().any(|home| path.starts_with(home))
}

/// What to do about a missing or unreadable path, if the unit's sandbox may be the reason. Begins with a separator.
pub(crate) fn access_hint(path: &Path, error: ErrorKind) -> Option<String> {
    if !matches!(error, ErrorKind::NotFound | ErrorKind::PermissionDenied) {
        return None;
    }
    if is_in_home_dir(path) {
        return Some(format!(
            "; the unit's ProtectHome=yes hides home directories: run `sudo systemctl edit ada2-sidecar` and add to \
             [Service] ProtectHome=tmpfs and BindReadOnlyPaths={}",
            path.display()
        ));
    }
    (error == ErrorKind::PermissionDenied)
        .then(|| format!("; the service's user cannot read it: run `sudo chmod a+r {}`", path.display()))
}

/// Completes the problem of an unreadable file with a secret, if it is the one at `since`. A secret must not become readable
/// for everyone: systemd passes it in.
pub(crate) fn add_secret_file_hint(s: &mut Settings, key: &str, since: usize) {
    let Some(credential) = credential_of(key) else { return };
    if matches!(s.source(key), SettingSource::Credential(_)) {
        return;
    }
    let path = s.raw(key).unwrap_or_default().trim().to_owned();
    let Some(problem) = s.problems.get_mut(since) else { return };
    let Err(error) = File::open(&path) else { return };
    if let Some(hint) = secret_file_hint(Path::new(&path), key, credential, error.kind()) {
        problem.expected.push_str(&hint);
    }
}

fn secret_file_hint(path: &Path, key: &str, credential: &str, error: ErrorKind) -> Option<String> {
    let is_hidden = is_in_home_dir(path) && error == ErrorKind::NotFound;
    (is_hidden || error == ErrorKind::PermissionDenied).then(|| {
        format!(
            "; the service's user cannot read it: let systemd pass it in. Run `sudo systemctl edit ada2-sidecar`, add \
             LoadCredential={credential}:{} to [Service], and remove {key}",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_the_sandbox_hides_name_the_setting() {
        for (path, error, expected) in [
            (
                "/home/x/outputs",
                ErrorKind::PermissionDenied,
                Some("ProtectHome=tmpfs and BindReadOnlyPaths=/home/x/outputs"),
            ),
            ("/root/outputs", ErrorKind::NotFound, Some("ProtectHome")),
            ("/run/user/1000/o", ErrorKind::NotFound, Some("ProtectHome")),
            ("/homes/x", ErrorKind::NotFound, None),
            ("/srv/x", ErrorKind::PermissionDenied, Some("chmod a+r /srv/x")),
            ("/srv/x", ErrorKind::NotFound, None),
            ("/home/x", ErrorKind::IsADirectory, None),
        ] {
            let hint = access_hint(Path::new(path), error);
            match expected {
                Some(expected) => {
                    assert!(hint.as_ref().is_some_and(|hint| hint.contains(expected)), "{path}: {hint:?}");
                }
                None => assert_eq!(hint, None, "{path}"),
            }
        }
    }

    #[test]
    fn an_unreadable_token_file_names_the_credential() {
        let hint = |path: &str, error| secret_file_hint(Path::new(path), "token_file", "token", error);
        let denied = hint("/etc/ada2-sidecar/token", ErrorKind::PermissionDenied).unwrap();
        assert!(denied.contains("LoadCredential=token:/etc/ada2-sidecar/token"), "{denied}");
        assert!(hint("/home/x/token", ErrorKind::NotFound).unwrap().contains("LoadCredential"));
        assert_eq!(hint("/etc/ada2-sidecar/token", ErrorKind::NotFound), None);
        let login = secret_file_hint(
            Path::new("/home/x/login"),
            "engine_auth_file",
            "engine_auth",
            ErrorKind::NotFound,
        );
        assert!(
            login.unwrap().ends_with(
                "LoadCredential=engine_auth:/home/x/login to [Service], and remove engine_auth_file"
            )
        );
    }
}
