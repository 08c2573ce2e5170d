use service::{
    doctor::Verdict::{Fail, Ok, Skip, Warn},
    files::DiskSpace,
};

use super::*;
use crate::commands::doctor::account::Account;

const EMPTY_DISK: DiskSpace = DiskSpace { total: 1 << 40, free: 1 << 39 };

fn path(path: &str, kind: FileKind) -> PathFacts {
    let state = if kind == FileKind::Directory { PathState::Dir } else { PathState::File(9) };
    PathFacts {
        path: path.into(),
        kind,
        state,
        is_writable: Some(true),
        disk: Some(EMPTY_DISK),
        device: Some(1),
    }
}

fn good() -> PathsFacts {
    PathsFacts {
        store: Some(path("/images", FileKind::Directory)),
        holder: None,
        data: Some(path("/data", FileKind::Directory)),
        log: Some(path("/logs/gateway.log", FileKind::File)),
        stderr_size: Some(0),
        rotation: Some(Rotation { paths: vec!["/logs/gateway.log".to_owned()], is_incomplete: false }),
        account: Account::find(Some("_gateway"), &[], Path::new("/app/.env")),
    }
}

fn store(facts: &mut PathsFacts) -> &mut PathFacts {
    facts.store.as_mut().expect("a good one has a store")
}

fn held(process: u32, program: &str) -> LockHolder {
    LockHolder { process, program: program.to_owned() }
}

type Case = (fn(&mut PathsFacts), &'static str, Verdict, &'static str);

/// Asserts that each fault is reported once, and nothing else.
fn each_is_reported_once(table: &[Case]) {
    for (nth, (fault, name, verdict, fix)) in table.iter().enumerate() {
        let mut facts = good();
        fault(&mut facts);
        let found = findings(&facts, None, true, Some(8));
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
        (|facts| store(facts).is_writable = Some(false), "store", Fail, "sudo chown _gateway /images"),
        (|facts| store(facts).is_writable = None, "store", Skip, ""),
        (|facts| store(facts).state = PathState::File(1), "store", Fail, "sudo mv /images /images.moved"),
        (|facts| store(facts).state = PathState::Missing("/".into()), "store", Ok, ""),
        (
            |facts| store(facts).state = PathState::BlockedBy("/x".into()),
            "store",
            Fail,
            "sudo mv /x /x.moved",
        ),
        (
            |facts| store(facts).state = PathState::Dangling("/Volumes/big".into()),
            "store",
            Fail,
            "mount the disk with /Volumes/big",
        ),
        (|facts| store(facts).state = PathState::TimedOut, "store", Fail, "mount"),
        (|facts| facts.holder = Some(held(7, "nginx")), "store", Fail, "stop that process"),
        (|facts| facts.holder = Some(held(7, "/usr/bin/not-gateway")), "store", Fail, "stop that process"),
        (|facts| facts.holder = Some(held(7, "/usr/local/bin/gateway")), "store", Ok, ""),
        (|facts| facts.holder = Some(held(8, "a process")), "store", Ok, ""),
        (
            |facts| store(facts).disk = Some(DiskSpace { total: 1 << 40, free: 1 << 20 }),
            "store",
            Fail,
            "UI_IMAGE_STORE_MAX_BYTES",
        ),
        (
            |facts| store(facts).disk = Some(DiskSpace { total: 1 << 40, free: 1 << 35 }),
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
            |facts| facts.data.as_mut().unwrap().is_writable = Some(false),
            "data_dir",
            Fail,
            "sudo chown _gateway /data",
        ),
        (|facts| facts.log.as_mut().unwrap().state = PathState::Dir, "log", Fail, "sudo mv"),
        (
            |facts| facts.log.as_mut().unwrap().is_writable = Some(false),
            "log",
            Fail,
            "sudo chown _gateway /logs/gateway.log",
        ),
        (|facts| facts.log.as_mut().unwrap().state = PathState::File(1 << 30), "log", Warn, "rotate it"),
        (|facts| facts.log = None, "log", Warn, "GATEWAY_LOG_FILE="),
        (
            |facts| facts.rotation = Some(Rotation::default()),
            "log_rotation",
            Warn,
            "sudo cp com.ai.gateway.newsyslog.conf",
        ),
        (
            |facts| {
                facts.rotation.as_mut().unwrap().paths = vec!["/var/lib/gateway/logs/gateway.log".to_owned()];
            },
            "log_rotation",
            Warn,
            "with this path",
        ),
        (
            |facts| facts.rotation = Some(Rotation { paths: vec![], is_incomplete: true }),
            "log_rotation",
            Skip,
            "",
        ),
    ]);
}

#[test]
fn a_disk_is_reported_once_whatever_is_on_it() {
    let mut facts = good();
    let full = Some(DiskSpace { total: 1 << 40, free: 1 << 35 });
    for path in [&mut facts.store, &mut facts.data, &mut facts.log].into_iter().flatten() {
        path.disk = full;
    }
    assert_eq!(disks(&facts).len(), 1);
}
