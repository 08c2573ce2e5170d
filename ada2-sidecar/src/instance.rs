//! This instance's identity, which outlives the process: jobs that an earlier process left in the engine are known
//! by its tag. Held under a lock, so that no second process takes our jobs for leftovers.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use service::{
    files::{open_no_follow, read_no_follow},
    settings::{SettingSource, Settings},
};

/// The tag that marks our jobs in the engine, and the lock behind it.
#[derive(Debug, Clone)]
pub struct Instance {
    tag: String,
    directory: Option<PathBuf>,
    _lock: Option<Arc<File>>,
}

impl Instance {
    /// Where the state directory may be, the likeliest first. Systemd's choice wins; the default gives way to the user's
    /// own state directory (a person trying things out); an explicit choice never does.
    pub fn candidates(settings: &Settings, systemd: Option<&str>, home: Option<&str>) -> Vec<PathBuf> {
        let systemd = systemd.and_then(|list| list.split(':').next()).filter(|dir| !dir.is_empty());
        let chosen = PathBuf::from(systemd.or(settings.raw("state_dir")).unwrap_or_default());
        let by_default = systemd.is_none() && settings.source("state_dir") == SettingSource::Default;
        let own = home.filter(|_| by_default).map(|home| Path::new(home).join(".local/state/ada2-sidecar"));
        std::iter::once(chosen).chain(own).collect()
    }

    /// Opens the first of these state directories that can be written.
    pub fn open(settings: &mut Settings, candidates: &[PathBuf]) -> Option<Self> {
        let mut first = None;
        for folder in candidates {
            match Self::lock_directory(folder) {
                Ok(instance) => return Some(instance),
                Err(fault @ (InstanceError::Locked(_) | InstanceError::UnexpectedFile(_))) => {
                    settings.add_problem("state_dir", fault.message(folder));
                    return None;
                }
                Err(fault) => {
                    first.get_or_insert_with(|| fault.message(folder));
                }
            }
        }
        settings.add_problem("state_dir", first.unwrap_or_else(|| "expected a directory".to_owned()));
        None
    }

    /// Who holds this state directory now, in words; none if nobody does.
    pub fn lock_holder(directory: &Path) -> Option<String> {
        let file = read_no_follow(&directory.join("instance")).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                let text = io::read_to_string(&file).unwrap_or_default();
                Some(text.lines().nth(1).unwrap_or("pid unknown").to_owned())
            }
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }

    /// No identity, where none is needed. Touches nothing on disk.
    pub fn unlocked() -> Self {
        Self { tag: String::new(), directory: None, _lock: None }
    }

    /// The tag of this instance, for example `ada2-sidecar-1b9d6bcd-…`.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The state directory; none for a nameless one.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    fn lock_directory(directory: &Path) -> Result<Self, InstanceError> {
        fs::create_dir_all(directory).map_err(InstanceError::Unwritable)?;
        let path = directory.join("instance");
        let mut file = open_no_follow(&path).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => InstanceError::UnexpectedFile(error),
            _ => InstanceError::Unwritable(error),
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(InstanceError::Locked(io::read_to_string(&file).unwrap_or_default()));
            }
            Err(TryLockError::Error(error)) => return Err(InstanceError::Unwritable(error)),
        }
        let text = io::read_to_string(&file).map_err(InstanceError::Unwritable)?;
        let known = text.lines().next().and_then(|line| uuid::Uuid::parse_str(line).ok());
        let id = known.unwrap_or_else(uuid::Uuid::new_v4);
        // The second line names the holder for whoever finds the lock taken.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{id}\npid {}\n", std::process::id()))
            .map_err(InstanceError::Unwritable)?;
        let directory = Some(directory.to_owned());
        Ok(Self { tag: format!("ada2-sidecar-{id}"), directory, _lock: Some(Arc::new(file)) })
    }
}

enum InstanceError {
    /// Something else than a file of ours lies there.
    UnexpectedFile(std::io::Error),
    Unwritable(std::io::Error),
    Locked(String),
}

impl InstanceError {
    fn message(&self, directory: &Path) -> String {
        let directory = directory.display();
        match self {
            Self::UnexpectedFile(error) => {
                format!("expected a state directory of this service's own: {error}")
            }
            Self::Unwritable(error) => format!(
                "{directory} cannot be written ({error}); create it for this user: sudo install -d -o $(id -un) {directory}"
            ),
            Self::Locked(text) => format!(
                "{directory} is in use by another ada2-sidecar ({}); stop that one, or give this one its own --state-dir",
                text.lines().nth(1).unwrap_or("pid unknown")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_outlives_the_process_and_the_lock_does_not_admit_two() {
        let directory = std::env::temp_dir().join(format!("ada2-instance-{}", uuid::Uuid::new_v4()));
        let first = Instance::lock_directory(&directory).ok().unwrap();
        let tag = first.tag().to_owned();
        let Err(fault) = Instance::lock_directory(&directory) else { panic!("the lock admitted two") };
        let words = fault.message(&directory);
        assert!(words.contains(&format!("pid {}", std::process::id())), "{words}");
        drop(first);
        assert_eq!(Instance::lock_directory(&directory).ok().unwrap().tag(), tag);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn an_instance_file_that_is_a_link_is_named_and_followed_nowhere() {
        let directory = std::env::temp_dir().join(format!("ada2-instance-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        let precious = directory.join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, directory.join("instance")).unwrap();
        let Err(fault) = Instance::lock_directory(&directory) else { panic!("it went through the link") };
        let words = fault.message(&directory);
        assert!(words.contains("instance is a symbolic link to") && words.contains("precious"), "{words}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(Instance::lock_holder(&directory), None);
        fs::remove_dir_all(directory).unwrap();
    }
}
