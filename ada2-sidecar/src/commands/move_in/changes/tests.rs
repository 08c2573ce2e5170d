use std::collections::BTreeMap;

use super::*;

/// Every name below a folder, with what makes it this file and no other.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u64, u32, String)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, data) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
        if data.is_dir() {
            found.extend(tree(&path));
        }
        let content = if data.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            fs::read_to_string(&path).unwrap_or_default()
        };
        found.insert(path, (data.ino(), data.mode(), content));
    }
    found
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ada2-changes-{}", uuid::Uuid::new_v4()));
    fs::create_dir_all(folder.join("nginx/sites-enabled")).unwrap();
    fs::create_dir_all(folder.join("nginx/sites-available")).unwrap();
    fs::write(folder.join("nginx/sites-available/a"), "server").unwrap();
    symlink("../sites-available/a", folder.join("nginx/sites-enabled/a")).unwrap();
    fs::write(folder.join("config.yaml"), "old").unwrap();
    fs::set_permissions(folder.join("config.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    folder
}

/// All that move-in does to files.
fn change_all(folder: &Path, note: RecordChange<'_>) -> io::Result<()> {
    write(&folder.join("config.yaml"), "new", note)?;
    write(&folder.join("system/unit.d/deep/x.conf"), "drop-in", note)?;
    create_symlink(Path::new("../unit"), &folder.join("system/wants/unit"), note)?;
    move_aside(&folder.join("nginx/sites-enabled/a"), note).map(drop)
}

#[test]
fn everything_is_changed_and_undone_to_the_same_files() {
    let folder = folder();
    let before = tree(&folder);
    let mut noted = Vec::new();
    change_all(&folder, &mut |change| {
        noted.push(change);
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read_to_string(folder.join("config.yaml")).unwrap(), "new");
    assert_eq!(fs::metadata(folder.join("config.yaml")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(folder.join("config.yaml.before-move-in")).unwrap(), "old");
    let aside = folder.join("nginx/sites-enabled.moved-by-ada2-sidecar/a");
    assert_eq!(fs::read_to_string(&aside).unwrap(), "server", "the link leads where it led");
    for change in noted.iter().rev() {
        change.undo().unwrap();
    }
    for change in &noted {
        change.redo().unwrap();
    }
    assert!(
        !folder.join("nginx/sites-enabled/a").exists() && fs::read_to_string(&aside).unwrap() == "server"
    );
    for _ in 0..2 {
        for change in noted.iter().rev() {
            change.undo().unwrap();
        }
        assert_eq!(tree(&folder), before);
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn whatever_change_is_the_last_that_was_noted_all_is_undone() {
    for last in 0.. {
        let folder = folder();
        let before = tree(&folder);
        let mut noted = Vec::new();
        let ended = change_all(&folder, &mut |change| {
            noted.push(change);
            if noted.len() > last { Err(io::Error::other("the power failed")) } else { Ok(()) }
        });
        for change in noted.iter().rev() {
            change.undo().unwrap();
        }
        assert_eq!(tree(&folder), before, "after {last} changes");
        fs::remove_dir_all(folder).unwrap();
        if ended.is_ok() {
            assert!(last > 6, "{noted:?}");
            return;
        }
    }
}

#[test]
fn a_file_that_is_half_replaced_comes_back_and_another_is_never_overwritten() {
    let folder = folder();
    let (path, kept) = (folder.join("config.yaml"), folder.join("config.yaml.before-move-in"));
    let before = tree(&folder);
    fs::hard_link(&path, &kept).unwrap();
    fs::write(temp_path(&path), "half").unwrap();
    Change::Replaced { path, kept }.undo().unwrap();
    assert_eq!(tree(&folder), before);
    let (from, to) = (folder.join("nginx/sites-enabled/a"), folder.join("nginx/sites-available/a"));
    let error = Change::Moved { from, to }.undo().unwrap_err();
    assert!(error.to_string().contains("is there again; compare it with"), "{error}");
    assert_eq!(tree(&folder), before);
    fs::remove_dir_all(folder).unwrap();
}
