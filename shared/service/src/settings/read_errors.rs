//! A file that cannot be read: who can read it, and which other problems only follow from that.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use nix::unistd::Uid;

use super::{Problem, SettingSource};
use crate::files::user_name;

/// Why a file cannot be read; where that is not allowed, by whom it can.
pub fn describe_read_error(path: &Path, error: &io::Error) -> String {
    let owner = || path.ancestors().find_map(|place| Some((place, fs::metadata(place).ok()?.uid())));
    match (error.kind(), owner()) {
        (io::ErrorKind::PermissionDenied, Some((place, uid))) => {
            format!("{error}; {}", permission_hint(place, uid))
        }
        _ => error.to_string(),
    }
}

fn permission_hint(path: &Path, uid: u32) -> String {
    let name = user_name(uid);
    if Uid::effective().as_raw() == uid {
        return format!("{} is your own: chmod u+rX it", path.display());
    }
    format!("{} belongs to {name}: run the same command as that user, with `sudo -u {name}`", path.display())
}

/// Drops the problems that are no more than consequences. Where a whole file is unread (`file_unread`), nobody knows what it would
/// have set: what is wrong with a default is no problem then. Where one line or the file of a secret is, the same holds of its key,
/// which `setting_for` gives for the key of a problem.
pub fn without_consequential(
    problems: Vec<Problem>,
    file_unread: bool,
    setting_for: impl Fn(&str) -> Option<&'static str>,
) -> Vec<Problem> {
    let default = SettingSource::Default.to_string();
    let affected: Vec<_> = problems
        .iter()
        .filter(|problem| problem.source != default)
        .flat_map(|problem| [Some(problem.key.clone()), setting_for(&problem.key).map(str::to_owned)])
        .flatten()
        .collect();
    let is_relevant =
        |problem: &Problem| problem.source != default || !(file_unread || affected.contains(&problem.key));
    problems.into_iter().filter(is_relevant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consequences_of_an_unreadable_file_are_not_reported() {
        let problem = |source: &str, key: &str| Problem::new(source, key, "expected x");
        let problems =
            || vec![problem("f:3", "token_file"), problem("default", "token"), problem("default", "url")];
        let keys = |file_unread| {
            let setting_for = |key: &str| (key == "token_file").then_some("token");
            let left = without_consequential(problems(), file_unread, setting_for);
            left.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(false), ["token_file", "url"]);
        assert_eq!(keys(true), ["token_file"]);
    }

    #[test]
    fn a_permission_error_names_who_may_read_the_file() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let path = std::env::temp_dir().join("nowhere/at/all");
        let message = describe_read_error(&path, &denied);
        assert!(message.contains("is your own") || message.contains("with `sudo -u root`"), "{message}");
        assert!(permission_hint(Path::new("/x"), 4_000_000_000).contains("belongs to #4000000000"));
        let missing = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(describe_read_error(&path, &missing), missing.to_string());
    }
}
