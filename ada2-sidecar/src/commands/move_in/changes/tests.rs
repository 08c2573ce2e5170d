use std::collections::BTreeMap;

use super::*;

/// Every path below a directory, with what identifies the file.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u64, u32, String)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, data) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
        if data.is_dir() {
            files.extend(tree(&path));
        }
        let content = if data.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            fs::read_to_string(&path).unwrap_or_default()
        };
        files.insert(path, (data.ino(), data.mode(), content));
    }
    files
}

fn test_dir() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ada2-changes-{}", uuid::Uuid::new_v4()));
    fs::create_dir_all(dir.join("nginx/sites-enabled")).unwrap();
    fs::create_dir_all(dir.join("nginx/sites-available")).unwrap();
    fs::write(dir.join("nginx/sites-available/a"), "server").unwrap();
    symlink("../sites-available/a", dir.join("nginx/sites-enabled/a")).unwrap();
    fs::write(dir.join("config.yaml"), "old").unwrap();
    fs::set_permissions(dir.join("config.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    dir
}

/// All changes that move-in makes.
fn change_all(dir: &Path, record: RecordChange<'_>) -> io::Result<()> {
    write(&dir.join("config.yaml"), "new", record)?;
    write(&dir.join("system/unit.d/deep/x.conf"), "drop-in", record)?;
    create_symlink(Path::new("../unit"), &dir.join("system/wants/unit"), record)?;
    move_aside(&dir.join("nginx/sites-enabled/a"), record).map(drop)
}

#[test]
fn all_changes_are_undone_to_the_same_files() {
    let dir = test_dir();
    let before = tree(&dir);
    let mut changes = Vec::new();
    change_all(&dir, &mut |change| {
        changes.push(change);
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read_to_string(dir.join("config.yaml")).unwrap(), "new");
    assert_eq!(fs::metadata(dir.join("config.yaml")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(dir.join("config.yaml.before-move-in")).unwrap(), "old");
    let aside = dir.join("nginx/sites-enabled.moved-by-ada2-sidecar/a");
    assert_eq!(fs::read_to_string(&aside).unwrap(), "server", "the link keeps its target");
    for change in changes.iter().rev() {
        change.undo().unwrap();
    }
    for change in &changes {
        change.redo().unwrap();
    }
    assert!(!dir.join("nginx/sites-enabled/a").exists() && fs::read_to_string(&aside).unwrap() == "server");
    for _ in 0..2 {
        for change in changes.iter().rev() {
            change.undo().unwrap();
        }
        assert_eq!(tree(&dir), before);
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_interruption_after_any_recorded_change_is_undone() {
    for last in 0.. {
        let dir = test_dir();
        let before = tree(&dir);
        let mut changes = Vec::new();
        let result = change_all(&dir, &mut |change| {
            changes.push(change);
            if changes.len() > last { Err(io::Error::other("the power failed")) } else { Ok(()) }
        });
        for change in changes.iter().rev() {
            change.undo().unwrap();
        }
        assert_eq!(tree(&dir), before, "after {last} changes");
        fs::remove_dir_all(dir).unwrap();
        if result.is_ok() {
            assert!(last > 6, "{changes:?}");
            return;
        }
    }
}

#[test]
fn a_half_replaced_file_comes_back_and_another_file_is_never_overwritten() {
    let dir = test_dir();
    let (path, backup) = (dir.join("config.yaml"), dir.join("config.yaml.before-move-in"));
    let before = tree(&dir);
    fs::hard_link(&path, &backup).unwrap();
    fs::write(temp_path(&path), "half").unwrap();
    Change::Replaced { path, backup }.undo().unwrap();
    assert_eq!(tree(&dir), before);
    let (from, to) = (dir.join("nginx/sites-enabled/a"), dir.join("nginx/sites-available/a"));
    let error = Change::Moved { from, to }.undo().unwrap_err();
    assert!(error.to_string().contains("exists again; compare it with"), "{error}");
    assert_eq!(tree(&dir), before);
    fs::remove_dir_all(dir).unwrap();
}
