//! What several threads do at once.

use std::{sync::mpsc, thread, time::Duration};

use super::*;

/// The result of work on another thread, which must not wait for this one.
fn at_once<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || drop(sender.send(work())));
    receiver.recv_timeout(Duration::from_secs(10)).expect("it waits for nobody")
}

#[test]
fn totals_wait_for_nobody_who_holds_the_index() {
    let store = filled(&temporary("totals"), &[(7, 3)]);
    let held = store.index();
    let reader = store.clone();
    assert_eq!(at_once(move || reader.totals()), StoreTotals { images: 1, bytes: 3 });
    drop(held);
}

#[test]
fn images_are_stored_and_deleted_while_others_are_searched() {
    let store = filled(&temporary("searched"), &[(7, 3), (8, 3), (9, 3)]);
    let visit = |name: &ImageName, _: &CachedMetadata| {
        let (other, name) = (store.clone(), name.clone());
        at_once(move || {
            store_for(&other, 1, 10, &provenance("alice", "r1"));
            name.unix() == 10 || other.remove(&name).unwrap()
        })
    };
    let ImagePage { images, totals, .. } = store.page(Some(&visit), None, 9).unwrap();
    assert_eq!((images.len(), totals.images, store.totals().images), (0, 0, 1));
}

#[test]
fn two_owners_who_delete_their_image_at_once_leave_nothing() {
    let dir = temporary("both-delete");
    let store = ImageStore::open(&dir).unwrap();
    for round in 0..20 {
        let name = store_for(&store, 1, round, &provenance("alice", "r1"));
        store_for(&store, 1, round, &provenance("bob", "r2"));
        thread::scope(|scope| {
            for owner in ["alice", "bob"] {
                let (store, name) = (&store, &name);
                scope.spawn(move || assert!(store.remove_owner(name, &|other| other == owner).unwrap()));
            }
        });
        assert_eq!((files(&dir), store.totals()), ([".lock".to_owned()].into(), StoreTotals::default()));
    }
}

#[test]
fn an_image_that_is_stored_and_deleted_at_once_has_its_record_or_neither_is_left() {
    let dir = temporary("store-delete");
    let store = ImageStore::open(&dir).unwrap();
    for round in 0..40 {
        let name = store_for(&store, 1, round, &provenance("alice", "r1"));
        let written = vec![(store.write(&image(1)).unwrap(), provenance("bob", "r2"))];
        let (sender, begun) = mpsc::channel();
        let (shared, shared_name) = (&store, &name);
        thread::scope(|scope| {
            scope.spawn(move || {
                begun.recv().unwrap();
                // The record is flushed first, which takes a while: the two meet in some of the rounds.
                (0..round * 20_000).for_each(|_| std::hint::spin_loop());
                shared.remove_owner(shared_name, &|owner| owner == "alice").unwrap();
            });
            scope.spawn(move || {
                sender.send(()).unwrap();
                shared.commit(written, round).unwrap();
            });
        });
        assert_eq!(store.read_metadata(&name).unwrap().owners, ["bob"], "he has just stored it");
        let (record, image) = (format!("{}.json", name.as_str()), name.as_str().to_owned());
        assert_eq!(files(&dir), [".lock".to_owned(), record, image].into());
        assert!(store.remove(&name).unwrap());
    }
}
