//! Tests of the small versions of images: made once, bounded in number and size.

use std::collections::BTreeSet;

use picture::painter::ProceduralImage;
use wire::openai::images::ImageSize;

use super::*;
use crate::store::{
    EncodedImage,
    disk::{ImageStore, tests::temporary},
    index::StoreTotals,
    metadata::Provenance,
    retention::RetentionPolicy,
};

fn store_image(store: &ImageStore, seed: u64, unix: u64) -> ImageName {
    let painting = ProceduralImage { label: "test", prompt: "x", seed, size: ImageSize::new(500, 400) };
    let written = store.write(&EncodedImage::from_bytes(painting.to_png()).unwrap()).unwrap();
    store.commit(vec![(written, Provenance::default())], unix).unwrap().remove(0).name
}

fn thumbnails(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir.join(FOLDER)) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn file_of(name: &ImageName) -> String {
    format!("{}{EXTENSION}", name.as_str())
}

#[tokio::test]
async fn it_is_made_once_and_goes_with_its_image() {
    let dir = temporary("thumbnails");
    let store = ImageStore::open(&dir).unwrap();
    let (one, other) = (store_image(&store, 1, 7), store_image(&store, 2, 8));
    let totals = store.totals();
    let (first, second) = tokio::join!(store.thumbnails.get(&one), store.thumbnails.get(&one));
    assert_eq!(first.unwrap(), second.unwrap());
    store.thumbnails.get(&other).await.unwrap();
    assert_eq!(thumbnails(&dir), [file_of(&one), file_of(&other)].into());
    assert_eq!(store.totals(), totals, "it does not count");
    fs::write(dir.join(FOLDER).join(file_of(&one)), "kept").unwrap();
    assert_eq!(store.thumbnails.get(&one).await.unwrap(), "kept", "it is not made again");
    assert!(store.remove(&one).unwrap());
    assert_eq!(thumbnails(&dir), [file_of(&other)].into());
    let policy = RetentionPolicy { max_age: Some(Duration::from_secs(1)), ..RetentionPolicy::default() };
    let later = service::clock::unix_now() + 1000;
    assert_eq!(store.apply_retention(&policy, later, true).unwrap().images, 1);
    assert_eq!((thumbnails(&dir), store.totals()), (BTreeSet::new(), StoreTotals::default()));
    assert!(matches!(store.thumbnails.get(&other).await, Err(ThumbnailError::NotFound)));
    assert_eq!(thumbnails(&dir), BTreeSet::new());
}

#[tokio::test]
async fn what_nothing_needs_any_more_is_removed_at_start() {
    let dir = temporary("thumbnail-sweep");
    let store = ImageStore::open(&dir).unwrap();
    let (kept, gone) = (store_image(&store, 1, 7), store_image(&store, 2, 8));
    for name in [&kept, &gone] {
        store.thumbnails.get(name).await.unwrap();
    }
    drop(store);
    fs::remove_file(dir.join(gone.as_str())).unwrap();
    let folder = dir.join(FOLDER);
    let unfinished = format!(".incoming-{}.tmp", "0a".repeat(16));
    for name in [unfinished.as_str(), "notes.txt", "9_0123456789abcdef.png"] {
        fs::write(folder.join(name), "x").unwrap();
    }
    let store = ImageStore::open(&dir).unwrap();
    let others = ["notes.txt".to_owned(), "9_0123456789abcdef.png".to_owned()];
    assert_eq!(thumbnails(&dir), [file_of(&kept)].into_iter().chain(others).collect());
    assert!(store.thumbnails.index().insert(kept, 256 << 20).is_empty(), "it is counted once");
}

#[tokio::test]
async fn where_it_cannot_be_kept_it_is_made_each_time() {
    let dir = temporary("thumbnail-unkept");
    let elsewhere = temporary("thumbnail-elsewhere");
    std::os::unix::fs::symlink(&elsewhere, dir.join(FOLDER)).unwrap();
    let store = ImageStore::open(&dir).unwrap();
    let name = store_image(&store, 1, 7);
    for _ in 0..2 {
        assert!(store.thumbnails.get(&name).await.unwrap().starts_with(b"RIFF"));
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "a link is not followed");
    let foreign = elsewhere.join(file_of(&name));
    fs::write(&foreign, "another program's").unwrap();
    assert!(store.thumbnails.get(&name).await.unwrap().starts_with(b"RIFF"), "nor when one is read");
    assert!(store.remove(&name).unwrap() && foreign.exists(), "nor when one is deleted");
}

#[tokio::test]
async fn what_is_deleted_meanwhile_leaves_no_thumbnail() {
    let dir = temporary("thumbnail-race");
    let store = ImageStore::open(&dir).unwrap();
    let name = store_image(&store, 1, 7);
    fs::remove_file(dir.join(name.as_str())).unwrap();
    store.thumbnails.keep(&name, b"late").unwrap();
    assert_eq!(thumbnails(&dir), BTreeSet::new());
}

#[tokio::test]
async fn a_bounded_number_waits() {
    let dir = temporary("thumbnail-queue");
    let store = ImageStore::open(&dir).unwrap();
    let name = store_image(&store, 1, 7);
    let turn = store.thumbnails.turn.clone().try_acquire_owned().unwrap();
    let waiting: Vec<_> =
        (0..=MAX_WAITING).map(|_| store.thumbnails.places.clone().try_acquire_owned().unwrap()).collect();
    assert!(matches!(store.thumbnails.get(&name).await, Err(ThumbnailError::Busy)));
    drop((turn, waiting));
    assert!(store.thumbnails.get(&name).await.is_ok());
    assert_eq!(
        (store.thumbnails.places.available_permits(), store.thumbnails.turn.available_permits()),
        (65, 1)
    );
}
