use service::{
    doctor::Verdict::{Fail, Ok, Skip, Warn},
    files::DiskSpace,
};

use super::*;
use crate::commands::doctor::account::Account;

const ROOM: DiskSpace = DiskSpace { total: 1 << 40, free: 1 << 39 };

fn place(path: &str, kind: FileKind) -> PathFacts {
    let found = if kind == FileKind::Folder { PathKind::Folder } else { PathKind::File(9) };
    PathFacts { path: path.into(), kind, found, writable: Some(true), disk: Some(ROOM), device: Some(1) }
}

fn good() -> PathsFacts {
    PathsFacts {
        store: Some(place("/pictures", FileKind::Folder)),
        holder: None,
        data: Some(place("/data", FileKind::Folder)),
        log: Some(place("/logs/gateway.log", FileKind::File)),
        stderr: Some(0),
        rotation: Some(Rotation { rules: vec!["/logs/gateway.log".to_owned()], unread: false }),
        account: Account::find(Some("_gateway"), &[], Path::new("/app/.env")),
    }
}

fn store(places: &mut PathsFacts) -> &mut PathFacts {
    places.store.as_mut().expect("a good one has a store")
}

fn held(process: u32, program: &str) -> LockHolder {
    LockHolder { process, program: program.to_owned() }
}

type Case = (fn(&mut PathsFacts), &'static str, Verdict, &'static str);

/// That each fault is reported once, and nothing else is.
fn each_is_reported_once(table: &[Case]) {
    for (nth, (fault, name, verdict, fix)) in table.iter().enumerate() {
        let mut places = good();
        fault(&mut places);
        let found = findings(&places, None, true, Some(8));
        let finding = found.iter().find(|finding| finding.name == *name).unwrap();
        assert_eq!(finding.verdict, *verdict, "{nth} {finding:?}");
        assert!(finding.fix.as_deref().unwrap_or_default().contains(fix), "{nth} {finding:?}");
        assert!(found.iter().all(|other| other.name == *name || other.verdict == Ok), "{nth} {found:?}");
    }
}

#[test]
fn faults_of_the_store_are_reported_once_and_a_good_one_has_none() {
    each_is_reported_once(&[
        (|_| (), "store", Ok, ""),
        (|places| store(places).writable = Some(false), "store", Fail, "sudo chown _gateway /pictures"),
        (|places| store(places).writable = None, "store", Skip, ""),
        (
            |places| store(places).found = PathKind::File(1),
            "store",
            Fail,
            "sudo mv /pictures /pictures.moved",
        ),
        (|places| store(places).found = PathKind::Nothing("/".into()), "store", Ok, ""),
        (
            |places| store(places).found = PathKind::BlockedBy("/x".into()),
            "store",
            Fail,
            "sudo mv /x /x.moved",
        ),
        (
            |places| store(places).found = PathKind::Dangling("/Volumes/big".into()),
            "store",
            Fail,
            "mount the disk with /Volumes/big",
        ),
        (|places| store(places).found = PathKind::TimedOut, "store", Fail, "mount"),
        (|places| places.holder = Some(held(7, "nginx")), "store", Fail, "stop that process"),
        (|places| places.holder = Some(held(7, "/usr/bin/not-gateway")), "store", Fail, "stop that process"),
        (|places| places.holder = Some(held(7, "/usr/local/bin/gateway")), "store", Ok, ""),
        (|places| places.holder = Some(held(8, "a process")), "store", Ok, ""),
        (
            |places| store(places).disk = Some(DiskSpace { total: 1 << 40, free: 1 << 20 }),
            "store",
            Fail,
            "UI_IMAGE_STORE_MAX_BYTES",
        ),
        (
            |places| store(places).disk = Some(DiskSpace { total: 1 << 40, free: 1 << 35 }),
            "disk",
            Warn,
            "UI_IMAGE_STORE_MAX_BYTES",
        ),
    ]);
}

#[test]
fn faults_of_data_and_log_are_reported_once() {
    each_is_reported_once(&[
        (
            |places| places.data.as_mut().unwrap().writable = Some(false),
            "data_dir",
            Fail,
            "sudo chown _gateway /data",
        ),
        (|places| places.log.as_mut().unwrap().found = PathKind::Folder, "log", Fail, "sudo mv"),
        (
            |places| places.log.as_mut().unwrap().writable = Some(false),
            "log",
            Fail,
            "sudo chown _gateway /logs/gateway.log",
        ),
        (|places| places.log.as_mut().unwrap().found = PathKind::File(1 << 30), "log", Warn, "rotate it"),
        (|places| places.log = None, "log", Warn, "GATEWAY_LOG_FILE="),
        (
            |places| places.rotation = Some(Rotation::default()),
            "log_rotation",
            Warn,
            "sudo cp com.ai.gateway.newsyslog.conf",
        ),
        (
            |places| {
                places.rotation.as_mut().unwrap().rules =
                    vec!["/var/lib/gateway/logs/gateway.log".to_owned()];
            },
            "log_rotation",
            Warn,
            "with this path",
        ),
        (|places| places.rotation = Some(Rotation { rules: vec![], unread: true }), "log_rotation", Skip, ""),
    ]);
}

#[test]
fn a_disk_is_told_once_whatever_is_on_it() {
    let mut places = good();
    let full = Some(DiskSpace { total: 1 << 40, free: 1 << 35 });
    for place in [&mut places.store, &mut places.data, &mut places.log].into_iter().flatten() {
        place.disk = full;
    }
    assert_eq!(disks(&places).len(), 1);
}
