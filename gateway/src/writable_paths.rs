//! The places on disk that the gateway writes to: what is wrong with one, who owns it and what mends it; and what can be told of
//! them by somebody who is not the gateway.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use service::{
    files::{self, current_user_name},
    settings::Problem,
};

/// What a place must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// It is made where it is not there.
    Folder,
    /// It is made in a folder that is there.
    File,
}

/// A place, and the setting that names it.
#[derive(Debug)]
pub(crate) struct WritablePath<'a> {
    pub(crate) setting: &'static str,
    pub(crate) path: &'a Path,
    pub(crate) kind: FileKind,
    /// Whether the gateway does not start without it.
    pub(crate) is_required: bool,
}

/// What is seen of places without writing to them.
#[derive(Debug, Default)]
pub struct PathReport {
    /// Nobody could write there.
    pub problems: Vec<Problem>,
    /// The one who looks cannot, and that says nothing of the gateway.
    pub warnings: Vec<String>,
}

impl PathReport {
    /// Looks at them; changes nothing.
    pub(crate) fn check(paths: &[WritablePath<'_>]) -> Self {
        let mut report = Self::default();
        for WritablePath { setting, path, kind, is_required: is_needed } in paths {
            match check_writable(path, *kind) {
                Ok(true) => {}
                Ok(false) => report.warnings.push(format!(
                    "{setting}: {}: not writable by {}, who asks; the gateway's own account must be able to",
                    path.display(),
                    current_user_name()
                )),
                Err(why) => {
                    let problem = Problem::new(setting, path.display().to_string(), why);
                    if *is_needed {
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

/// Whether this process could write there; an error where nobody could.
fn check_writable(path: &Path, kind: FileKind) -> Result<bool, String> {
    let folder = |path: &Path| match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(format!(
            "expected a directory; {} is none: move it away, or name another place{}",
            path.display(),
            owner_message(path)
        )),
        Ok(_) => Ok(Some(files::is_writable(path))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Some(false)),
        Err(_) => Ok(None),
    };
    let above = |path: &Path| {
        let above = path.parent().unwrap_or(Path::new("/"));
        if above.as_os_str().is_empty() { PathBuf::from(".") } else { above.to_owned() }
    };
    match (kind, fs::metadata(path)) {
        (FileKind::File, Ok(found)) if found.is_dir() => {
            Err(format!("expected a file; this is a directory: name a file in it{}", owner_message(path)))
        }
        (FileKind::File, Ok(_)) => Ok(files::is_writable(path)),
        (FileKind::File, Err(_)) => {
            // One that is not there may still be made, by whoever installs the gateway.
            Ok(folder(&above(path))?.unwrap_or(false))
        }
        (FileKind::Folder, _) => {
            let known = path.ancestors().map(|place| folder(place).transpose()).find_map(|known| known);
            known.unwrap_or_else(|| Ok(files::is_writable(Path::new("."))))
        }
    }
}

/// Why the gateway cannot write there, who owns the nearest place that exists, and what mends it.
pub(crate) fn unwritable_message(path: &Path, kind: FileKind, error: &io::Error) -> String {
    let what = match kind {
        FileKind::Folder => "directory",
        FileKind::File => "file",
    };
    format!("expected a {what} that the gateway can write: {error}{}", remedy_for(path, kind))
}

/// The log file cannot be opened.
pub(crate) fn log_file_problem(file: Option<&Path>, error: &std::io::Error) -> Problem {
    let path = file.map(|file| file.display().to_string()).unwrap_or_default();
    let why = file.map_or_else(|| error.to_string(), |file| unwritable_message(file, FileKind::File, error));
    Problem::new("GATEWAY_LOG_FILE", path, why)
}

/// The owner and the remedy, where this process may not write to a folder.
pub(crate) fn remedy(folder: &Path) -> String {
    if folder.is_dir() && files::is_writable(folder) {
        String::new()
    } else {
        remedy_for(folder, FileKind::Folder)
    }
}

fn remedy_for(path: &Path, kind: FileKind) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
    let quoted_path = quoted(path);
    let make = match (kind, path.parent().filter(|above| !above.as_os_str().is_empty())) {
        (FileKind::Folder, _) => format!("sudo mkdir -p {quoted_path}"),
        (FileKind::File, None) => format!("sudo touch {quoted_path}"),
        (FileKind::File, Some(above)) => {
            format!("sudo mkdir -p {} && sudo touch {quoted_path}", quoted(above))
        }
    };
    format!(
        "{}; as the gateway's user run: {make} && sudo chown \"$(id -un)\" {quoted_path}",
        owner_message(path)
    )
}

fn owner_message(path: &Path) -> String {
    path.ancestors()
        .find_map(|place| fs::metadata(place).ok().map(|found| (place, found)))
        .map_or_else(String::new, |(place, found)| {
            format!("; {} is owned by uid {}", place.display(), found.uid())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::tests::temporary;

    #[test]
    fn what_nobody_could_write_is_told_and_what_could_be_made_is_not() {
        let base = temporary("places");
        let file = base.join("file");
        fs::write(&file, "").unwrap();
        for (path, kind, wrong) in [
            (base.clone(), FileKind::Folder, None),
            (base.join("a/b/c"), FileKind::Folder, None),
            (file.clone(), FileKind::Folder, Some("expected a directory")),
            (file.join("below/it"), FileKind::Folder, Some("expected a directory")),
            (file.clone(), FileKind::File, None),
            (base.join("new.log"), FileKind::File, None),
            (PathBuf::from("/dev/null"), FileKind::File, None),
            (base.clone(), FileKind::File, Some("expected a file; this is a directory")),
            (file.join("x.log"), FileKind::File, Some("expected a directory")),
        ] {
            match (check_writable(&path, kind), wrong) {
                (Ok(true), None) => {}
                (Err(why), Some(part)) if why.starts_with(part) => {}
                (found, _) => panic!("{}: {found:?}", path.display()),
            }
        }
        assert_eq!(
            check_writable(&base.join("none/x.log"), FileKind::File),
            Ok(false),
            "it may be made later"
        );
        let place = |is_needed| WritablePath {
            setting: "GATEWAY_DATA_DIR",
            path: &file,
            kind: FileKind::Folder,
            is_required: is_needed,
        };
        let (needed, other) = (PathReport::check(&[place(true)]), PathReport::check(&[place(false)]));
        assert!(needed.problems.len() == 1 && needed.warnings.is_empty());
        assert!(other.problems.is_empty() && other.warnings.len() == 1);
    }

    #[test]
    fn what_cannot_be_written_is_told_with_path_owner_and_remedy() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let told = unwritable_message(Path::new("/nowhere/it's.log"), FileKind::File, &error);
        for part in [
            "expected a file that",
            "/ is owned by uid 0",
            r"sudo touch '/nowhere/it'\''s.log' && sudo chown",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
