//! The store on a disk: names, files, retention, pages. Further tests are in the modules below.

use std::{collections::BTreeSet, os::unix::fs::MetadataExt};

use picture::painter::ProceduralImage;
use wire::openai::images::ImageSize;

use super::*;
use crate::store::{
    cached_metadata::{CachedMetadata, SearchText},
    index::StoreTotals,
    listing::ImagePage,
    retention::RetentionPolicy,
};

mod concurrent;
mod crashes;
mod records;

/// A fresh directory of this test's own, below the build's temporary directory.
pub(crate) fn temporary(purpose: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("gateway-{purpose}-{}", uuid::Uuid::new_v4().simple()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn image(seed: u64) -> EncodedImage {
    let painting = ProceduralImage { label: "test", prompt: "x", seed, size: ImageSize::new(8, 8) };
    EncodedImage::from_bytes(painting.to_png()).unwrap()
}

/// Stores images and returns their names.
fn store_images(
    store: &ImageStore,
    images: &[EncodedImage],
    unix: u64,
) -> Result<Vec<ImageName>, StoreError> {
    let write = |image| Ok((store.write(image)?, Provenance::default()));
    let written = images.iter().map(write).collect::<Result<_, StoreError>>()?;
    Ok(store.commit(written, unix)?.into_iter().map(|stored| stored.name).collect())
}

fn files(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_image_is_stored_under_its_hash_without_leftovers() {
    let dir = temporary("keep");
    let store = ImageStore::open(&dir).unwrap();
    let names = store_images(&store, &[image(1), image(2)], 1_736_697_234).unwrap();
    assert_eq!(names.len(), 2);
    assert!(names[0].as_str().starts_with("1736697234_") && names[0] != names[1]);
    assert_eq!(fs::read(dir.join(names[0].as_str())).unwrap(), image(1).bytes());
    let mut expected: BTreeSet<_> = names.iter().map(|name| name.as_str().to_owned()).collect();
    expected.insert(".lock".to_owned());
    assert_eq!(files(&dir), expected);
    assert_eq!(store.find(&names[0]).unwrap().unwrap().mime, "image/png");
    assert_eq!(
        store_images(&store, &[image(1)], 1_736_697_234).unwrap(),
        names[..1],
        "storing it again is no error"
    );
}

#[test]
fn the_group_may_read_the_images() {
    let dir = temporary("group").join("data/images");
    let store = ImageStore::open(&dir).unwrap();
    let name = store_images(&store, &[image(1)], 7).unwrap().remove(0);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&dir), mode(dir.parent().unwrap())), (0o750, 0o750));
    assert_eq!(mode(&dir.join(name.as_str())), 0o640);
}

#[test]
fn an_existing_name_with_other_bytes_is_an_error_and_stays() {
    let dir = temporary("collision");
    let store = ImageStore::open(&dir).unwrap();
    let name = store.write(&image(1)).unwrap().name(7);
    let mut changed = image(1).bytes().to_vec();
    *changed.last_mut().unwrap() ^= 1;
    for other in [&b"other"[..], &changed] {
        fs::write(dir.join(name.as_str()), other).unwrap();
        let refused = store_images(&store, &[image(1)], 7);
        assert!(matches!(refused, Err(StoreError::Collision(taken)) if taken == name));
        assert_eq!(fs::read(dir.join(name.as_str())).unwrap(), other);
        assert_eq!(files(&dir).len(), 2, "the lock and the other file: {:?}", files(&dir));
    }
}

#[test]
fn only_our_own_unfinished_files_are_removed_at_start() {
    let dir = temporary("leftovers");
    let ours = format!(".incoming-{}.tmp", "0a".repeat(16));
    let others = [
        "1_0123456789abcdef.png",
        ".incoming-x.tmp",
        "notes.txt",
        ".incoming-00000000000000000000000000000000.bak",
    ];
    for name in others.iter().copied().chain([ours.as_str()]) {
        fs::write(dir.join(name), b"x").unwrap();
    }
    fs::create_dir(dir.join(format!(".incoming-{}.tmp", "0b".repeat(16)))).unwrap();
    let _store = ImageStore::open(&dir).unwrap();
    let left = files(&dir);
    assert!(!left.contains(&ours));
    assert!(others.iter().all(|name| left.contains(*name)), "{left:?}");
    assert_eq!(left.len(), others.len() + 2, "the directory and the lock stay: {left:?}");
}

