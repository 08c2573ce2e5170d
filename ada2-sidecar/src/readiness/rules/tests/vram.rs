//! The engine's own memory, and what others hold of it.

use super::*;

#[test]
fn what_the_engine_caches_is_its_own_and_what_others_hold_is_named() {
    let mut world = World::healthy();
    world.state(present(vec![process(1, "invokeai.service", 40_000)]));
    assert_eq!(world.judge().status, Status::Ready);
    let mut world = World::healthy();
    world.state(present(vec![process(7, "ollama.service", 40_000)]));
    world.expect("vram_headroom", CheckStatus::Fail, "pid 7 \"python3\" (ollama.service) 40000 MiB");
    world.rules.min_free_vram = 0;
    assert_eq!(world.judge().status, Status::Ready);
}

#[test]
fn foreign_vram_gates_after_15_s_and_no_longer_after_10_with_a_margin() {
    let mut world = World::healthy();
    world.judge();
    let hold = |world: &mut World, mib| world.state(present(vec![process(7, "ollama.service", mib)]));
    hold(&mut world, 40_000);
    world.judge();
    assert_eq!(world.pass(14.5), Status::Ready);
    assert_eq!(world.pass(0.5), Status::NotReady);
    // At the floor, but without the margin of 1 GiB.
    hold(&mut world, 46_068 - 609 - 8_192);
    assert_eq!(world.pass(60.0), Status::NotReady);
    hold(&mut world, 30_000);
    world.judge();
    assert_eq!(world.pass(9.5), Status::NotReady);
    assert_eq!(world.pass(0.5), Status::Ready);
}

#[test]
fn what_was_known_of_vram_outlasts_a_look_that_failed() {
    let mut world = World::healthy();
    world.judge();
    world.state(GpuState::Failed("twice".into()));
    world.judge();
    world.state(present(vec![process(7, "ollama.service", 40_000)]));
    world.gpu.as_mut().unwrap().good = 3;
    assert_eq!(world.judge().status, Status::Ready, "not decided at once, as a first reading is");
}

#[test]
fn a_share_that_cannot_be_told_is_unknown_and_gates_nothing() {
    let mut world = World::healthy();
    world.state(present(vec![process(7, "session-1.scope", 40_000)]));
    world.reading(|reading| reading.engine_unit_active = false);
    world.expect("vram_headroom", CheckStatus::Unknown, "cannot be told");
    assert_eq!(world.status(), Status::Ready);
}
