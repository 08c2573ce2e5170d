//! What several threads do at once, in many orders that shuttle chooses. A failure names the schedule that repeats it.

use std::{collections::BTreeSet, fs, sync::Arc};

use picture::painter::ProceduralImage;
use service::slots::Slots;
use shuttle::{
    check_dfs, check_random,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};
use wire::openai::images::ImageSize;

use crate::{
    jobs::{ImageJobs, JobError, JobState, NewJob},
    store::{
        EncodedImage,
        disk::{ImageStore, tests::temporary},
        metadata::Provenance,
        retention::RetentionPolicy,
    },
};

/// As many orders as proptest would try cases, unless `PROPTEST_CASES` says how many.
fn orders(default: u32) -> usize {
    super::cases(default).cases as usize
}

#[test]
fn slots_are_never_exceeded_and_never_lost() {
    let run = || {
        let (slots, held) = (Slots::new(1), Arc::new(AtomicUsize::new(0)));
        let work = |slots: Arc<Slots>, held: Arc<AtomicUsize>| {
            move || {
                let Some(permit) = slots.try_acquire() else { return };
                assert!(held.fetch_add(1, Ordering::SeqCst) < 1, "more than there are");
                held.fetch_sub(1, Ordering::SeqCst);
                drop(permit);
            }
        };
        let threads = [1, 2].map(|_| thread::spawn(work(slots.clone(), held.clone())));
        work(slots.clone(), held)();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(slots.inflight(), 0);
    };
    check_random(run, orders(2_000));
    check_dfs(run, Some(20_000));
}

#[test]
fn a_job_that_was_cancelled_never_stores_and_one_that_fails_meanwhile_says_cancelled() {
    let run = |fails: bool| {
        move || {
            let (jobs, stored) = (ImageJobs::default(), Arc::new(AtomicBool::new(false)));
            let guard = jobs.begin(NewJob { request_id: "r".to_owned(), ..NewJob::default() });
            let work = thread::spawn({
                let stored = stored.clone();
                move || {
                    if !fails && guard.begin_storing() {
                        stored.store(true, Ordering::SeqCst);
                        guard.complete(vec!["picture".to_owned()]);
                    } else {
                        guard.fail(JobError { status: 500, code: None, message: String::new() });
                    }
                }
            });
            let was_cancelled = jobs.cancel("r", &|_| true);
            work.join().unwrap();
            let state = jobs.visible(&|_| true).remove(0).state;
            let expected = match (was_cancelled, fails) {
                (true, _) => JobState::Cancelled,
                (false, true) => JobState::Failed,
                (false, false) => JobState::Done,
            };
            assert_eq!(state, expected);
            assert_eq!(stored.load(Ordering::SeqCst), state == JobState::Done);
        }
    };
    check_dfs(run(false), Some(20_000));
    check_dfs(run(true), Some(20_000));
}

fn image() -> EncodedImage {
    let painting = ProceduralImage { label: "test", prompt: "x", seed: 1, size: ImageSize::new(8, 8) };
    EncodedImage::from_bytes(painting.to_png()).unwrap()
}

fn store_one(store: &ImageStore, unix: u64) {
    let owner = Provenance { owner: Some("alice".to_owned()), ..Provenance::default() };
    store.commit(vec![(store.write(&image()).unwrap(), owner)], unix).unwrap();
}

/// The images that a list has, and those that lie on the disk.
fn listed_and_there(store: &ImageStore, dir: &std::path::Path) -> [BTreeSet<String>; 2] {
    let listed = store.page(None, None, 99).unwrap().images.into_iter();
    let listed = listed.map(|image| image.name.as_str().to_owned()).collect();
    let there = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    [
        listed,
        there.filter(|name| std::path::Path::new(name).extension().is_some_and(|end| end == "png")).collect(),
    ]
}

#[test]
fn lists_have_what_is_stored_whoever_stores_deletes_lists_and_scans_meanwhile() {
    let run = || {
        let dir = temporary("interleavings");
        let store = ImageStore::open(&dir).unwrap();
        store_one(&store, 7);
        let name = image().name(7);
        let spawn = |work: Box<dyn Fn(&ImageStore) + Send>| {
            let store = store.clone();
            thread::spawn(move || work(&store))
        };
        let removed = name.clone();
        let threads = [
            spawn(Box::new(move |store| assert!(store.remove(&removed).unwrap()))),
            spawn(Box::new(|store| store_one(store, 7))),
            spawn(Box::new(|store| store_one(store, 8))),
            spawn(Box::new(|store| drop(store.page(None, None, 9).unwrap()))),
            spawn(Box::new(|store| {
                // It reads the directory, and keeps what is younger than a minute.
                let policy = RetentionPolicy { max_bytes: Some(0), ..RetentionPolicy::default() };
                store.apply_retention(&policy, 9, true).unwrap();
            })),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        let [listed, there] = listed_and_there(&store, &dir);
        assert_eq!(listed, there);
        assert_eq!(store.totals().images, there.len());
        let is_there = there.contains(name.as_str());
        assert_eq!(
            store.read_metadata(&name).unwrap().owners.len(),
            usize::from(is_there),
            "a record with its image"
        );
        drop(store);
        fs::remove_dir_all(dir).unwrap();
    };
    check_random(run, orders(300));
}
