//! The build script of both programs, in a workspace of the same form: what it says, and when it runs again.
#![expect(clippy::unwrap_used, reason = "a test that meets a None has failed")]

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A workspace with one program that prints its version.
struct Workspace(PathBuf);

impl Workspace {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let package = |name: &str, more: &str| {
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{more}")
        };
        write("Cargo.toml", "[workspace]\nmembers = [\"app\", \"shared\"]\nresolver = \"3\"\n");
        write(".gitignore", "/target\n");
        write("app/Cargo.toml", &package("app", "build = \"../shared/build/version.rs\"\n"));
        write(
            "app/src/main.rs",
            "fn main() {\n    println!(\"{} / {}\", env!(\"BUILD_VERSION\"), env!(\"BUILD_DATE\"));\n}\n",
        );
        write("shared/Cargo.toml", &package("shared", ""));
        write("shared/src/lib.rs", "");
        write("shared/build/version.rs", include_str!("../../build/version.rs"));
        Self(folder)
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.0)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_COMMITTER_DATE", "2026-11-30T12:00:00Z")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits all there is; the version that it makes.
    fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "x"]);
        self.committed("")
    }

    fn committed(&self, mark: &str) -> String {
        format!("0.1.0 ({}{mark} 2026-11-30) / 2026-11-30", self.git(&["rev-parse", "--short=10", "HEAD"]))
    }

    fn cargo(&self, arguments: &[&str], commit: Option<&str>) -> Output {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.arg("build").arg("--offline").arg("--verbose").args(arguments);
        cargo.arg("--target-dir").arg(self.0.join("target"));
        cargo
            .current_dir(&self.0)
            .env_remove("SOURCE_COMMIT")
            .envs(commit.map(|commit| ("SOURCE_COMMIT", commit)));
        cargo.output().unwrap()
    }

    /// Builds and runs; what was printed, and whether anything had to be compiled.
    fn built_with(&self, arguments: &[&str], commit: Option<&str>) -> (String, bool) {
        let output = self.cargo(arguments, commit);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        let profile = if arguments.is_empty() { "debug" } else { "release" };
        let ran = Command::new(self.0.join("target").join(profile).join("app")).output().unwrap();
        (String::from_utf8(ran.stdout).unwrap().trim().to_owned(), !log.contains("Fresh app v"))
    }

    fn built(&self) -> (String, bool) {
        self.built_with(&[], None)
    }

    fn released(&self) -> (String, bool) {
        self.built_with(&["--release"], None)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.0.join(path), text).unwrap();
    }
}

/// The clean-up of what takes megabytes.
impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn git_is_missing() -> bool {
    let missing = Command::new("git").arg("--version").output().is_err();
    if missing {
        let _ = writeln!(io::stderr(), "skipped: there is no git here");
    }
    missing
}

#[test]
fn a_tarball_has_the_version_alone_or_the_stated_commit() {
    // It lies below this repository, whose commit is none of its.
    let tarball = Workspace::new("build-version-tarball");
    assert_eq!(tarball.built(), ("0.1.0 /".to_owned(), true));
    assert_eq!(tarball.built(), ("0.1.0 /".to_owned(), false));
    let stated = |commit| tarball.built_with(&[], Some(commit));
    assert_eq!(
        stated("abc1234def 2026-11-30"),
        ("0.1.0 (abc1234def 2026-11-30) / 2026-11-30".to_owned(), true)
    );
    assert_eq!(stated("v0.1.0"), ("0.1.0 (v0.1.0) /".to_owned(), true));
    let refused = tarball.cargo(&[], Some("x\ncargo:rustc-env=A=B"));
    let log = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && log.contains("SOURCE_COMMIT: expected HASH or HASH DATE"), "{log}");
}

#[test]
fn a_checkout_has_its_commit_and_is_rebuilt_only_when_it_changes() {
    if git_is_missing() {
        return;
    }
    let main = Workspace::new("build-version-checkout");
    main.cargo(&[], None); // Cargo.lock is one of the sources
    fs::remove_dir_all(main.0.join("target")).unwrap();
    main.git(&["init", "--quiet", "--initial-branch", "main"]);
    let first = main.commit();
    assert_eq!(main.built(), (first.clone(), true));
    assert_eq!(main.built(), (first.clone(), false));
    main.write("README.md", "no source");
    assert_eq!(main.built(), (first, false));

    let second = main.commit();
    assert_eq!(main.built(), (second.clone(), true));
    assert_eq!(main.built(), (second.clone(), false));

    // The branch becomes a line of a common file, and a file of its own with the next commit.
    main.git(&["pack-refs", "--all"]);
    assert_eq!(main.built().0, second);
    assert_eq!(main.built(), (second.clone(), false));
    let third = main.commit();
    assert_eq!(main.built(), (third.clone(), true));
    main.git(&["checkout", "--quiet", "--detach", "HEAD~1"]);
    assert_eq!(main.built(), (second, true));
    main.git(&["checkout", "--quiet", "main"]);
    assert_eq!(main.built(), (third, true));

    // A linked worktree, where `.git` is a file, has a HEAD of its own.
    let linked = Workspace(main.0.with_file_name("build-version-linked"));
    let _ = fs::remove_dir_all(&linked.0);
    main.git(&["worktree", "add", "--quiet", "-b", "other", &linked.0.display().to_string()]);
    assert_eq!(linked.built(), (linked.committed(""), true));
    main.commit();
    assert_eq!(linked.built(), (linked.committed(""), false));
    let own = linked.commit();
    assert_eq!(linked.built(), (own, true));
}

#[test]
fn a_release_says_whether_its_sources_differ_from_the_commit() {
    if git_is_missing() {
        return;
    }
    let checkout = Workspace::new("build-version-release");
    checkout.cargo(&[], None);
    checkout.git(&["init", "--quiet", "--initial-branch", "main"]);
    let clean = checkout.commit();
    assert_eq!(checkout.released(), (clean.clone(), true));
    assert_eq!(checkout.released(), (clean.clone(), false));
    checkout.write("shared/src/lib.rs", "//! Changed.\n");
    let dirty = checkout.committed("-dirty");
    assert_eq!(checkout.released(), (dirty.clone(), true));
    assert_eq!(checkout.released(), (dirty, false));
    checkout.git(&["checkout", "--quiet", "--", "shared/src/lib.rs"]);
    assert_eq!(checkout.released(), (clean, true));
    checkout.write("shared/src/lib.rs", "//! Changed.\n");
    let next = checkout.commit();
    assert_eq!(checkout.released(), (next, true));
}
