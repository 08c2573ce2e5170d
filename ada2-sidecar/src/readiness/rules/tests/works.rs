//! What the last images proved.

use wire::openai::images::ImageSize;

use super::*;
use crate::{gpu::OtherGpuUsage, job_history::StepTiming};

const UNIT: &str = "invokeai.service";

/// An image is being generated: the engine takes its first step now.
fn paints(world: &mut World) {
    world.now += Duration::from_millis(500);
    world.outcomes.generating_since = Some(world.now);
    world.outcomes.generating = 1;
}

/// The image is finished.
fn finishes(world: &mut World) {
    world.outcomes.last_success = Some(world.now);
    world.outcomes.generating = 0;
}

/// Looks on at an engine at work for this long, and lists its processes each time.
fn watch(world: &mut World, seconds: u32) -> CheckStatus {
    for _ in 0..seconds * 2 {
        world.now += Duration::from_millis(500);
        let now = world.now;
        world.reading(|reading| reading.processes_taken_at = now);
        world.evaluate();
    }
    world.check("engine_works").status
}

#[test]
fn engine_works_is_unknown_until_the_first_image() {
    let mut world = World::healthy();
    world.expect("engine_works", CheckStatus::Unknown, "no image has been made");
    assert_eq!(world.status(), ReadyStatus::Ready);
    world.outcomes.last_success = Some(world.now);
    world.expect("engine_works", CheckStatus::Pass, "");
}

#[test]
fn three_failures_in_a_row_warn_and_never_gate() {
    let mut world = World::healthy();
    for (failures, status) in
        [(1, CheckStatus::Pass), (2, CheckStatus::Pass), (3, CheckStatus::Warn), (9, CheckStatus::Warn)]
    {
        world.outcomes.failures = failures;
        world.outcomes.last_failure = Some("CUDA error: an illegal memory access".into());
        let expected = if status == CheckStatus::Warn { "illegal memory access" } else { "" };
        world.expect("engine_works", status, expected);
    }
    assert_eq!(world.status(), ReadyStatus::Degraded);
    assert!(world.check("engine_works").message.contains("the last 9 images failed"));
    (world.outcomes.failures, world.outcomes.last_success) = (0, Some(world.now));
    world.expect("engine_works", CheckStatus::Pass, "");
}

#[test]
fn steps_over_four_times_the_usual_warn() {
    for (step, usual, status) in [
        (401, Some(100), CheckStatus::Warn),
        (400, Some(100), CheckStatus::Pass),
        (9000, None, CheckStatus::Pass),
        // What a busy host does to an image that takes milliseconds.
        (49, Some(1), CheckStatus::Pass),
    ] {
        let mut world = World::healthy();
        world.outcomes = JobHistorySnapshot {
            last_success: Some(world.now),
            step_timing: Some(StepTiming {
                model: "tiny".into(),
                size: Some(ImageSize::new(512, 768)),
                mean: Duration::from_millis(step),
                median: usual.map(Duration::from_millis),
            }),
            ..JobHistorySnapshot::default()
        };
        let expected = if status == CheckStatus::Warn {
            "\"tiny\" at 512x768 took 0.40 s each, usually 0.10 s"
        } else {
            ""
        };
        world.expect("engine_works", status, expected);
        assert!(world.report.as_ref().unwrap().admits());
    }
}

#[test]
fn an_engine_at_work_that_holds_no_vram_fell_back_to_the_cpu() {
    let mut world = World::healthy();
    world.evaluate();
    assert_eq!(watch(&mut world, 60), CheckStatus::Unknown, "an idle engine may hold none");
    paints(&mut world);
    assert_eq!(watch(&mut world, 5), CheckStatus::Unknown, "not at once");
    assert_eq!(watch(&mut world, 1), CheckStatus::Warn);
    world.expect("engine_works", CheckStatus::Warn, "invokeai.service makes images and holds no VRAM");
    assert_eq!(world.status(), ReadyStatus::Degraded);
    world.outcomes.last_success = Some(world.now);
    assert_eq!(watch(&mut world, 60), CheckStatus::Warn, "a picture of the CPU's proves nothing else");
    world.state(present(vec![process(1, UNIT, 4_000)]));
    world.expect("engine_works", CheckStatus::Pass, "");
}

