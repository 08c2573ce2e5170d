//! Detects that the driver's library was replaced on disk. After an upgrade, running processes continue, and new ones fail
//! until the kernel module is reloaded.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const STEM: &str = "libnvidia-ml.so";
const KERNEL_MODULE: &str = "/proc/driver/nvidia/version";

/// The path of the loaded library, and its inode when it was loaded.
#[derive(Debug)]
pub(super) struct LibraryFile {
    path: Option<PathBuf>,
    inode: Option<(u64, u64)>,
}

impl LibraryFile {
    /// To be called right after loading. The path that the loader chose is read from this process's mappings.
    pub(super) fn capture(configured: Option<&Path>) -> Self {
        let path = configured
            .map(Path::to_owned)
            .or_else(|| mapped_library(&fs::read_to_string("/proc/self/maps").ok()?));
        Self { inode: path.as_deref().and_then(inode), path }
    }

    /// The version that is there now, if it is not the running driver's.
    pub(super) fn replacement_version(&self, running: Option<&str>) -> Option<String> {
        let path = self.path.as_deref()?;
        let now = inode(path);
        if now == self.inode {
            return None;
        }
        let Some(real) = now.and_then(|_| fs::canonicalize(path).ok()) else {
            return Some("none".to_owned());
        };
        match version_in(&real) {
            Some(version) if Some(version.as_str()) == running => None,
            Some(version) => Some(version),
            None => Some("an unknown version".to_owned()),
        }
    }
}

/// Changes when a driver is installed or its kernel module is loaded: a reason to retry at once.
pub(super) fn fingerprint(configured: Option<&Path>) -> impl PartialEq {
    (configured.and_then(inode), fs::read(KERNEL_MODULE).ok())
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// The link beside the mapped file: a new driver's file has another name, and the link then points to it.
fn mapped_library(maps: &str) -> Option<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.splitn(6, ' ').nth(5)).map(|path| Path::new(path.trim()));
    let is_library =
        |path: &&Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(STEM));
    Some(paths.into_iter().find(is_library)?.with_file_name(format!("{STEM}.1")))
}

/// `libnvidia-ml.so.595.80` → `595.80`.
fn version_in(path: &Path) -> Option<String> {
    let version = path.file_name()?.to_str()?.strip_prefix(STEM)?.strip_prefix('.')?;
    version.contains('.').then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_library_is_found_in_the_mappings() {
        let maps = "7f00-7f01 r--p 00000000 08:01 11  /usr/lib/libc.so.6\n\
                    7f10-7f20 r-xp 00000000 08:01 123456    /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.595.80 (deleted)\n\
                    7f20-7f30 rw-p 00000000 00:00 0 \n";
        assert_eq!(mapped_library(maps).unwrap(), Path::new("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"));
        assert_eq!(mapped_library("7f00-7f01 rw-p 00000000 00:00 0 [heap]\n"), None);
    }

    #[test]
    fn an_upgrade_is_detected_and_a_reinstallation_is_not() {
        let dir = std::env::temp_dir().join(format!("ada2-installed-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        let link = dir.join("libnvidia-ml.so.1");
        let point_at = |version: &str| {
            let file = dir.join(format!("libnvidia-ml.so.{version}"));
            fs::write(dir.join("new"), version).unwrap();
            fs::rename(dir.join("new"), &file).unwrap();
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(file, &link).unwrap();
        };
        point_at("595.80");
        let captured = LibraryFile::capture(Some(&link));
        // A library that is loaded keeps its inode from being used again.
        let _loaded = fs::File::open(&link).unwrap();
        assert_eq!(captured.replacement_version(Some("595.80")), None);
        point_at("595.80");
        assert_eq!(captured.replacement_version(Some("595.80")), None);
        point_at("600.10");
        assert_eq!(captured.replacement_version(Some("595.80")).as_deref(), Some("600.10"));
        fs::remove_file(&link).unwrap();
        assert_eq!(captured.replacement_version(Some("595.80")).as_deref(), Some("none"));
        fs::remove_dir_all(dir).unwrap();
    }
}
