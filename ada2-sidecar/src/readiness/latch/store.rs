//! Where latches outlive the process: `latch.json` in the state directory; and how an operator clears them: by a file
//! `ack` beside it, because whoever may write there administers this service. No network is involved.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use service::files::{create_no_follow, read_no_follow};

use super::Latch;

/// Without it (not Linux, or hidden) every start counts as a new boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The files of one state directory.
#[derive(Debug, Clone)]
pub(crate) struct LatchStore {
    directory: PathBuf,
}

/// This boot's name.
pub(crate) fn boot_id() -> String {
    let read = fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned());
    read.unwrap_or_else(|_| uuid::Uuid::new_v4().to_string())
}

impl LatchStore {
    /// In this directory.
    pub(crate) fn open(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The saved latch. A file that cannot be parsed is put aside, never overwritten.
    pub(crate) fn load(&self) -> std::io::Result<Option<Latch>> {
        let path = self.directory.join("latch.json");
        let mut text = Vec::new();
        match read_no_follow(&path) {
            Ok(mut file) => drop(file.read_to_end(&mut text)?),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        match serde_json::from_slice(&text) {
            Ok(latch) => Ok(Some(latch)),
            Err(error) => {
                let aside = self.directory.join("latch.json.unreadable");
                fs::rename(&path, &aside)?;
                let message =
                    format!("{} cannot be parsed ({error}); kept as {}", path.display(), aside.display());
                Err(std::io::Error::new(ErrorKind::InvalidData, message))
            }
        }
    }

    /// Atomic.
    pub(crate) fn save(&self, latch: &Latch) -> std::io::Result<()> {
        let new = self.directory.join("latch.json.new");
        let mut file = create_no_follow(&new)?;
        file.write_all(&serde_json::to_vec_pretty(latch)?)?;
        file.sync_all()?;
        fs::rename(new, self.directory.join("latch.json"))
    }

    /// Asks the running service to clear what is latched.
    pub(crate) fn request_ack(&self) -> std::io::Result<()> {
        create_no_follow(&self.directory.join("ack")).map(drop)
    }

    /// Whether an operator has requested it.
    pub(crate) fn is_ack_requested(&self) -> bool {
        self.directory.join("ack").symlink_metadata().is_ok()
    }

    /// It is done.
    pub(crate) fn clear_ack_request(&self) -> std::io::Result<()> {
        match fs::remove_file(self.directory.join("ack")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_latch_is_loaded_and_a_broken_file_is_put_aside() {
        let directory = std::env::temp_dir().join(format!("ada2-latch-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        let file = LatchStore::open(&directory);
        assert_eq!(file.load().unwrap(), None);
        let mut latch = Latch::new("boot");
        latch.record_xid(79, std::time::SystemTime::now());
        file.save(&latch).unwrap();
        assert_eq!(file.load().unwrap(), Some(latch));
        fs::write(directory.join("latch.json"), "{").unwrap();
        assert!(file.load().unwrap_err().to_string().contains("latch.json.unreadable"));
        assert_eq!(file.load().unwrap(), None);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn no_file_of_a_latch_is_written_or_read_through_a_link() {
        let directory = std::env::temp_dir().join(format!("ada2-latch-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        let target = directory.join("precious");
        fs::write(&target, "{}").unwrap();
        for name in ["latch.json", "latch.json.new", "ack"] {
            std::os::unix::fs::symlink(&target, directory.join(name)).unwrap();
        }
        let file = LatchStore::open(&directory);
        assert!(file.load().unwrap_err().to_string().contains("symbolic link"));
        assert!(
            file.save(&Latch::new("boot"))
                .unwrap_err()
                .to_string()
                .contains("latch.json.new is a symbolic link")
        );
        assert!(file.request_ack().unwrap_err().to_string().contains("ack is a symbolic link"));
        assert_eq!(fs::read_to_string(&target).unwrap(), "{}");
        fs::remove_dir_all(directory).unwrap();
    }
}
