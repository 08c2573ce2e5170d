//! The instance's identity, which outlives the process: its tag marks jobs that an earlier process left in the engine. A lock
//! prevents a second process from taking our jobs for orphans.

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
    /// Candidates for the state directory, in order. Systemd's wins. Only the default falls back to the user's own state
    /// directory, for trying things out.
    pub fn candidates(settings: &Settings, systemd: Option<&str>, home: Option<&str>) -> Vec<PathBuf> {
        let systemd = systemd.and_then(|list| list.split(':').next()).filter(|dir| !dir.is_empty());
        let configured = PathBuf::from(systemd.or(settings.raw("state_dir")).unwrap_or_default());
        let by_default = systemd.is_none() && settings.source("state_dir") == SettingSource::Default;
        let user_dir =
            home.filter(|_| by_default).map(|home| Path::new(home).join(".local/state/ada2-sidecar"));
        std::iter::once(configured).chain(user_dir).collect()
    }

    /// Opens the first of these directories that is writable.
    pub fn open(settings: &mut Settings, candidates: &[PathBuf]) -> Option<Self> {
        let mut first = None;
        for directory in candidates {
            match Self::lock_directory(directory) {
                Ok(instance) => return Some(instance),
                Err(error @ (InstanceError::Locked(_) | InstanceError::UnexpectedFile(_))) => {
                    settings.add_problem("state_dir", error.message(directory));
                    return None;
                }
                Err(error) => {
                    first.get_or_insert_with(|| error.message(directory));
                }
            }
        }
        settings.add_problem("state_dir", first.unwrap_or_else(|| "expected a directory".to_owned()));
        None
    }

    /// The process that holds this state directory, if any.
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

    /// Without an identity, for commands. Does not touch the disk.
    pub fn unlocked() -> Self {
        Self { tag: String::new(), directory: None, _lock: None }
    }

    /// The tag of this instance, for example `ada2-sidecar-1b9d6bcd-…`.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The state directory; None if unlocked.
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
        let existing = text.lines().next().and_then(|line| uuid::Uuid::parse_str(line).ok());
        let id = existing.unwrap_or_else(uuid::Uuid::new_v4);
        // The second line names the holder to processes that find it locked.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{id}\npid {}\n", std::process::id()))
            .map_err(InstanceError::Unwritable)?;
        let directory = Some(directory.to_owned());
        Ok(Self { tag: format!("ada2-sidecar-{id}"), directory, _lock: Some(Arc::new(file)) })
    }
}

enum InstanceError {
    /// The file is not ours.
    UnexpectedFile(std::io::Error),
    Unwritable(std::io::Error),
    Locked(String),
}

impl InstanceError {
    fn message(&self, directory: &Path) -> String {
        let directory = directory.display();
        match self {
            Self::UnexpectedFile(error) => {
                format!("the state directory must belong to this service: {error}")
            }
            Self::Unwritable(error) => format!(
                "cannot write to {directory} ({error}); create it for this user: sudo install -d -o $(id -un) {directory}"
            ),
            Self::Locked(text) => format!(
                "{directory} is locked by another ada2-sidecar ({}); stop it, or start this one with a different --state-dir",
                text.lines().nth(1).unwrap_or("pid unknown")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_survives_and_the_lock_is_exclusive() {
        let directory = std::env::temp_dir().join(format!("ada2-instance-{}", uuid::Uuid::new_v4()));
        let first = Instance::lock_directory(&directory).ok().unwrap();
        let tag = first.tag().to_owned();
        let Err(error) = Instance::lock_directory(&directory) else { panic!("the lock admitted two") };
        let message = error.message(&directory);
        assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
        drop(first);
        assert_eq!(Instance::lock_directory(&directory).ok().unwrap().tag(), tag);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_symbolic_link_as_instance_file_is_rejected() {
        let directory = std::env::temp_dir().join(format!("ada2-instance-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        let precious = directory.join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, directory.join("instance")).unwrap();
        let Err(error) = Instance::lock_directory(&directory) else { panic!("it went through the link") };
        let message = error.message(&directory);
        assert!(
            message.contains("instance is a symbolic link to") && message.contains("precious"),
            "{message}"
        );
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(Instance::lock_holder(&directory), None);
        fs::remove_dir_all(directory).unwrap();
    }
}
