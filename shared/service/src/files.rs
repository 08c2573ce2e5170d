//! Files of our own at fixed names, where whoever may write to the folder could lay a trap: never opened through a symbolic
//! or a hard link, never anything but a regular file. What the group of the service may read (logs, pictures), whatever the umask
//! says. And how much room a disk has.

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

/// Opens it for reading and writing, making it where it is not there; what is in it stays.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    open(File::options().read(true).write(true).create(true).truncate(false), path)
}

/// The same for writing it anew.
pub fn create_no_follow(path: &Path) -> io::Result<File> {
    let file = open(File::options().write(true).create(true).truncate(false), path)?;
    // Not before it was seen to be a regular file.
    file.set_len(0)?;
    Ok(file)
}

/// Opens it for reading.
pub fn read_no_follow(path: &Path) -> io::Result<File> {
    open(File::options().read(true), path)
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Without NONBLOCK, a pipe at the place would hold us up for ever.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let opened = options.custom_flags(flags.cast_signed()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::LOOP.raw_os_error() => symlink_error(path),
        _ => error,
    })?;
    let found = file.metadata()?;
    match (found.is_file(), found.nlink()) {
        (false, _) => Err(path_error(path, "is no regular file")),
        (true, 1) => Ok(file),
        (true, names) => Err(path_error(
            path,
            &format!("is a hard link (the file has {names} names), and is never opened through one"),
        )),
    }
}

fn symlink_error(path: &Path) -> io::Error {
    let target = fs::read_link(path).map(|target| format!(" to {}", target.display()));
    path_error(
        path,
        &format!("is a symbolic link{}, and is never opened through one", target.unwrap_or_default()),
    )
}

fn path_error(path: &Path, why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{} {why}: remove it", path.display()))
}

/// A file that the service makes, and its group may read.
const GROUP_READABLE: u32 = 0o640;
/// The same of a folder.
const GROUP_READABLE_DIR: u32 = 0o750;

/// Makes a file that the group may read; `options` say what else is done with it. An existing one is an error.
pub fn create_group_readable(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.create_new(true).mode(GROUP_READABLE).open(path)?;
    // The umask took its part.
    file.set_permissions(Permissions::from_mode(GROUP_READABLE))?;
    Ok(file)
}

/// Makes a folder, and those above it, so that the group may look into them. What is there stays as it is.
pub fn create_group_readable_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        create_group_readable_dir(parent)?;
    }
    match DirBuilder::new().mode(GROUP_READABLE_DIR).create(path) {
        Ok(()) => {
            // What the folder above hands down (the group, on Linux) stays.
            let inherited_bits = fs::metadata(path)?.mode() & 0o7000;
            fs::set_permissions(path, Permissions::from_mode(inherited_bits | GROUP_READABLE_DIR))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether this process may write to a file, or make something in a folder. Who is root always may.
pub fn is_writable(path: &Path) -> bool {
    let wanted = if path.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    access(path, wanted).is_ok()
}

/// Whether this process may do everything here.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The name of the account that this process runs as.
pub fn current_user_name() -> String {
    user_name(Uid::effective().as_raw())
}

/// The name of an account; `#1234` where nobody has that number.
pub fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| format!("#{uid}"), |user| user.name)
}

/// A disk as a process without privileges finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes of all.
    pub total: u64,
    /// Bytes that can still be written.
    pub free: u64,
}

/// The disk that a path is on. Blocks: a network disk may take its time.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let (unit, all, free) = statvfs_blocks(path)?;
    Ok(DiskSpace { total: all.saturating_mul(unit), free: free.saturating_mul(unit) })
}

/// macOS counts a disk's blocks in 32 bits in `statvfs`, which is too few.
#[cfg(target_vendor = "apple")]
fn statvfs_blocks(path: &Path) -> io::Result<(u64, u64, u64)> {
    let seen = rustix::fs::statfs(path)?;
    Ok((u64::from(seen.f_bsize), seen.f_blocks, seen.f_bavail))
}

#[cfg(not(target_vendor = "apple"))]
fn statvfs_blocks(path: &Path) -> io::Result<(u64, u64, u64)> {
    let seen = rustix::fs::statvfs(path)?;
    Ok((seen.f_frsize, seen.f_blocks, seen.f_bavail))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn folder() -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("own-files-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_link_is_named_and_what_it_leads_to_is_not_touched() {
        let folder = folder();
        let (precious, place) = (folder.join("precious"), folder.join("place"));
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &place).unwrap();
        for opened in [open_no_follow(&place), create_no_follow(&place), read_no_follow(&place)] {
            let message = opened.unwrap_err().to_string();
            assert!(message.contains(&place.display().to_string()), "{message}");
            assert!(message.contains(&format!("symbolic link to {}", precious.display())), "{message}");
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink(folder.join("nowhere"), &place).unwrap();
        assert!(open_no_follow(&place).is_err() && !folder.join("nowhere").exists());
    }

    #[test]
    fn a_file_that_has_another_name_is_not_touched() {
        let folder = folder();
        let (precious, place) = (folder.join("precious"), folder.join("place"));
        fs::write(&precious, "precious").unwrap();
        fs::hard_link(&precious, &place).unwrap();
        for opened in [open_no_follow(&place), create_no_follow(&place), read_no_follow(&place)] {
            let message = opened.unwrap_err().to_string();
            assert!(message.starts_with(&format!("{} is a hard link", place.display())), "{message}");
            assert!(message.ends_with("and is never opened through one: remove it"), "{message}");
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        fs::remove_file(&place).unwrap();
        assert!(open_no_follow(&precious).is_ok(), "the one name is left");
    }

    #[test]
    fn a_folder_or_a_pipe_is_no_file_and_a_file_is() {
        let folder = folder();
        assert!(read_no_follow(&folder).unwrap_err().to_string().contains("no regular file"));
        let place = folder.join("place");
        open_no_follow(&place).unwrap().write_all(b"one").unwrap();
        open_no_follow(&place).unwrap().write_all(b"T").unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "Tne", "what is in it stays");
        create_no_follow(&place).unwrap().write_all(b"x").unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "x");
        let pipe = folder.join("pipe");
        if std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|done| done.success()) {
            assert!(read_no_follow(&pipe).is_err(), "and it does not wait for a writer");
        }
    }

    #[test]
    fn what_is_made_for_the_group_can_be_read_by_it_and_by_nobody_else() {
        let folder = folder();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let existing = folder.join("existing");
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
    fn a_disk_has_no_more_room_than_it_is_large() {
        let disk = disk_space(Path::new("/")).unwrap();
        assert!(disk.total > 0 && disk.free <= disk.total, "{disk:?}");
        assert!(disk_space(Path::new("/nowhere/at/all")).is_err());
    }
}