#[test]
fn a_second_store_on_the_same_directory_names_the_holder() {
    let dir = temporary("lock");
    let first = ImageStore::open(&dir).unwrap();
    let problem = ImageStore::open(&dir).unwrap_err().to_string();
    assert!(problem.contains(&format!("process {}", std::process::id())), "{problem}");
    drop(first);
    assert!(ImageStore::open(&dir).is_ok());
}

#[test]
fn an_unwritable_store_is_reported_with_path_owner_and_fix() {
    let dir = temporary("unwritable").join("file");
    fs::write(&dir, b"no directory").unwrap();
    let problem = ImageStore::open(&dir.join("it's here")).unwrap_err().to_string();
    for part in ["UI_IMAGE_DIR", &dir.display().to_string(), "is owned by uid", "sudo chown", r"'\''s here'"]
    {
        assert!(problem.contains(part), "{part} in {problem}");
    }
}

#[test]
fn an_unfinished_file_is_removed() {
    let dir = temporary("rest");
    drop(TempFile::create(&dir).unwrap());
    assert_eq!(files(&dir), BTreeSet::new());
}

#[test]
fn the_type_is_detected_from_the_bytes_and_links_are_ignored() {
    let dir = temporary("mime");
    let store = ImageStore::open(&dir).unwrap();
    let find = |name: &str| store.find(&ImageName::parse(name).unwrap()).unwrap().map(|stored| stored.mime);
    fs::write(dir.join("1_0000000000000001.png"), [0xFF, 0xD8, 0xFF, 0xE0]).unwrap();
    fs::write(dir.join("1_0000000000000002.svg"), b" <svg/>").unwrap();
    fs::write(dir.join("1_0000000000000003.png"), b"<script>").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("1_0000000000000004.png")).unwrap();
    assert_eq!(find("1_0000000000000001.png"), Some("image/jpeg"));
    assert_eq!(find("1_0000000000000002.svg"), Some("image/svg+xml"));
    assert_eq!(find("1_0000000000000003.png"), Some("application/octet-stream"));
    assert_eq!(find("1_0000000000000004.png"), None);
    assert_eq!(find("1_0000000000000005.png"), None);
}

/// A store with images of these timestamps and sizes.
fn filled(dir: &Path, images: &[(u64, usize)]) -> ImageStore {
    for (unix, bytes) in images {
        let path = dir.join(format!("{unix}_0123456789abcdef.png"));
        fs::write(&path, vec![0; *bytes]).unwrap();
        let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(*unix);
        File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    }
    ImageStore::open(dir).unwrap()
}

fn timestamps(dir: &Path) -> Vec<u64> {
    let mut names: Vec<_> = files(dir).iter().filter_map(|name| ImageName::parse(name)).collect();
    names.sort_unstable();
    names.iter().map(ImageName::unix).collect()
}

#[test]
fn retention_deletes_the_oldest_and_only_regular_files_of_the_store() {
    let dir = temporary("retention");
    let outside = temporary("outside").join("1_0123456789abcdef.png");
    fs::write(&outside, vec![0; 500]).unwrap();
    fs::write(dir.join("notes.txt"), vec![0; 500]).unwrap();
    std::os::unix::fs::symlink(&outside, dir.join("1_0123456789abcdee.png")).unwrap();
    fs::create_dir(dir.join("2_0123456789abcdee.png")).unwrap();
    let store = filled(&dir, &[(10, 5), (20, 5), (30, 5)]);
    assert_eq!(store.totals(), StoreTotals { images: 3, bytes: 15 });
    let policy = RetentionPolicy { max_bytes: Some(10), ..RetentionPolicy::default() };
    assert_eq!(store.apply_retention(&policy, 1000, true).unwrap(), StoreTotals { images: 1, bytes: 5 });
    assert_eq!(store.apply_retention(&policy, 1000, true).unwrap(), StoreTotals::default());
    assert_eq!(store.totals(), StoreTotals { images: 2, bytes: 10 });
    assert_eq!(timestamps(&dir), [1, 2, 20, 30]);
    assert!(outside.exists() && dir.join("notes.txt").exists());
    // Files deleted by hand count.
    fs::remove_file(dir.join("30_0123456789abcdef.png")).unwrap();
    let policy = RetentionPolicy { max_bytes: Some(9), ..RetentionPolicy::default() };
    assert_eq!(store.apply_retention(&policy, 1000, true).unwrap(), StoreTotals::default());
    assert_eq!(timestamps(&dir), [1, 2, 20]);
}

