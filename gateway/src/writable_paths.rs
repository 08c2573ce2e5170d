//! The paths that the gateway writes to: whether it can, who owns them, and the command that fixes them.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use service::{
    files::{self, current_user_name},
    settings::Problem,
    text::shell_quoted,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Created with its parents if missing.
    Directory,
    /// Created in an existing directory.
    File,
}

/// A path and its setting.
#[derive(Debug)]
pub(crate) struct WritablePath<'a> {
    pub(crate) setting: &'static str,
    pub(crate) path: &'a Path,
    pub(crate) kind: FileKind,
    /// Whether the gateway refuses to start without it.
    pub(crate) is_required: bool,
}

/// What can be checked without writing.
#[derive(Debug, Default)]
pub struct PathReport {
    /// No account could write there.
    pub problems: Vec<Problem>,
    /// The current user cannot write there, though the gateway's account may.
    pub warnings: Vec<String>,
}

impl PathReport {
    /// Changes nothing.
    pub(crate) fn check(paths: &[WritablePath<'_>]) -> Self {
        let mut report = Self::default();
        for WritablePath { setting, path, kind, is_required } in paths {
            match check_writable(path, *kind) {
                Ok(true) => {}
                Ok(false) => report.warnings.push(format!(
                    "{setting}: {}: not writable by {} (the current user); the gateway's account needs write access",
                    path.display(),
                    current_user_name()
                )),
                Err(why) => {
                    let problem = Problem::new(setting, path.display().to_string(), why);
                    if *is_required {
                        report.problems.push(problem);
                    } else {
                        report.warnings.push(problem.to_string());
                    }
                }
            }
        }
        report
    }
}

/// Whether this process could write there; an error if no account could.
fn check_writable(path: &Path, kind: FileKind) -> Result<bool, String> {
    // None if it does not exist.
    let check_dir = |path: &Path| match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Err(format!(
            "expected a directory; {} is not one: move it away, or choose another path{}",
            path.display(),
            owner_message(path)
        )),
        Ok(_) => Ok(Some(files::is_writable(path))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Some(false)),
        Err(_) => Ok(None),
    };
    let parent = |path: &Path| {
        let parent = path.parent().unwrap_or(Path::new("/"));
        if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() }
    };
    match (kind, fs::metadata(path)) {
        (FileKind::File, Ok(metadata)) if metadata.is_dir() => {
            Err(format!("expected a file; this is a directory: name a file in it{}", owner_message(path)))
        }
        (FileKind::File, Ok(_)) => Ok(files::is_writable(path)),
        (FileKind::File, Err(_)) => {
            // A missing directory may still be created when the gateway is installed.
            Ok(check_dir(&parent(path))?.unwrap_or(false))
        }
        (FileKind::Directory, _) => {
            let nearest = path.ancestors().find_map(|dir| check_dir(dir).transpose());
            nearest.unwrap_or_else(|| Ok(files::is_writable(Path::new("."))))
        }
    }
}

/// Why the gateway cannot write there, the owner of the nearest existing directory, and the fix.
pub(crate) fn unwritable_message(path: &Path, kind: FileKind, error: &io::Error) -> String {
    let noun = match kind {
        FileKind::Directory => "directory",
        FileKind::File => "file",
    };
    format!("expected a {noun} that the gateway can write: {error}{}", remedy_for(path, kind))
}

/// For a log file that cannot be opened.
pub(crate) fn log_file_problem(file: Option<&Path>, error: &io::Error) -> Problem {
    let path = file.map(|file| file.display().to_string()).unwrap_or_default();
    let why = file.map_or_else(|| error.to_string(), |file| unwritable_message(file, FileKind::File, error));
    Problem::new("GATEWAY_LOG_FILE", path, why)
}

/// The owner and the fix of a directory, if this process cannot write to it.
pub(crate) fn remedy(dir: &Path) -> String {
    if dir.is_dir() && files::is_writable(dir) { String::new() } else { remedy_for(dir, FileKind::Directory) }
}

fn remedy_for(path: &Path, kind: FileKind) -> String {
    let quoted = |path: &Path| shell_quoted(&path.display().to_string()).into_owned();
    let quoted_path = quoted(path);
    let create = match (kind, path.parent().filter(|parent| !parent.as_os_str().is_empty())) {
        (FileKind::Directory, _) => format!("sudo mkdir -p {quoted_path}"),
        (FileKind::File, None) => format!("sudo touch {quoted_path}"),
        (FileKind::File, Some(parent)) => {
            format!("sudo mkdir -p {} && sudo touch {quoted_path}", quoted(parent))
        }
    };
    format!(
        "{}; as the gateway's user run: {create} && sudo chown \"$(id -un)\" {quoted_path}",
        owner_message(path)
    )
}

fn owner_message(path: &Path) -> String {
    let nearest = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?.uid())));
    nearest.map_or_else(String::new, |(path, uid)| format!("; {} is owned by uid {uid}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::tests::temporary;

    #[test]
    fn a_path_that_nobody_can_write_is_a_problem_and_one_that_can_be_created_is_not() {
        let base = temporary("paths");
        let file = base.join("file");
        fs::write(&file, "").unwrap();
        for (path, kind, problem) in [
            (base.clone(), FileKind::Directory, None),
            (base.join("a/b/c"), FileKind::Directory, None),
            (file.clone(), FileKind::Directory, Some("expected a directory")),
            (file.join("below/it"), FileKind::Directory, Some("expected a directory")),
            (file.clone(), FileKind::File, None),
            (base.join("new.log"), FileKind::File, None),
            (PathBuf::from("/dev/null"), FileKind::File, None),
            (base.clone(), FileKind::File, Some("expected a file; this is a directory")),
            (file.join("x.log"), FileKind::File, Some("expected a directory")),
        ] {
            match (check_writable(&path, kind), problem) {
                (Ok(true), None) => {}
                (Err(why), Some(part)) if why.starts_with(part) => {}
                (result, _) => panic!("{}: {result:?}", path.display()),
            }
        }
        assert_eq!(
            check_writable(&base.join("none/x.log"), FileKind::File),
            Ok(false),
            "it may be created later"
        );
        let report = |is_required| {
            let kind = FileKind::Directory;
            PathReport::check(&[WritablePath { setting: "GATEWAY_DATA_DIR", path: &file, kind, is_required }])
        };
        let (required, optional) = (report(true), report(false));
        assert!(required.problems.len() == 1 && required.warnings.is_empty());
        assert!(optional.problems.is_empty() && optional.warnings.len() == 1);
    }

    #[test]
    fn an_unwritable_path_is_reported_with_owner_and_fix() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let message = unwritable_message(Path::new("/nowhere/it's.log"), FileKind::File, &error);
        for part in [
            "expected a file that",
            "/ is owned by uid 0",
            r"sudo touch '/nowhere/it'\''s.log' && sudo chown",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
}
