//! The places on disk that the gateway writes to: what is wrong with one, who owns it and what mends it; and what can be told of
//! them by somebody who is not the gateway.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use service::{
    files::{may_write, own_account},
    settings::Problem,
};

/// What a place must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is made where it is not there.
    Folder,
    /// It is made in a folder that is there.
    File,
}

/// A place, and the setting that names it.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) setting: &'static str,
    pub(crate) path: &'a Path,
    pub(crate) kind: Kind,
    /// Whether the gateway does not start without it.
    pub(crate) is_needed: bool,
}

/// What is seen of places without writing to them.
#[derive(Debug, Default)]
pub struct Seen {
    /// Nobody could write there.
    pub problems: Vec<Problem>,
    /// The one who looks cannot, and that says nothing of the gateway.
    pub notes: Vec<String>,
}

impl Seen {
    /// Looks at them; changes nothing.
    pub(crate) fn look(places: &[Place<'_>]) -> Self {
        let mut seen = Self::default();
        for Place { setting, path, kind, is_needed } in places {
            match look(path, *kind) {
                Ok(true) => {}
                Ok(false) => seen.notes.push(format!(
                    "{setting}: {}: not writable by {}, who asks; the gateway's own account must be able to",
                    path.display(),
                    own_account()
                )),
                Err(why) => {
                    let problem = Problem::new(setting, path.display().to_string(), why);
                    if *is_needed {
                        seen.problems.push(problem);
                    } else {
                        seen.notes.push(problem.to_string());
                    }
                }
            }
        }
        seen
    }
}

/// Whether this process could write there; an error where nobody could.
fn look(path: &Path, kind: Kind) -> Result<bool, String> {
    let folder = |path: &Path| match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(format!(
            "expected a directory; {} is none: move it away, or name another place{}",
            path.display(),
            owner(path)
        )),
        Ok(_) => Ok(Some(may_write(path))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Some(false)),
        Err(_) => Ok(None),
    };
    let above = |path: &Path| {
        let above = path.parent().unwrap_or(Path::new("/"));
        if above.as_os_str().is_empty() { PathBuf::from(".") } else { above.to_owned() }
    };
    match (kind, fs::metadata(path)) {
        (Kind::File, Ok(found)) if found.is_dir() => {
            Err(format!("expected a file; this is a directory: name a file in it{}", owner(path)))
        }
        (Kind::File, Ok(_)) => Ok(may_write(path)),
        (Kind::File, Err(_)) => {
            // One that is not there may still be made, by whoever installs the gateway.
            Ok(folder(&above(path))?.unwrap_or(false))
        }
        (Kind::Folder, _) => {
            let known = path.ancestors().map(|place| folder(place).transpose()).find_map(|known| known);
            known.unwrap_or_else(|| Ok(may_write(Path::new("."))))
        }
    }
}

/// Why the gateway cannot write there, who owns the nearest place that exists, and what mends it.
pub(crate) fn unwritable(path: &Path, kind: Kind, error: &io::Error) -> String {
    let what = match kind {
        Kind::Folder => "directory",
        Kind::File => "file",
    };
    format!("expected a {what} that the gateway can write: {error}{}", mend(path, kind))
}

/// The log file cannot be opened.
pub(crate) fn log_problem(file: Option<&Path>, error: &std::io::Error) -> Problem {
    let path = file.map(|file| file.display().to_string()).unwrap_or_default();
    let why = file.map_or_else(|| error.to_string(), |file| unwritable(file, Kind::File, error));
    Problem::new("GATEWAY_LOG_FILE", path, why)
}

/// The owner and the remedy, where this process may not write to a folder.
pub(crate) fn remedy(folder: &Path) -> String {
    if folder.is_dir() && may_write(folder) { String::new() } else { mend(folder, Kind::Folder) }
}

fn mend(path: &Path, kind: Kind) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
    let place = quoted(path);
    let make = match (kind, path.parent().filter(|above| !above.as_os_str().is_empty())) {
        (Kind::Folder, _) => format!("sudo mkdir -p {place}"),
        (Kind::File, None) => format!("sudo touch {place}"),
        (Kind::File, Some(above)) => format!("sudo mkdir -p {} && sudo touch {place}", quoted(above)),
    };
    format!("{}; as the gateway's user run: {make} && sudo chown \"$(id -un)\" {place}", owner(path))
}

fn owner(path: &Path) -> String {
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
            (base.clone(), Kind::Folder, None),
            (base.join("a/b/c"), Kind::Folder, None),
            (file.clone(), Kind::Folder, Some("expected a directory")),
            (file.join("below/it"), Kind::Folder, Some("expected a directory")),
            (file.clone(), Kind::File, None),
            (base.join("new.log"), Kind::File, None),
            (PathBuf::from("/dev/null"), Kind::File, None),
            (base.clone(), Kind::File, Some("expected a file; this is a directory")),
            (file.join("x.log"), Kind::File, Some("expected a directory")),
        ] {
            match (look(&path, kind), wrong) {
                (Ok(true), None) => {}
                (Err(why), Some(part)) if why.starts_with(part) => {}
                (found, _) => panic!("{}: {found:?}", path.display()),
            }
        }
        assert_eq!(look(&base.join("none/x.log"), Kind::File), Ok(false), "it may be made later");
        let place =
            |is_needed| Place { setting: "GATEWAY_DATA_DIR", path: &file, kind: Kind::Folder, is_needed };
        let (needed, other) = (Seen::look(&[place(true)]), Seen::look(&[place(false)]));
        assert!(needed.problems.len() == 1 && needed.notes.is_empty());
        assert!(other.problems.is_empty() && other.notes.len() == 1);
    }

    #[test]
    fn what_cannot_be_written_is_told_with_path_owner_and_remedy() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let told = unwritable(Path::new("/nowhere/it's.log"), Kind::File, &error);
        for part in [
            "expected a file that",
            "/ is owned by uid 0",
            r"sudo touch '/nowhere/it'\''s.log' && sudo chown",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
