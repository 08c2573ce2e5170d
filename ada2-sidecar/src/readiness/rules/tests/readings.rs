//! Readings of the card: its states, failed and stale samples, the driver's advice.

use super::*;

#[test]
fn each_state_of_the_card_has_its_own_message() {
    for (state, name, expected, gates_when_optional) in [
        (
            GpuState::LibraryUnavailable("no file".into()),
            "nvml",
            "libnvidia-ml cannot be loaded (no file)",
            false,
        ),
        (GpuState::DriverNotLoaded, "nvml", "modprobe nvidia", false),
        (GpuState::NoPermission, "nvml", "/dev/nvidiactl", true),
        (GpuState::VersionMismatch, "driver", "reboot needed", true),
        (GpuState::Lost, "gpu_present", "GPU is lost", true),
        (GpuState::NoDevice { requested: "0".into(), found: vec![] }, "gpu_present", "reports no GPU", false),
        (
            GpuState::NoDevice { requested: "GPU-2".into(), found: vec!["GPU-1".into()] },
            "gpu_present",
            "only GPU-1",
            true,
        ),
    ] {
        for required in [true, false] {
            let mut world = World::healthy();
            world.rules.gpu_required = required;
            world.state(state.clone());
            let status = world.evaluate().status;
            assert_eq!(
                status == ReadyStatus::NotReady,
                required || gates_when_optional,
                "{required} {state:?}"
            );
            if required {
                assert!(world.check(name).message.contains(expected), "{:?}", world.check(name));
            }
        }
    }
}

#[test]
fn a_lost_card_gates_at_once_and_has_to_prove_itself() {
    let mut world = World::healthy();
    world.evaluate();
    world.state(GpuState::Lost);
    world.expect("gpu_present", CheckStatus::Fail, "GPU is lost");
    world.state(present(vec![]));
    for good in [1, 2] {
        world.gpu.as_mut().unwrap().consecutive_good = good;
        world.expect("gpu_present", CheckStatus::Fail, "is being verified");
    }
    world.gpu.as_mut().unwrap().consecutive_good = 3;
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);
}

#[test]
fn failed_calls_gate_until_the_card_has_proved_itself() {
    let mut world = World::healthy();
    world.evaluate();
    world.state(GpuState::Failed("reading the memory: Unknown Error".into()));
    world.expect("nvml", CheckStatus::Fail, "Unknown Error");
    world.state(present(vec![]));
    world.gpu.as_mut().unwrap().consecutive_good = 2;
    world.expect("nvml", CheckStatus::Fail, "Unknown Error");
    world.gpu.as_mut().unwrap().consecutive_good = 3;
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);
}

#[test]
fn a_card_without_a_first_reading_gates_even_if_none_is_required() {
    for required in [true, false] {
        let mut world = World::healthy();
        world.rules.gpu_required = required;
        world.gpu = None;
        world.expect("nvml", CheckStatus::Fail, "not answered yet");
        assert_eq!(world.status(), ReadyStatus::NotReady);
        world.state(GpuState::LibraryUnavailable("no file".into()));
        assert_eq!(world.evaluate().status == ReadyStatus::Ready, !required);
    }
}

#[test]
fn a_stale_sample_is_a_hanging_driver_even_the_first() {
    for read in [true, false] {
        let mut world = World::healthy();
        if !read {
            world.gpu = None;
        }
        world.now = world.start + Duration::from_secs(5);
        world.evaluate();
        assert_eq!(world.check("snapshot_fresh").status, CheckStatus::Pass, "{read}");
        world.now += Duration::from_millis(1);
        world.expect("snapshot_fresh", CheckStatus::Fail, "hangs");
        assert_eq!(world.status(), ReadyStatus::NotReady);
    }
}

#[test]
fn the_message_for_a_driver_upgraded_while_loaded() {
    let mut world = World::healthy();
    world.reading(|reading| {
        reading.report.driver_version = Some("595.80".into());
        reading.health.driver_on_disk = Some("600.10".into());
    });
    world.expect(
        "driver",
        CheckStatus::Warn,
        "upgraded while it is loaded: 595.80 runs, 600.10 is installed",
    );
    assert_eq!(world.status(), ReadyStatus::Degraded);
}

#[test]
fn the_drivers_advice_gates_or_warns() {
    for (action, status, expected) in [
        (1, CheckStatus::Fail, "--gpu-reset"),
        (2, CheckStatus::Fail, "reboot this host"),
        (3, CheckStatus::Warn, "between GPUs"),
        (4, CheckStatus::Fail, "let running work end"),
        (5, CheckStatus::Warn, "nvidia-smi -q"),
        (6, CheckStatus::Fail, "bus"),
        (7, CheckStatus::Fail, "reboot this host"),
        (99, CheckStatus::Warn, "nvidia-smi -q"),
    ] {
        let mut world = World::healthy();
        world.change_health(|health| health.recovery_action = Some(action));
        world.expect("recovery_action", status, expected);
        world.change_health(|health| health.recovery_action = Some(0));
        world.expect("recovery_action", CheckStatus::Pass, "");
    }
}
