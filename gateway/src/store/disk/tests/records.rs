//! The records beside the images: owners, settings, lists that are filtered by them.

use super::*;

/// The timestamps of an owner's images, oldest first.
fn owned_by(store: &ImageStore, owner: &str) -> Vec<u64> {
    let wants = |_: &ImageName, image: &CachedMetadata| image.owners.iter().any(|other| other == owner);
    let ImagePage { images, totals, .. } = store.page(Some(&wants), None, 99).unwrap();
    assert_eq!(images.len(), totals.images);
    images.iter().rev().map(|listed| listed.name.unix()).collect()
}

#[test]
fn a_record_is_counted_and_deleted_with_its_image() {
    let dir = temporary("records");
    let store = ImageStore::open(&dir).unwrap();
    let hers = store_for(&store, 1, 7, &provenance("alice", "r1"));
    let his = store_for(&store, 2, 8, &provenance("bob", "r2"));
    assert_eq!((owned_by(&store, "alice"), owned_by(&store, "bob")), (vec![7], vec![8]));
    let bytes = |ending: &str| {
        let all = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.extension().is_some_and(|extension| extension == ending))
            .map(|path| fs::metadata(path).unwrap().len())
            .sum::<u64>()
    };
    let all = StoreTotals { images: 2, bytes: bytes("png") + bytes("json") };
    assert_eq!(store.totals(), all);
    drop(store);
    let store = ImageStore::open(&dir).unwrap();
    assert_eq!(store.totals(), all, "after a restart");
    assert_eq!((owned_by(&store, "alice"), owned_by(&store, "bob")), (vec![7], vec![8]));
    let policy = RetentionPolicy { max_bytes: Some(all.bytes - 1), ..RetentionPolicy::default() };
    let minute = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 60;
    assert_eq!(store.apply_retention(&policy, minute, true).unwrap().images, 1);
    assert_eq!(
        files(&dir),
        [".lock", his.as_str(), &format!("{}.json", his.as_str())].map(str::to_owned).into()
    );
    assert!(store.find(&hers).unwrap().is_none() && owned_by(&store, "alice").is_empty());
    assert_eq!(owned_by(&store, "bob"), [8], "read records stay cached");
}

