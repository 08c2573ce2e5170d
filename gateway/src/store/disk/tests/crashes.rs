//! The machine loses power, or the disk fails, between any two steps of any operation. What the store has confirmed must hold
//! afterwards; of what it was doing, each image is as before or as after.

use std::{collections::BTreeMap, time::SystemTime};

use proptest::prelude::*;
use service::clock::unix_seconds;

use super::*;
use crate::store::{
    changes::journal::{self, Change},
    metadata::ImageMetadata,
};

/// Every image that is served, with its record.
type Contents = BTreeMap<ImageName, ImageMetadata>;

#[derive(Debug, Clone)]
enum Operation {
    /// So many images from this seed on, at this time; without an owner where no token is required.
    Store(u64, u64, Option<&'static str>, u64),
    Delete(u64, u64),
    Disown(u64, u64, &'static str),
    Thumbnail(u64, u64),
    /// Down to so many images.
    Retain(usize),
    Restart,
}
use Operation::{Delete, Disown, Restart, Retain, Store, Thumbnail};

fn name_of(seed: u64, unix: u64) -> ImageName {
    image(seed).name(unix)
}

fn wanted(seed: u64, owner: Option<&str>) -> Provenance {
    let Some(owner) = owner else { return Provenance::default() };
    with_settings(owner, &format!("prompt {seed}"))
}

impl Operation {
    /// Whether somebody is told that it is done. Retention tells nobody, and who finds nothing to delete learns just that.
    fn is_confirmed(&self, before: &Contents, after: &Contents) -> bool {
        match self {
            Store(..) => true,
            Delete(..) | Disown(..) => before != after,
            Retain(_) | Thumbnail(..) | Restart => false,
        }
    }

    fn perform(&self, store: &mut Option<ImageStore>, dir: &Path) -> Result<(), String> {
        if let Restart = self {
            drop(store.take());
        }
        if store.is_none() {
            *store = Some(ImageStore::open(dir).map_err(|problem| problem.to_string())?);
        }
        let store = store.as_ref().unwrap();
        let io = |error: io::Error| error.to_string();
        match self {
            Store(seed, unix, owner, n) => {
                let write = |seed| Ok((store.write(&image(seed))?, wanted(seed, *owner)));
                let images = (*seed..seed + n).map(write).collect::<Result<_, StoreError>>();
                let stored = images.and_then(|images| store.commit(images, *unix));
                stored.map(drop).map_err(|error| error.to_string())
            }
            Delete(seed, unix) => store.remove(&name_of(*seed, *unix)).map(drop).map_err(io),
            Disown(seed, unix, owner) => {
                let removed = store.remove_owner(&name_of(*seed, *unix), &|other| other == *owner);
                removed.map(drop).map_err(io)
            }
            Thumbnail(seed, unix) => {
                let _ = store.thumbnails.make(&name_of(*seed, *unix));
                Ok(())
            }
            Retain(images) => {
                let index = store.index();
                let kept = index.page(None, *images).iter().map(|(_, entry)| entry.total_size()).sum();
                drop(index);
                let policy = RetentionPolicy { max_bytes: Some(kept), ..RetentionPolicy::default() };
                let later = unix_seconds(SystemTime::now()) + 120;
                store.apply_retention(&policy, later, true).map(drop).map_err(io)
            }
            Restart => Ok(()),
        }
    }

    /// The same, in the simplest way.
    fn model(&self, contents: &mut Contents) {
        match self {
            Store(seed, unix, owner, n) => {
                for seed in *seed..seed + n {
                    contents.entry(name_of(seed, *unix)).or_default().merge(&wanted(seed, *owner));
                }
            }
            Delete(seed, unix) => drop(contents.remove(&name_of(*seed, *unix))),
            Disown(seed, unix, owner) => {
                let name = name_of(*seed, *unix);
                let Some(record) = contents.get_mut(&name).filter(|record| owns(record, owner)) else {
                    return;
                };
                *record = record.without_owners(&|other| other == *owner);
                if record.owners.is_empty() {
                    contents.remove(&name);
                }
            }
            Retain(images) => {
                while contents.len() > *images {
                    contents.pop_first();
                }
            }
            Thumbnail(..) | Restart => {}
        }
    }
}

impl Operation {
    /// If the record cannot be written, the image is stored all the same.
    fn model_without_record(&self, contents: &mut Contents) {
        if let Store(seed, unix, _, n) = self {
            for seed in *seed..seed + n {
                contents.entry(name_of(seed, *unix)).or_default();
            }
        } else {
            self.model(contents);
        }
    }
}

fn owns(record: &ImageMetadata, owner: &str) -> bool {
    record.owners.iter().any(|other| other == owner)
}

/// What a store over this directory serves. Nothing else may lie there.
fn contents(dir: &Path) -> Contents {
    let store = ImageStore::open(dir).unwrap();
    let seeds: BTreeMap<_, _> = (0..8).map(|seed| (name_of(seed, 0).hash().to_owned(), seed)).collect();
    let mut contents = Contents::new();
    for listed in store.page(None, None, 99).unwrap().images {
        let name = listed.name;
        let bytes = fs::read(store.find(&name).unwrap().unwrap().path).unwrap();
        assert_eq!(bytes, image(seeds[name.hash()]).bytes(), "{}", name.as_str());
        contents.insert(name.clone(), store.read_metadata(&name).unwrap());
    }
    let mut left = files(dir);
    let mut own = |name: String| left.remove(&name);
    assert!(own(".lock".to_owned()));
    let has_thumbnails = own(".thumbnails".to_owned());
    for (name, record) in &contents {
        assert!(own(name.as_str().to_owned()));
        assert_eq!(own(format!("{}.json", name.as_str())), *record != ImageMetadata::default());
    }
    assert_eq!(left, BTreeSet::new(), "nothing else is left");
    for thumbnail in has_thumbnails.then(|| files(&dir.join(".thumbnails"))).into_iter().flatten() {
        let name = ImageName::parse(thumbnail.strip_suffix(".webp").unwrap()).unwrap();
        assert!(contents.contains_key(&name), "the thumbnail of an image that is gone");
        let kept = fs::read(dir.join(".thumbnails").join(&thumbnail)).unwrap();
        assert_eq!(store.thumbnails.make(&name).unwrap(), kept, "a whole thumbnail");
    }
    contents
}

/// Each image is as in one of these states.
fn assert_between(found: &Contents, states: &[Contents], when: &str) {
    for name in states.iter().flat_map(Contents::keys).chain(found.keys()) {
        let is_known = states.iter().any(|state| state.get(name) == found.get(name));
        let options: BTreeSet<_> = states.iter().map(|state| format!("{:?}", state.get(name))).collect();
        assert!(is_known, "{when}: {} is {:?}, not one of {options:#?}", name.as_str(), found.get(name));
    }
}

/// Performs a script, then looks at what every crash would have left.
fn check_crashes(script: &[Operation]) {
    let dir = temporary("crash-script");
    let (mut store, mut states, mut ended) = (None, vec![Contents::new()], Vec::new());
    journal::start(None);
    for operation in script {
        operation.perform(&mut store, &dir).unwrap();
        let mut next = states.last().unwrap().clone();
        operation.model(&mut next);
        states.push(next);
        ended.push(journal::len());
    }
    let changes = journal::stop();
    drop(store);
    assert_eq!(contents(&dir), *states.last().unwrap(), "without a crash");
    for kept in 0..=changes.len() {
        // The crash may come as late as the next flush of the names, which would have kept what follows.
        let rest = changes[kept..].iter().position(|change| matches!(change, Change::FlushNames));
        let crashed = rest.map_or(changes.len(), |flush| kept + flush);
        let done = ended.iter().filter(|at| **at <= crashed).count();
        let is_confirmed = |at: &usize| script[*at].is_confirmed(&states[*at], &states[at + 1]);
        let durable = (0..done).rev().find(is_confirmed).map_or(0, |last| last + 1);
        // What is not durable may be lost even before that, but nothing of what follows can be there.
        let begun = (ended.iter().filter(|at| **at <= kept).count() + 1).clamp(durable, script.len());
        for part in [0, 50, 99, 100] {
            let copy = temporary("crash");
            let is_cut = journal::replay(&changes[..kept], &dir, &copy, part);
            let when = format!("{kept} of {} changes kept, {part} % of a file: {script:?}", changes.len());
            assert_between(&contents(&copy), &states[durable..=begun], &when);
            fs::remove_dir_all(copy).unwrap();
            if !is_cut {
                break;
            }
        }
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Lets each step of a script fail in turn.
fn check_failures(script: &[Operation]) {
    for failing in 0.. {
        let dir = temporary("failing");
        let (mut store, mut possible) = (None, vec![Contents::new()]);
        journal::start(Some(failing));
        for operation in script {
            let was_pending = journal::is_pending();
            let outcome = operation.perform(&mut store, &dir);
            let with = |model: &dyn Fn(&Operation, &mut Contents)| {
                let apply = |mut state| {
                    model(operation, &mut state);
                    state
                };
                possible.iter().cloned().map(apply).collect::<Vec<_>>()
            };
            let mut next = with(&Operation::model);
            if was_pending && !journal::is_pending() {
                next.extend(with(&Operation::model_without_record));
            }
            // Of images that were to be stored together some may be: retention counts those.
            let is_uncertain = possible.len() > 1 && matches!(operation, Retain(_));
            if outcome.is_err() || is_uncertain {
                next.append(&mut possible);
            }
            possible = next;
        }
        let has_failed = !journal::is_pending();
        journal::stop();
        drop(store);
        let when = format!("change {failing} fails: {script:?}");
        assert_between(&contents(&dir), &possible, &when);
        fs::remove_dir_all(dir).unwrap();
        if !has_failed {
            return;
        }
    }
}

#[test]
fn a_crash_between_any_two_steps_loses_nothing_that_was_confirmed() {
    check_crashes(&[
        Store(1, 7, Some("alice"), 2),
        Store(1, 7, Some("bob"), 1),
        Store(4, 8, None, 1),
        Thumbnail(1, 7),
        Thumbnail(2, 7),
        Disown(1, 7, "alice"),
        Delete(2, 7),
        Restart,
        Store(2, 7, Some("bob"), 2),
        Disown(1, 7, "bob"),
        Retain(1),
        Store(4, 8, Some("alice"), 1),
    ]);
}

fn any_operation(creators: &'static [Option<&str>]) -> impl Strategy<Value = Operation> {
    let image = (1..4_u64, 7..9_u64);
    let owner = prop::sample::select(vec!["alice", "bob"]);
    prop_oneof![
        4 => (image.clone(), prop::sample::select(creators), 1..3_u64)
            .prop_map(|((seed, unix), owner, n)| Store(seed, unix, owner, n)),
        2 => image.clone().prop_map(|(seed, unix)| Delete(seed, unix)),
        2 => (image.clone(), owner).prop_map(|((seed, unix), owner)| Disown(seed, unix, owner)),
        1 => image.prop_map(|(seed, unix)| Thumbnail(seed, unix)),
        1 => (0..4_usize).prop_map(Retain),
        1 => Just(Restart),
    ]
}

proptest! {
    #![proptest_config(crate::tests::cases(8))]

    #[test]
    fn no_crash_in_any_script_loses_what_was_confirmed(
        script in prop::collection::vec(any_operation(&[Some("alice"), Some("bob"), None]), 1..8),
    ) {
        check_crashes(&script);
    }

    #[test]
    // An unfinished record that cannot be removed must not become that of a later image without one.
    fn no_failing_step_in_any_script_loses_what_was_confirmed(
        script in prop::collection::vec(any_operation(&[Some("alice"), Some("bob")]), 1..8),
    ) {
        check_failures(&script);
    }
}
