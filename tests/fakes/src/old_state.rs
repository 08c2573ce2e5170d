//! The state that earlier versions left on the disk ([how it came about](../../fixtures/state-0.1/README.md)), for tests of what the
//! current one makes of it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// Copies what this program of this version left into a fresh directory, with the modes that it gave its files: Git keeps none.
pub fn copy_old_state(version: &str, program: &str) -> std::path::PathBuf {
    let dir = crate::fresh_dir(&format!("state-{version}"));
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/state-{version}/{program}")), &dir);
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the directory can be made");
    for entry in fs::read_dir(from).expect("the fixtures are there") {
        let path = entry.expect("a readable directory").path();
        let name = path.file_name().expect("an entry has a name");
        let target = to.join(name);
        if path.is_dir() {
            copy(&path, &target);
            continue;
        }
        fs::copy(&path, &target).expect("the directory can be written");
        let name = name.to_string_lossy();
        let private = name.ends_with("key.pem") || name.ends_with(".png.json");
        let mode = if private { 0o600 } else { 0o644 };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).expect("the file is ours");
    }
}

/// The lines of what was in force then that are not among what is in force now, as `check-config` prints both.
pub fn lost_settings(dir: &Path, now: &str) -> Vec<String> {
    let then = fs::read_to_string(dir.join("effective.txt")).expect("the fixture has it");
    let now: Vec<_> = now.lines().map(|line| line.split("  # ").next().unwrap_or_default()).collect();
    then.lines().filter(|line| !now.contains(line)).map(str::to_owned).collect()
}