/// In message, and what is otherwise.
type Case = (&'static str, fn(&mut World));

#[test]
fn the_cpu_fallback_check_needs_the_owner_of_the_memory() {
    let table: [Case; 7] = [
        ("the driver lists no processes", |world| world.reading(|reading| reading.processes = None)),
        ("the unit is not seen", |world| world.reading(|reading| reading.engine_unit_active = false)),
        ("it holds some", |world| world.state(present(vec![process(1, UNIT, 400)]))),
        ("it holds some that is not told", |world| {
            let unreported = GpuProcess { used: None, ..process(1, UNIT, 0) };
            world.reading(|reading| reading.processes = Some(vec![unreported]));
        }),
        ("it is there, and the card has no memory of its own", |world| {
            world.state(present(vec![process(1, UNIT, 0)]));
            world.reading(|reading| reading.memory = None);
        }),
        ("the builtin engine", |world| world.rules.engine_url = None),
        ("a restart since", |world| world.engine.starts += 1),
    ];
    for (case, change) in table {
        let mut world = World::healthy();
        world.evaluate();
        paints(&mut world);
        world.now += Duration::from_millis(500);
        change(&mut world);
        assert_eq!(watch(&mut world, 30), CheckStatus::Unknown, "{case}");
    }
}

#[test]
fn an_engine_on_another_card_is_named_with_both_cards() {
    let mut world = World::healthy();
    world.evaluate();
    let other = OtherGpuUsage {
        index: 1,
        name: "RTX 4090".into(),
        uuid: "GPU-2".into(),
        processes: vec![process(1, UNIT, 12_000)],
    };
    world.reading(|reading| reading.other_gpus = vec![other]);
    assert_eq!(watch(&mut world, 6), CheckStatus::Warn);
    for message in [
        "invokeai.service holds 12000 MiB on GPU 1 RTX 4090 (GPU-2)",
        "what is judged is GPU 0 RTX 6000 Ada (GPU-1)",
        "--gpu-id GPU-2",
        "CUDA_DEVICE_ORDER=PCI_BUS_ID",
    ] {
        world.expect("engine_works", CheckStatus::Warn, message);
    }
    paints(&mut world);
    assert_eq!(watch(&mut world, 60), CheckStatus::Warn);
    assert_eq!(world.check("engine_works").observed, "on another GPU", "and not on the CPU");
    world.reading(|reading| reading.other_gpus.clear());
    world.state(present(vec![process(1, UNIT, 4_000)]));
    world.outcomes.last_success = Some(world.now);
    world.expect("engine_works", CheckStatus::Pass, "");
}

#[test]
fn after_an_application_xid_an_image_must_prove_the_engine() {
    let mut world = World::healthy();
    world.outcomes.last_success = Some(world.now);
    world.evaluate();
    world.now += Duration::from_secs(1);
    world.xid(31);
    world.expect("engine_works", CheckStatus::Warn, "XID 31 (GPU memory page fault)");
    world.now += Duration::from_hours(1);
    let state = world.gpu.as_ref().unwrap().state.clone();
    world.state(state);
    world.expect("xid", CheckStatus::Pass, "");
    world.expect("engine_works", CheckStatus::Warn, "no image has succeeded since");
    assert_eq!(world.status(), ReadyStatus::Degraded);
    world.outcomes.last_success = Some(world.now);
    world.expect("engine_works", CheckStatus::Pass, "");
    world.xid(45);
    world.xid(63);
    world.expect("engine_works", CheckStatus::Pass, "");
    world.now += Duration::from_secs(1);
    world.xid(13);
    world.expect("engine_works", CheckStatus::Warn, "XID 13");
    world.memory.acknowledge();
    world.expect("engine_works", CheckStatus::Pass, "");
}

#[test]
fn an_engine_that_releases_the_card_between_jobs_did_not_fall_back() {
    let mut world = World::healthy();
    world.state(present(vec![process(1, UNIT, 4_000)]));
    world.evaluate();
    paints(&mut world);
    assert_eq!(watch(&mut world, 20), CheckStatus::Unknown);
    finishes(&mut world);
    world.state(present(vec![]));
    assert_eq!(watch(&mut world, 60), CheckStatus::Pass, "an idle engine may hold none");
    // The next job is taken, and the engine loads its model: it has not taken a step.
    world.inflight = 1;
    assert_eq!(watch(&mut world, 60), CheckStatus::Pass);
}

#[test]
fn an_image_that_just_finished_still_proves_the_cpu_fallback() {
    let mut world = World::healthy();
    world.evaluate();
    paints(&mut world);
    assert_eq!(watch(&mut world, 4), CheckStatus::Unknown);
    finishes(&mut world);
    assert_eq!(watch(&mut world, 2), CheckStatus::Warn);
}

#[test]
fn an_engine_in_a_container_runs_outside_its_unit_and_is_named() {
    let container = "docker-0123.scope";
    let unreported = GpuProcess { used: None, ..process(9, container, 0) };
    let unknown = GpuProcess { unit: None, ..process(9, "", 4_000) };
    let drawing =
        GpuProcess { process_type: GpuProcessType::Graphics, ..process(9, "session-1.scope", 4_000) };
    let two =
        vec![process(8, container, 900), process(9, container, 12_000), process(7, "ollama.service", 20_000)];
    for (processes, observed, expected) in [
        (two, "outside its unit", "pid 9 \"python3\" (docker-0123.scope) holds 12000 MiB"),
        (vec![process(9, container, 600)], "outside its unit", "set --engine-unit docker-0123.scope"),
        (vec![unreported], "outside its unit", "(docker-0123.scope) holds memory: "),
        (vec![unknown], "outside its unit", "(no unit) holds 4000 MiB"),
        (vec![process(9, container, 100)], "no VRAM held", "fell back to the CPU"),
        (vec![process(9, "ollama.service", 20_000)], "no VRAM held", "fell back to the CPU"),
        (vec![drawing], "no VRAM held", "fell back to the CPU"),
    ] {
        let mut world = World::healthy();
        world.state(present(processes));
        world.evaluate();
        paints(&mut world);
        assert_eq!(watch(&mut world, 6), CheckStatus::Warn, "{expected}");
        assert_eq!(world.check("engine_works").observed, observed);
        world.expect("engine_works", CheckStatus::Warn, expected);
        // It releases the card while no image is requested.
        finishes(&mut world);
        world.state(present(vec![]));
        watch(&mut world, 60);
        world.expect("engine_works", CheckStatus::Warn, expected);
        world.state(present(vec![process(1, UNIT, 4_000)]));
        world.expect("engine_works", CheckStatus::Pass, "");
    }
}

#[test]
fn a_missing_card_is_accepted_if_none_is_required() {
    let expected = |change: fn(&mut World)| {
        let mut world = World::healthy();
        change(&mut world);
        world.evaluate();
        world.check("engine_works").expected.clone()
    };
    assert_eq!(expected(|_| {}), "the last image succeeded, on this GPU");
    assert_eq!(expected(|world| world.rules.engine_url = None), "the last image succeeded");
    let cardless = |world: &mut World| {
        world.rules.gpu_required = false;
        world.state(GpuState::DriverNotLoaded);
    };
    assert_eq!(expected(cardless), "the last image succeeded");
}