#[test]
fn pages_list_existing_images_and_an_image_is_deleted_once() {
    let dir = temporary("pages");
    let store = filled(&dir, &[(9, 1), (10, 2), (100, 3), (11, 4)]);
    let page = |before: Option<&str>, limit| {
        let before = before.map(|name| ImageName::parse(name).unwrap());
        let ImagePage { images, has_more, .. } = store.page(None, before.as_ref(), limit).unwrap();
        (images.iter().map(|listed| listed.name.unix()).collect::<Vec<_>>(), has_more)
    };
    assert_eq!(page(None, 2), (vec![100, 11], true));
    assert_eq!(page(Some("11_0123456789abcdef.png"), 2), (vec![10, 9], false));
    fs::remove_file(dir.join("100_0123456789abcdef.png")).unwrap();
    assert_eq!(page(None, 2), (vec![11, 10], true), "a deleted file leaves no gap");
    assert_eq!(page(None, 3), (vec![11, 10, 9], false));
    let name = ImageName::parse("10_0123456789abcdef.png").unwrap();
    assert!(store.remove(&name).unwrap());
    assert!(!store.remove(&name).unwrap());
    assert_eq!(page(None, 9), (vec![11, 9], false));
    assert_eq!(store.totals(), StoreTotals { images: 2, bytes: 5 });
}

#[test]
fn an_inaccessible_image_is_not_taken_for_deleted() {
    let dir = temporary("unseen");
    let store = filled(&dir, &[(9, 1), (10, 2)]);
    let away = dir.with_extension("away");
    fs::rename(&dir, &away).unwrap();
    // With a file in place of the directory, the error is not NotFound.
    fs::write(&dir, b"").unwrap();
    assert!(store.page(None, None, 9).is_err());
    assert!(store.find(&ImageName::parse("9_0123456789abcdef.png").unwrap()).is_err());
    fs::remove_file(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    assert_eq!(store.page(None, None, 9).unwrap().images.len(), 2, "the index still has both");
}

#[test]
fn a_link_in_an_images_place_is_a_collision_and_is_not_followed() {
    let dir = temporary("linked");
    let store = ImageStore::open(&dir).unwrap();
    let outside = temporary("outside").join("same.png");
    fs::write(&outside, image(1).bytes()).unwrap();
    let name = store.write(&image(1)).unwrap().name(7);
    std::os::unix::fs::symlink(&outside, dir.join(name.as_str())).unwrap();
    assert!(
        matches!(store_images(&store, &[image(1)], 7), Err(StoreError::Collision(taken)) if taken == name)
    );
}

#[test]
fn a_new_image_counts_at_once() {
    let dir = temporary("counts");
    let store = ImageStore::open(&dir).unwrap();
    store_images(&store, &[image(1), image(1)], 7).unwrap();
    assert_eq!(store.totals(), StoreTotals { images: 1, bytes: image(1).bytes().len() as u64 });
}

fn provenance(owner: &str, request: &str) -> Provenance {
    let (owner, request_id) = (Some(owner.to_owned()), Some(request.to_owned()));
    Provenance { owner, request_id, ..Provenance::default() }
}

fn store_for(store: &ImageStore, seed: u64, unix: u64, provenance: &Provenance) -> ImageName {
    let written = vec![(store.write(&image(seed)).unwrap(), provenance.clone())];
    store.commit(written, unix).unwrap().remove(0).name
}

fn with_settings(owner: &str, prompt: &str) -> Provenance {
    let settings = serde_json::json!({"prompt": prompt, "model": "m"}).as_object().unwrap().clone();
    Provenance { settings, ..provenance(owner, "r") }
}
