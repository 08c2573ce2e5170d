//! The build script of both programs: tells the compiler the version with the commit, `0.1.0 (abc1234def 2026-11-30)`,
//! as `BUILD_VERSION`, and the date of the commit as `BUILD_DATE`.
//!
//! - The commit is `SOURCE_COMMIT` where that is set (`HASH` or `HASH DATE`, for builds from a tarball), else what git
//!   says where the workspace is a checkout, else none: the version alone.
//! - Cargo runs this again, and then compiles the program again, only when HEAD moves. With `SOURCE_COMMIT` set it does
//!   not look at git at all.
//! - `-dirty` behind the hash says that the files this program is made of differ from the commit. In a release build
//!   that is always right, since a change to one of them runs this again. In a debug build it is as of the last run:
//!   watching the sources would compile everything again for a change to a unit test.
#![expect(clippy::disallowed_methods, reason = "cargo talks to build scripts in environment variables")]

use std::{
    env,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// What a program is made of, from its own folder.
const SOURCES: [&str; 6] = ["src", "page", "Cargo.toml", "../shared", "../Cargo.toml", "../Cargo.lock"];

pub(crate) fn main() -> io::Result<()> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let mut instructions = vec!["rerun-if-env-changed=SOURCE_COMMIT".to_owned()];
    let commit = match variable("SOURCE_COMMIT") {
        given if !given.trim().is_empty() => Some(stated(given.trim())?),
        _ if package.join("../.git").exists() => {
            instructions.extend(
                watched_paths(&package).iter().map(|path| format!("rerun-if-changed={}", path.display())),
            );
            committed(&package)
        }
        // A tarball unpacked below some other checkout is none of that.
        _ => None,
    };
    let version = variable("CARGO_PKG_VERSION");
    let version = commit.as_ref().map_or(version.clone(), |commit| format!("{version} ({commit})"));
    let date = commit.iter().find_map(|commit| commit.split(' ').nth(1)).unwrap_or_default();
    instructions.push(format!("rustc-env=BUILD_VERSION={version}"));
    instructions.push(format!("rustc-env=BUILD_DATE={date}"));
    let mut cargo = io::stdout().lock();
    instructions.iter().try_for_each(|line| writeln!(cargo, "cargo:{line}"))
}

pub(crate) fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// The commit as the builder states it.
fn stated(commit: &str) -> io::Result<String> {
    let is_valid = |character: char| character.is_ascii_alphanumeric() || " .-_".contains(character);
    if commit.len() <= 60 && commit.chars().all(is_valid) {
        return Ok(commit.to_owned());
    }
    Err(io::Error::other(format!(
        "SOURCE_COMMIT: expected HASH or HASH DATE, such as \"abc1234def 2026-11-30\", found {commit:?}"
    )))
}

/// The commit that is checked out: `abc1234def 2026-11-30`, or `abc1234def-dirty 2026-11-30`.
fn committed(package: &Path) -> Option<String> {
    let commit = git(package, &["log", "-1", "--abbrev=10", "--format=%h %cs"])?;
    let (hash, date) = commit.split_once(' ')?;
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let changes = git(package, &[status.as_slice(), SOURCES.as_slice()].concat())?;
    Some(format!("{hash}{} {date}", if changes.is_empty() { "" } else { "-dirty" }))
}

/// What moves when HEAD does. A path that is not there would run this script at every build.
fn watched_paths(package: &Path) -> Vec<PathBuf> {
    let mut paths = vec![git_path(package, "HEAD")];
    // A branch is a file of its own, or a line of a common one until the next commit on it; `logs/HEAD` tells of that.
    match git(package, &["symbolic-ref", "--quiet", "HEAD"]).map(|branch| git_path(package, &branch)) {
        Some(Some(branch)) if branch.exists() => paths.push(Some(branch)),
        Some(_) => paths
            .extend(["packed-refs", "logs/HEAD", "reftable/tables.list"].map(|name| git_path(package, name))),
        None => {}
    }
    if variable("PROFILE") == "release" {
        paths.extend(SOURCES.map(|path| Some(package.join(path))));
    }
    paths.into_iter().flatten().filter(|path| path.exists()).collect()
}

/// Where git keeps this, in a linked worktree, too.
fn git_path(package: &Path, name: &str) -> Option<PathBuf> {
    git(package, &["rev-parse", "--git-path", name]).map(|path| package.join(path))
}

/// What git prints; nothing where it fails, for example in a directory of another user.
fn git(package: &Path, arguments: &[&str]) -> Option<String> {
    let command =
        Command::new("git").arg("-C").arg(package).arg("--no-optional-locks").args(arguments).output();
    let output = command.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
