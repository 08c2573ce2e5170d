//! Files at fixed names, where others who may write to the directory could plant links: only regular files are opened, never
//! through symbolic or hard links. Files that the service's group may read (logs, images), whatever the umask. Disk space.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::unistd::{Uid, User};
use rustix::{
    fs::{Access, OFlags, access},
    io::Errno,
};

/// Opens a file for reading and writing; creates it if it does not exist, and keeps its content.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    open(File::options().read(true).write(true).create(true).truncate(false), path)
}

/// Opens a file for writing, and truncates it.
pub fn create_no_follow(path: &Path) -> io::Result<File> {
    let file = open(File::options().write(true).create(true).truncate(false), path)?;
    // Only now: it is known to be a regular file.
    file.set_len(0)?;
    Ok(file)
}

/// Opens a file for reading.
pub fn read_no_follow(path: &Path) -> io::Result<File> {
    open(File::options().read(true), path)
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Without NONBLOCK, a pipe at this path would block for ever.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let opened = options.custom_flags(flags.cast_signed()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::LOOP.raw_os_error() => symlink_error(path),
        _ => error,
    })?;
    let metadata = file.metadata()?;
    match (metadata.is_file(), metadata.nlink()) {
        (false, _) => Err(path_error(path, "is not a regular file")),
        (true, 1) => Ok(file),
        (true, names) => Err(path_error(
            path,
            &format!("is a hard link (the file has {names} names), and is never followed"),
        )),
    }
}

fn symlink_error(path: &Path) -> io::Error {
    let target = fs::read_link(path).map(|target| format!(" to {}", target.display()));
    path_error(path, &format!("is a symbolic link{}, and is never followed", target.unwrap_or_default()))
}

fn path_error(path: &Path, why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{} {why}: remove it", path.display()))
}

const GROUP_READABLE: u32 = 0o640;
const GROUP_READABLE_DIR: u32 = 0o750;

/// Creates a file that the group may read, opened with these `options`. An existing one is an error.
pub fn create_group_readable(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.create_new(true).mode(GROUP_READABLE).open(path)?;
    // The umask may have removed bits.
    file.set_permissions(Permissions::from_mode(GROUP_READABLE))?;
    Ok(file)
}

/// Creates a directory and its parents, so that the group may read them. Existing ones stay as they are.
pub fn create_group_readable_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_group_readable_dir(parent)?;
    }
    match DirBuilder::new().mode(GROUP_READABLE_DIR).create(path) {
        Ok(()) => {
            // On Linux, the setgid bit inherited from the parent stays.
            let inherited_bits = fs::metadata(path)?.mode() & 0o7000;
            fs::set_permissions(path, Permissions::from_mode(inherited_bits | GROUP_READABLE_DIR))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether this process may write to a file, or create files in a directory. Root always may.
pub fn is_writable(path: &Path) -> bool {
    let mode = if path.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    access(path, mode).is_ok()
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The name of the user that this process runs as.
pub fn current_user_name() -> String {
    user_name(Uid::effective().as_raw())
}

/// The name of a user; `#1234` if no user has that ID.
pub fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| format!("#{uid}"), |user| user.name)
}

/// A file system's size and the space that a process without privileges may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes.
    pub total: u64,
    /// Bytes.
    pub free: u64,
}

/// The file system that a path is on. Blocks: a network file system may be slow.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let (unit, all, free) = statvfs_blocks(path)?;
    Ok(DiskSpace { total: all.saturating_mul(unit), free: free.saturating_mul(unit) })
}

/// macOS counts blocks in 32 bits in `statvfs`, which is too few.
#[cfg(target_vendor = "apple")]
fn statvfs_blocks(path: &Path) -> io::Result<(u64, u64, u64)> {
    let stats = rustix::fs::statfs(path)?;
    Ok((u64::from(stats.f_bsize), stats.f_blocks, stats.f_bavail))
}

#[cfg(not(target_vendor = "apple"))]
fn statvfs_blocks(path: &Path) -> io::Result<(u64, u64, u64)> {
    let stats = rustix::fs::statvfs(path)?;
    Ok((stats.f_frsize, stats.f_blocks, stats.f_bavail))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn temp_dir() -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("own-files-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_symbolic_link_is_named_and_its_target_is_not_touched() {
        let dir = temp_dir();
        let (target, path) = (dir.join("target"), dir.join("path"));
        fs::write(&target, "target").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        for opened in [open_no_follow(&path), create_no_follow(&path), read_no_follow(&path)] {
            let message = opened.unwrap_err().to_string();
            assert!(message.contains(&path.display().to_string()), "{message}");
            assert!(message.contains(&format!("symbolic link to {}", target.display())), "{message}");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "target");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.join("nowhere"), &path).unwrap();
        assert!(open_no_follow(&path).is_err() && !dir.join("nowhere").exists());
    }

    #[test]
    fn a_hard_link_is_not_opened() {
        let dir = temp_dir();
        let (target, path) = (dir.join("target"), dir.join("path"));
        fs::write(&target, "target").unwrap();
        fs::hard_link(&target, &path).unwrap();
        for opened in [open_no_follow(&path), create_no_follow(&path), read_no_follow(&path)] {
            let message = opened.unwrap_err().to_string();
            assert!(message.starts_with(&format!("{} is a hard link", path.display())), "{message}");
            assert!(message.ends_with("and is never followed: remove it"), "{message}");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "target");
        fs::remove_file(&path).unwrap();
        assert!(open_no_follow(&target).is_ok(), "one name is left");
    }

    #[test]
    fn a_directory_or_a_pipe_is_not_a_regular_file() {
        let dir = temp_dir();
        assert!(read_no_follow(&dir).unwrap_err().to_string().contains("not a regular file"));
        let path = dir.join("path");
        open_no_follow(&path).unwrap().write_all(b"one").unwrap();
        open_no_follow(&path).unwrap().write_all(b"T").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "Tne", "the content stays");
        create_no_follow(&path).unwrap().write_all(b"x").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
        let pipe = dir.join("pipe");
        if std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|done| done.success()) {
            assert!(read_no_follow(&pipe).is_err(), "does not wait for a writer");
        }
    }

    #[test]
    fn a_file_created_for_the_group_is_readable_by_it_and_nobody_else() {
        let dir = temp_dir();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let existing = dir.join("existing");
        fs::create_dir(&existing).unwrap();
        fs::set_permissions(&existing, Permissions::from_mode(0o700)).unwrap();
        let inner = existing.join("one/two");
        create_group_readable_dir(&inner).unwrap();
        create_group_readable_dir(&inner).unwrap();
        assert_eq!((mode(&existing), mode(&existing.join("one")), mode(&inner)), (0o700, 0o750, 0o750));
        let file = inner.join("file");
        create_group_readable(File::options().append(true), &file).unwrap();
        assert_eq!(mode(&file), 0o640);
        assert!(create_group_readable(File::options().append(true), &file).is_err());
        assert!(
            create_group_readable_dir(&file).is_err() && create_group_readable_dir(&file.join("x")).is_err()
        );
    }

    #[test]
    fn free_space_is_at_most_the_total() {
        let space = disk_space(Path::new("/")).unwrap();
        assert!(space.total > 0 && space.free <= space.total, "{space:?}");
        assert!(disk_space(Path::new("/nowhere/at/all")).is_err());
    }
}
