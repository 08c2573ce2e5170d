//! Disk, memory, swap and the engine's process.

use super::*;
use crate::host::EngineProcess;

fn room(world: &mut World, mib: u64) {
    let disk = OutputDisk::Found { mount: "/data".into(), total: 1 << 40, available: mib * MIB };
    world.host.as_mut().unwrap().disk = disk;
}

#[test]
fn a_full_disk_warns_then_gates_and_does_not_flap() {
    let mut world = World::healthy();
    world.evaluate();
    room(&mut world, 1500);
    world.expect("disk", CheckStatus::Warn, "1500 MiB are left on /data");
    room(&mut world, 1000);
    world.evaluate();
    assert_eq!(world.pass(14.5), ReadyStatus::Degraded);
    assert_eq!(world.pass(0.5), ReadyStatus::NotReady);
    assert!(world.check("disk").message.contains("only 1000 MiB"));
    room(&mut world, 1050);
    assert_eq!(world.pass(60.0), ReadyStatus::NotReady, "at the floor, without a tenth to spare");
    room(&mut world, 100_000);
    world.evaluate();
    assert_eq!(world.pass(9.5), ReadyStatus::NotReady);
    assert_eq!(world.pass(0.5), ReadyStatus::Ready);
}

#[test]
fn a_disk_that_is_unset_missing_or_hanging_is_unknown() {
    let mut world = World::healthy();
    for (disk, expected) in [
        (OutputDisk::NotConfigured, "--engine-output-dir"),
        (OutputDisk::NotFound("/srv/x".into()), "/srv/x is not visible to the service"),
        (OutputDisk::NotFound("/home/x".into()), "/home/x is not visible"),
        (OutputDisk::NotFound("/home/x".into()), "ProtectHome=tmpfs and BindReadOnlyPaths=/home/x"),
    ] {
        world.host.as_mut().unwrap().disk = disk;
        world.expect("disk", CheckStatus::Unknown, expected);
    }
    let mut world = World::healthy();
    world.evaluate();
    let inputs = EvaluationInputs {
        gpu: world.gpu.as_ref(),
        host: world.host.as_ref(),
        started_at: world.start,
        engine: &world.engine,
        graphs: &[],
        job_history: &JobHistorySnapshot::default(),
        warm_up: &WarmUp::Off,
        slot_limit: 1,
        inflight: 0,
        oldest_cancel_age: None,
        draining: false,
    };
    let late = world.now + Duration::from_secs(16);
    let report =
        evaluate(None, EvaluationState::default(), &inputs, &world.rules, late, SystemTime::UNIX_EPOCH)
            .report;
    let disk = report.checks.iter().find(|check| check.name == "disk").unwrap();
    assert_eq!(disk.status, CheckStatus::Unknown);
    assert!(disk.message.contains("hangs"), "{disk:?}");
}

#[test]
fn low_memory_and_full_swap_are_reported_with_a_fix() {
    let mut world = World::healthy();
    world.evaluate();
    world.host.as_mut().unwrap().memory_available = 1500 * MIB;
    world.expect("host_memory", CheckStatus::Warn, "host memory is short");
    world.host.as_mut().unwrap().memory_available = 500 * MIB;
    world.evaluate();
    assert_eq!(world.pass(15.0), ReadyStatus::NotReady);
    assert!(world.check("host_memory").message.contains("may be killed"));
    let mut world = World::healthy();
    world.host.as_mut().unwrap().swap_used = (8 << 30) - 1;
    world.expect("host_memory", CheckStatus::Warn, "99 % of swap");
    world.rules.host.max_swap_used = 100;
    world.expect("host_memory", CheckStatus::Pass, "");
    world.host.as_mut().unwrap().swap_total = 0;
    world.expect("host_memory", CheckStatus::Pass, "");
}

#[test]
fn zero_turns_a_threshold_off() {
    let mut world = World::healthy();
    world.rules.host =
        HostRules { min_free_disk: 0, min_free_memory: 0, max_swap_used: 100, max_engine_memory: 0 };
    room(&mut world, 0);
    world.host.as_mut().unwrap().memory_available = 0;
    world.evaluate();
    assert_eq!(world.pass(60.0), ReadyStatus::Ready);
}

#[test]
fn the_engines_memory_is_reported_and_warns_when_it_grows_too_large() {
    let mut world = World::healthy();
    world.expect("engine_process", CheckStatus::Unknown, "invokeai.service has no process");
    world.host.as_mut().unwrap().engine =
        Some(EngineProcess { pid: 7, count: 2, resident_bytes: 5000 * MIB });
    world.expect("engine_process", CheckStatus::Pass, "");
    assert_eq!(world.check("engine_process").observed, "pid 7, 2 in all, 5000 MiB resident");
    world.rules.host.max_engine_memory = 4000 * MIB;
    world.expect("engine_process", CheckStatus::Warn, "more than --max-engine-memory");
}
