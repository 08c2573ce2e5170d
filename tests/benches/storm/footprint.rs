//! What this process holds: nothing may be left behind.

use std::{collections::BTreeMap, fs, path::Path};

use e2e::sidecar::Sidecar;

/// Kilobytes that the allocator may have come to keep.
const GROWTH: u64 = 32 << 10;
const RUNTIME: &str = "tokio-rt-worker";

#[derive(Debug)]
pub(crate) struct Footprint {
    tasks: usize,
    threads: BTreeMap<String, usize>,
    descriptors: BTreeMap<String, usize>,
    resident_kib: u64,
}

impl Footprint {
    pub(crate) fn of(sidecar: &Sidecar) -> Self {
        let status = fs::read_to_string("/proc/self/status").expect("procfs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        Self {
            tasks: sidecar.lifecycle.inflight(),
            threads: counted("task", |task| fs::read_to_string(task.join("comm")).ok()),
            descriptors: counted("fd", |fd| {
                let target = fs::read_link(fd).ok()?;
                // `socket:[12]`, `/tmp/card/scenario.json`
                let name = target.file_name()?.to_string_lossy().into_owned();
                Some(name.split(':').next().unwrap_or_default().to_owned())
            }),
            resident_kib: line.trim().split(' ').next().and_then(|kib| kib.parse().ok()).expect("a number"),
        }
    }

    pub(crate) fn assert_like(&self, before: &Self) {
        assert_eq!(self.threads.get("nvml"), Some(&1), "one thread looks at the card");
        assert_eq!(
            (self.tasks, &self.descriptors),
            (before.tasks, &before.descriptors),
            "something is left behind"
        );
        // The runtime's own come and go as files are read.
        let named = |threads: &BTreeMap<String, usize>| {
            threads.iter().filter(|(name, _)| *name != RUNTIME).map(|(_, count)| count).sum::<usize>()
        };
        assert_eq!(named(&self.threads), named(&before.threads), "a thread is left behind");
        assert!(self.resident_kib < before.resident_kib + GROWTH, "memory grows");
    }
}

/// What this process has of this kind, by name.
fn counted(kind: &str, name: impl Fn(&Path) -> Option<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/self/{kind}")).expect("procfs").flatten() {
        let name = name(&entry.path()).unwrap_or_default();
        *counts.entry(name.trim().to_owned()).or_default() += 1;
    }
    counts
}
