//! The engine's memory, and what other processes hold.

use super::*;

#[test]
fn the_engines_cache_is_available_and_foreign_processes_are_named() {
    let mut world = World::healthy();
    world.state(present(vec![process(1, "invokeai.service", 40_000)]));
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);
    let mut world = World::healthy();
    world.state(present(vec![process(7, "ollama.service", 40_000)]));
    world.expect("vram_headroom", CheckStatus::Fail, "pid 7 \"python3\" (ollama.service) 40000 MiB");
    world.rules.min_free_vram = 0;
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);
}

#[test]
fn foreign_vram_gates_after_15_s_and_no_longer_after_10_with_a_margin() {
    let mut world = World::healthy();
    world.evaluate();
    let hold = |world: &mut World, mib| world.state(present(vec![process(7, "ollama.service", mib)]));
    hold(&mut world, 40_000);
    world.evaluate();
    assert_eq!(world.pass(14.5), ReadyStatus::Ready);
    assert_eq!(world.pass(0.5), ReadyStatus::NotReady);
    // At the floor, but without the margin of 1 GiB.
    hold(&mut world, 46_068 - 609 - 8_192);
    assert_eq!(world.pass(60.0), ReadyStatus::NotReady);
    hold(&mut world, 30_000);
    world.evaluate();
    assert_eq!(world.pass(9.5), ReadyStatus::NotReady);
    assert_eq!(world.pass(0.5), ReadyStatus::Ready);
}

#[test]
fn a_clearing_alarm_reports_the_available_memory() {
    let mut world = World::healthy();
    world.state(present(vec![process(7, "ollama.service", 40_000)]));
    world.expect("vram_headroom", CheckStatus::Fail, "only 5459 MiB of VRAM are available to the engine");
    let message = "45459 MiB are available again, the floor is 8192 MiB; passes once 1.0 GiB above the floor has lasted 10 s";
    world.state(present(vec![]));
    world.expect("vram_headroom", CheckStatus::Fail, message);
    assert!(!world.check("vram_headroom").message.contains("only"));
    // At the floor, without the margin.
    world.state(present(vec![process(7, "ollama.service", 46_068 - 609 - 8_192)]));
    world.expect("vram_headroom", CheckStatus::Fail, "8192 MiB are available again");
}

#[test]
fn a_card_that_comes_back_does_not_fail_on_an_old_alarm() {
    let full = || present(vec![process(7, "ollama.service", 40_000)]);
    for (back, expected) in [(present(vec![]), CheckStatus::Pass), (full(), CheckStatus::Fail)] {
        let mut world = World::healthy();
        world.state(full());
        world.expect("vram_headroom", CheckStatus::Fail, "");
        world.state(GpuState::Lost);
        world.expect("vram_headroom", CheckStatus::Unknown, "no GPU");
        world.state(back);
        world.expect("vram_headroom", expected, "");
    }
}

#[test]
fn vram_alarms_outlast_a_failed_reading() {
    let mut world = World::healthy();
    world.evaluate();
    world.state(GpuState::Failed("twice".into()));
    world.evaluate();
    world.state(present(vec![process(7, "ollama.service", 40_000)]));
    world.gpu.as_mut().unwrap().consecutive_good = 3;
    assert_eq!(world.evaluate().status, ReadyStatus::Ready, "not decided at once, as a first reading is");
}

#[test]
fn an_unknown_engine_share_warns_below_the_floor_and_never_gates() {
    let mut world = World::healthy();
    world.state(present(vec![process(7, "session-1.scope", 40_000)]));
    world.reading(|reading| reading.engine_unit_active = false);
    world.expect("vram_headroom", CheckStatus::Warn, "only 5459 MiB are free");
    world.expect("vram_headroom", CheckStatus::Warn, "no process of invokeai.service is known");
    assert_eq!(world.pass(60.0), ReadyStatus::Degraded);
    world.reading(|reading| reading.processes = None);
    world.expect("vram_headroom", CheckStatus::Warn, "the driver lists no processes");
    world.reading(|reading| {
        let unreported = GpuProcess { used: None, ..process(1, "invokeai.service", 0) };
        reading.processes = Some(vec![unreported]);
        reading.engine_unit_active = true;
    });
    world.expect("vram_headroom", CheckStatus::Warn, "does not say what each process holds");
    world.reading(|reading| reading.memory.as_mut().unwrap().free = 8 << 30);
    world.expect("vram_headroom", CheckStatus::Pass, "");
}

#[test]
fn memory_that_no_listed_process_holds_is_foreign_and_gates() {
    for (listed, active, holders) in [
        (vec![], false, "39.1 GiB are held by no process that the driver lists"),
        (vec![], true, "39.1 GiB are held by no process that the driver lists"),
        (vec![process(7, "session-1.scope", 1_000)], false, "(session-1.scope) 1000 MiB"),
        (vec![process(7, "session-1.scope", 1_000)], false, "38.1 GiB are held by no process"),
        (vec![process(1, "invokeai.service", 2_000)], true, "37.1 GiB are held by no process"),
    ] {
        let mut world = World::healthy();
        world.state(present(listed));
        world.reading(|reading| {
            let memory = reading.memory.as_mut().unwrap();
            (memory.used, memory.free) = (40_000 * MIB, (46_068 - 609 - 40_000) * MIB);
            reading.engine_unit_active = active;
        });
        world.expect("vram_headroom", CheckStatus::Fail, holders);
        world.expect("vram_headroom", CheckStatus::Fail, "warn_only: vram_headroom");
    }
}

#[test]
fn memory_reserved_by_the_driver_is_no_leak() {
    let mut world = World::healthy();
    world.reading(|reading| {
        let memory = reading.memory.as_mut().unwrap();
        (memory.used, memory.free) = (300 * MIB, (46_068 - 609 - 300) * MIB);
        reading.engine_unit_active = false;
    });
    world.expect("vram_headroom", CheckStatus::Pass, "");
    world.rules.min_free_vram = 46 << 30;
    world.evaluate();
    world.pass(20.0);
    let message = &world.check("vram_headroom").message;
    assert!(message.contains("no other process holds VRAM") && !message.contains("lists"), "{message}");
}

#[test]
fn a_card_without_memory_of_its_own_is_as_ready_as_its_other_checks_say() {
    let mut world = World::healthy();
    world.reading(|reading| reading.memory = None);
    world.expect("vram_headroom", CheckStatus::Unknown, "unified memory");
    assert_eq!(world.status(), ReadyStatus::Ready);
    world.change_health(|health| health.recovery_action = Some(2));
    assert_eq!(world.evaluate().status, ReadyStatus::NotReady);
}