#[test]
fn the_same_image_has_both_owners_and_is_deleted_with_the_last() {
    let dir = temporary("owners");
    let store = ImageStore::open(&dir).unwrap();
    let name = store_for(&store, 1, 7, &provenance("alice", "r1"));
    fs::write(dir.join(format!("{}.json", name.as_str())), r#"{"owners":["alice"],"prompt":"x"}"#).unwrap();
    assert_eq!(store_for(&store, 1, 7, &provenance("bob", "r2")), name);
    let record = store.read_metadata(&name).unwrap();
    assert_eq!(record.owners, ["alice", "bob"]);
    assert!(!record.further.contains_key("prompt"), "it is not his");
    let is = |owner: &'static str| move |other: &str| other == owner;
    assert!(!store.remove_owner(&name, &is("carol")).unwrap());
    assert!(store.remove_owner(&name, &is("alice")).unwrap());
    assert_eq!((owned_by(&store, "alice"), owned_by(&store, "bob")), (vec![], vec![7]));
    assert!(store.remove_owner(&name, &is("bob")).unwrap());
    assert_eq!((files(&dir), store.totals()), ([".lock".to_owned()].into(), StoreTotals::default()));
    assert!(!store.remove_owner(&name, &is("bob")).unwrap());
}

#[test]
fn an_image_is_stored_even_if_its_record_cannot_be() {
    let dir = temporary("no-record");
    let store = ImageStore::open(&dir).unwrap();
    let name = store.write(&image(1)).unwrap().name(7);
    let record = dir.join(format!("{}.json", name.as_str()));
    fs::create_dir(&record).unwrap();
    fs::write(record.join("x"), "x").unwrap();
    assert_eq!(store_for(&store, 1, 7, &provenance("alice", "r1")), name);
    assert!(store.find(&name).unwrap().is_some() && owned_by(&store, "alice").is_empty());
    assert_eq!(files(&dir).len(), 3, "no leftovers: {:?}", files(&dir));
    std::os::unix::fs::symlink(dir.join("nowhere"), dir.join("8_0123456789abcdef.png.json")).unwrap();
    fs::write(dir.join("8_0123456789abcdef.png"), "x").unwrap();
    drop(store);
    let store = ImageStore::open(&dir).unwrap();
    let linked = ImageName::parse("8_0123456789abcdef.png").unwrap();
    assert_eq!(
        store.read_metadata(&linked).unwrap(),
        crate::store::metadata::ImageMetadata::default(),
        "links are not followed"
    );
    assert!(store.remove(&linked).unwrap() && store.remove(&name).unwrap());
}

#[test]
fn records_are_read_once_for_lists_and_again_before_deletion() {
    let dir = temporary("once");
    let store = ImageStore::open(&dir).unwrap();
    let name = store_for(&store, 1, 7, &provenance("alice", "r1"));
    drop(store);
    let store = ImageStore::open(&dir).unwrap();
    assert_eq!(owned_by(&store, "alice"), [7]);
    fs::write(dir.join(format!("{}.json", name.as_str())), r#"{"owners":["bob"]}"#).unwrap();
    assert_eq!(owned_by(&store, "alice"), [7]);
    assert!(!store.remove_owner(&name, &|owner| owner == "alice").unwrap(), "it reads the record again");
}

/// The timestamps of the images with this text, newest first, and how many there are in all.
fn with_text(store: &ImageStore, text: &str, before: Option<&ImageName>, limit: usize) -> (Vec<u64>, usize) {
    let text = SearchText::new(text);
    let filter = |_: &ImageName, image: &CachedMetadata| image.contains(&text);
    let ImagePage { images, totals, .. } = store.page(Some(&filter), before, limit).unwrap();
    (images.iter().map(|listed| listed.name.unix()).collect(), totals.images)
}

#[test]
fn settings_are_stored_and_found_with_their_image_and_deleted_with_it() {
    let dir = temporary("settings");
    let store = ImageStore::open(&dir).unwrap();
    for (seed, prompt) in [(1, "a red cat"), (2, "a dog"), (3, "another CAT")] {
        store_for(&store, seed, seed, &with_settings("alice", prompt));
    }
    let cats = |store: &ImageStore| with_text(store, "cat", None, 9);
    assert_eq!(cats(&store), (vec![3, 1], 2));
    drop(store);
    let store = ImageStore::open(&dir).unwrap();
    assert_eq!(cats(&store), (vec![3, 1], 2), "after a restart");
    let newest = store.page(None, None, 1).unwrap().images.remove(0);
    assert_eq!(newest.metadata.summary()["prompt"], "another CAT");
    assert_eq!(with_text(&store, "cat", Some(&newest.name), 1), (vec![1], 2), "the total is of all pages");
    fs::remove_file(dir.join(newest.name.as_str())).unwrap();
    assert_eq!(
        with_text(&store, "cat", None, 1),
        (vec![1], 1),
        "a deleted file leaves no gap and does not count"
    );
    for listed in store.page(None, None, 9).unwrap().images {
        assert!(store.remove(&listed.name).unwrap());
    }
    assert_eq!((cats(&store), store.totals()), ((vec![], 0), StoreTotals::default()));
    let orphan = format!("{}.json", newest.name.as_str());
    assert_eq!(files(&dir), [".lock", &orphan].map(str::to_owned).into(), "the one deleted by hand");
}

#[test]
fn a_filtered_page_of_thousands_reads_nothing_but_its_own_files() {
    let dir = temporary("many");
    for nth in 0..5_000 {
        let name = dir.join(format!("{}_0123456789abcdef.png", nth + 1));
        fs::write(&name, b"x").unwrap();
        let record = format!(r#"{{"owners":["alice"],"prompt":"picture {nth} of {}"}}"#, "x".repeat(400));
        fs::write(name.with_extension("png.json"), record).unwrap();
    }
    let store = ImageStore::open(&dir).unwrap();
    assert_eq!(with_text(&store, "PICTURE 49", None, 50), ((4_951..=5_000).rev().collect(), 111));
    // Everything but the page's own images is gone: it is not looked at.
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let unix = path.file_name().unwrap().to_str().unwrap().split('_').next().unwrap().parse::<u64>();
        if !unix.is_ok_and(|unix| (4_950..=5_000).contains(&unix)) || path.extension().unwrap() == "json" {
            fs::remove_file(path).unwrap();
        }
    }
    let started = std::time::Instant::now();
    let (page, total) = with_text(&store, "picture 49", None, 50);
    println!("a page of 50 of {total} in {:?}", started.elapsed());
    assert_eq!((page, total), ((4_951..=5_000).rev().collect(), 111));
}
