//! How much VRAM is available to the engine: what is free and what it holds itself, because it evicts its own models. Memory
//! of other processes is not available.

use super::{GpuMemory, GpuProcess};

/// The memory that is available to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headroom {
    /// Bytes available to the engine; None if its own share is unknown.
    pub effective: Option<u64>,
    /// The upper limit of `effective`, whichever of the listed processes is the engine; None if their usage is unknown.
    pub at_most: Option<u64>,
    /// Free bytes: the lower limit of `effective`.
    pub free: u64,
    /// Other processes with memory, largest first.
    pub foreign: Vec<GpuProcess>,
    /// Used bytes that no listed process holds: leaked, in a container that is hidden from us, or the driver's overhead. 0 if
    /// the usage of the listed ones is unknown.
    pub unlisted: u64,
}

/// `total − reserved − foreign`, where `foreign` is all used memory that is not known to be the engine's.
///
/// The processes' sum is less than the used memory (contexts and displays are not listed); the rest counts as foreign.
pub fn headroom(
    memory: &GpuMemory,
    processes: Option<&[GpuProcess]>,
    engine_unit: &str,
    engine_unit_active: bool,
) -> Headroom {
    let is_own = |process: &&GpuProcess| process.unit.as_deref() == Some(engine_unit);
    let own = processes.map(|all| all.iter().filter(is_own).collect::<Vec<_>>());
    let mut foreign: Vec<_> =
        processes.unwrap_or_default().iter().filter(|process| !is_own(process)).cloned().collect();
    foreign.sort_by(|a, b| b.used.cmp(&a.used).then(a.pid.cmp(&b.pid)));
    let without = |foreign: u64| memory.total.saturating_sub(memory.reserved).saturating_sub(foreign);
    let listed = processes.and_then(|all| sum(all.iter()));
    let unlisted = listed.map(|listed| memory.used.saturating_sub(listed));
    let own = engine_share(memory, own.as_deref(), engine_unit_active);
    let at_most = unlisted.map(without);
    // No process is listed, so the engine holds nothing.
    let own = own.or_else(|| listed.filter(|listed| *listed == 0));
    let effective = own.map(|own| without(memory.used.saturating_sub(own)));
    Headroom { effective, at_most, free: memory.free, foreign, unlisted: unlisted.unwrap_or(0) }
}

/// The engine's bytes, if they are known. They are not if the unit has no process: the engine may run outside its unit, and
/// what looks foreign may be its own.
fn engine_share(memory: &GpuMemory, own: Option<&[&GpuProcess]>, engine_unit_active: bool) -> Option<u64> {
    if memory.used == 0 {
        return Some(0);
    }
    let own = own?;
    if own.is_empty() && !engine_unit_active {
        return None;
    }
    sum(own.iter().copied())
}

