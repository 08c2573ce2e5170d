//! What the unit's sandbox does to files, in words that name the setting: a service that runs as a user of its own, with
//! home directories out of sight, meets "permission denied" where the operator sees a file that is there.

use std::{fs::File, io::ErrorKind, path::Path};

use service::settings::{SettingSource, SettingSpec, Settings};

/// What `ProtectHome=yes` makes inaccessible.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// What `LoadCredential=` calls our token.
const CREDENTIAL: &str = "token";

/// A credential of the service manager's named `token` is the token's file.
pub(crate) fn credential(
    environment: &dyn Fn(&str) -> Option<String>,
    key: &SettingSpec,
) -> Option<(String, SettingSource)> {
    if key.name != "token_file" {
        return None;
    }
    let file = Path::new(&environment("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL);
    file.is_file().then(|| (file.display().to_string(), SettingSource::Credential(CREDENTIAL)))
}

/// Says that the credential takes the place of another file, which the configuration's file names for the token.
pub(crate) fn overridden_token_file(s: &Settings, named: Option<(String, SettingSource)>) -> Option<String> {
    let (used, (path, source)) = (s.source("token_file"), named?);
    let path = path.trim();
    let other = !path.is_empty() && Some(path) != s.raw("token_file");
    (other && matches!(used, SettingSource::Credential(_))).then(|| {
        format!(
            "{source}: token_file: no effect: {used} takes its place; take token_file away, or \
             LoadCredential={CREDENTIAL}: out of the unit"
        )
    })
}

/// Whether `ProtectHome=yes` hides it.
pub(crate) fn is_in_home_dir(path: &Path) -> bool {
    HOMES.iter().any(|home| path.starts_with(home))
}

/// What to do about a path that seems to be absent or closed, if the unit's sandbox may be the reason. Begins with a
/// separator.
pub(crate) fn access_hint(path: &Path, error: ErrorKind) -> Option<String> {
    if !matches!(error, ErrorKind::NotFound | ErrorKind::PermissionDenied) {
        return None;
    }
    if is_in_home_dir(path) {
        return Some(format!(
            "; the unit's ProtectHome=yes hides home directories: `sudo systemctl edit ada2-sidecar`, and under \
             [Service] ProtectHome=tmpfs and BindReadOnlyPaths={}",
            path.display()
        ));
    }
    (error == ErrorKind::PermissionDenied)
        .then(|| format!("; the unit runs as a user of its own: `sudo chmod a+r {}`", path.display()))
}

/// Completes the problem with a token file that cannot be read, if that is among those from `since` on. A secret is
/// not opened for everybody: the service manager reads it for us.
pub(crate) fn add_token_file_hint(s: &mut Settings, since: usize) {
    if matches!(s.source("token_file"), SettingSource::Credential(_)) {
        return;
    }
    let path = s.raw("token_file").unwrap_or_default().trim().to_owned();
    let Some(problem) = s.problems.get_mut(since) else { return };
    let Err(error) = File::open(&path) else { return };
    if let Some(hint) = token_file_hint(Path::new(&path), error.kind()) {
        problem.expected.push_str(&hint);
    }
}

fn token_file_hint(path: &Path, error: ErrorKind) -> Option<String> {
    let is_hidden = is_in_home_dir(path) && error == ErrorKind::NotFound;
    (is_hidden || error == ErrorKind::PermissionDenied).then(|| {
        format!(
            "; the unit runs as a user of its own: let systemd read the file, `sudo systemctl edit ada2-sidecar`, \
             and under [Service] LoadCredential={CREDENTIAL}:{} (token_file is not needed then)",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_the_sandbox_may_hide_names_the_setting() {
        for (path, error, says) in [
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
            let words = access_hint(Path::new(path), error);
            match says {
                Some(says) => {
                    assert!(words.as_ref().is_some_and(|words| words.contains(says)), "{path}: {words:?}");
                }
                None => assert_eq!(words, None, "{path}"),
            }
        }
    }

    #[test]
    fn a_token_file_that_the_service_may_not_read_names_the_credential() {
        let words = |path: &str, error| token_file_hint(Path::new(path), error);
        let denied = words("/etc/ada2-sidecar/token", ErrorKind::PermissionDenied).unwrap();
        assert!(denied.contains("LoadCredential=token:/etc/ada2-sidecar/token"), "{denied}");
        assert!(words("/home/x/token", ErrorKind::NotFound).unwrap().contains("LoadCredential"));
        assert_eq!(words("/etc/ada2-sidecar/token", ErrorKind::NotFound), None);
    }
}