/// Their total usage; None if the driver does not report that of one of them.
fn sum<'a>(mut processes: impl Iterator<Item = &'a GpuProcess>) -> Option<u64> {
    processes.try_fold(0, |sum: u64, process| process.used.map(|used| sum.saturating_add(used)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gpu::GpuProcessType;

    const ENGINE: &str = "invokeai.service";

    fn process(pid: u32, unit: &str, used: Option<u64>) -> GpuProcess {
        GpuProcess {
            pid,
            name: "python3".to_owned(),
            unit: Some(unit.to_owned()),
            process_type: GpuProcessType::Compute,
            used,
        }
    }

    fn memory(total: u64, reserved: u64, used: u64) -> GpuMemory {
        GpuMemory { total, reserved, used, free: total.saturating_sub(reserved).saturating_sub(used) }
    }

    #[test]
    fn the_engines_cache_counts_as_available() {
        let own = |used| process(1, ENGINE, used);
        let other = |used| process(2, "ollama.service", used);
        // 100 in all, 10 reserved.
        let table = [
            ("an idle card", 0, Some(vec![]), true, Some(90)),
            ("an idle card, engine away", 0, Some(vec![]), false, Some(90)),
            ("an idle card, no lists", 0, None, false, Some(90)),
            ("only the engine", 60, Some(vec![own(Some(60))]), true, Some(90)),
            ("a remainder is foreign", 65, Some(vec![own(Some(60))]), true, Some(85)),
            (
                "two of the engine's",
                60,
                Some(vec![own(Some(40)), process(3, ENGINE, Some(20))]),
                true,
                Some(90),
            ),
            ("both", 80, Some(vec![own(Some(50)), other(Some(30))]), true, Some(60)),
            ("engine up, holding nothing", 30, Some(vec![other(Some(30))]), true, Some(60)),
            ("another's figure is not needed", 80, Some(vec![own(Some(50)), other(None)]), true, Some(60)),
            ("the sum is ahead of the total", 40, Some(vec![own(Some(50))]), true, Some(90)),
            ("the unit looks idle, its process is there", 50, Some(vec![own(Some(50))]), false, Some(90)),
            ("the engine started by hand, perhaps", 30, Some(vec![other(Some(30))]), false, None),
            ("held by nobody that is listed", 30, Some(vec![]), false, Some(60)),
            ("the engine's own figure is missing", 50, Some(vec![own(None)]), true, None),
            ("one of them is missing", 50, Some(vec![own(Some(9)), process(3, ENGINE, None)]), true, None),
            ("no lists", 50, None, true, None),
        ];
        for (case, used, processes, active, effective) in table {
            let seen = headroom(&memory(100, 10, used), processes.as_deref(), ENGINE, active);
            assert_eq!(seen.effective, effective, "{case}");
            assert_eq!(seen.free, 90 - used, "{case}");
        }
    }

    #[test]
    fn memory_that_no_listed_process_holds_is_never_the_engines() {
        let some = |used| process(2, "session-1.scope", used);
        for (case, used, processes, active, at_most, unlisted) in [
            ("all of it", 70, Some(vec![]), false, Some(20), 70),
            ("part of it", 70, Some(vec![some(Some(30))]), false, Some(50), 40),
            ("none of it", 30, Some(vec![some(Some(30))]), false, Some(90), 0),
            ("the sum is ahead", 30, Some(vec![some(Some(50))]), false, Some(90), 0),
            ("beside the engine's", 70, Some(vec![process(1, ENGINE, Some(30))]), true, Some(50), 40),
            ("the driver does not say what one holds", 70, Some(vec![some(None)]), false, None, 0),
            ("no lists", 70, None, true, None, 0),
        ] {
            let seen = headroom(&memory(100, 10, used), processes.as_deref(), ENGINE, active);
            assert_eq!((seen.at_most, seen.unlisted), (at_most, unlisted), "{case}");
        }
    }

    #[test]
    fn foreign_processes_come_largest_first() {
        let all = [
            process(4, "a.service", None),
            process(1, "b.service", Some(1)),
            process(9, ENGINE, Some(50)),
            process(3, "c.service", Some(7)),
            process(2, "d.service", Some(7)),
        ];
        let seen = headroom(&memory(100, 10, 70), Some(&all), ENGINE, true);
        assert_eq!(seen.foreign.iter().map(|process| process.pid).collect::<Vec<_>>(), [2, 3, 1, 4]);
    }

    fn any_process() -> impl Strategy<Value = GpuProcess> {
        (1..9_u32, any::<bool>(), proptest::option::of(any::<u64>()))
            .prop_map(|(pid, own, used)| process(pid, if own { ENGINE } else { "other.service" }, used))
    }

    proptest! {
        #[test]
        fn never_more_than_the_card_has(
            (total, reserved, used) in any::<(u64, u64, u64)>(),
            processes in proptest::option::of(proptest::collection::vec(any_process(), 0..6)),
            active in any::<bool>(),
        ) {
            let seen = headroom(&memory(total, reserved, used), processes.as_deref(), ENGINE, active);
            prop_assert!(seen.effective.is_none_or(|bytes| bytes <= total.saturating_sub(reserved)));
            let most = seen.at_most.unwrap_or(u64::MAX);
            prop_assert!(seen.effective.is_none_or(|bytes| bytes <= most));
        }

        #[test]
        fn foreign_memory_never_adds_to_the_engines(
            own in 0..50_u64,
            others in proptest::collection::vec(0..50_u64, 0..6),
            more in 0..50_u64,
        ) {
            let look = |others: &[u64]| {
                let mut all = vec![process(1, ENGINE, Some(own))];
                all.extend((2..).zip(others).map(|(pid, used)| process(pid, "other.service", Some(*used))));
                let used = own + others.iter().sum::<u64>();
                headroom(&memory(1000, 10, used), Some(&all), ENGINE, true).effective
            };
            let before = look(&others);
            let after = look(&[others.as_slice(), &[more]].concat());
            prop_assert_eq!(after, before.map(|bytes| bytes - more));
        }
    }
}
