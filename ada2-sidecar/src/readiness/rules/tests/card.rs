//! Memory errors, rows, heat, power, slot.

use super::*;

const SW_THERMAL: u64 = 0x20;
const HW_THERMAL: u64 = 0x40;
const HW_POWER_BRAKE: u64 = 0x80;
const HW_SLOWDOWN: u64 = 0x08;

#[test]
fn rising_memory_errors_gate_until_the_driver_is_reloaded() {
    let mut world = World::healthy();
    world.evaluate();
    world.change_health(|health| health.ecc_uncorrected = Some(2));
    world.expect("ecc", CheckStatus::Fail, "rose above the 0");
    world.change_health(|health| health.ecc_uncorrected = Some(2));
    world.expect("ecc", CheckStatus::Fail, "cannot be trusted");
    world.change_health(|health| health.ecc_uncorrected = Some(0));
    world.expect("ecc", CheckStatus::Pass, "");
}

#[test]
fn memory_errors_from_before_warn_or_gate_as_configured() {
    for (gates, status) in [(false, CheckStatus::Warn), (true, CheckStatus::Fail)] {
        let mut world = World::healthy();
        world.rules.card.old_ecc_errors_gate = gates;
        world.change_health(|health| health.ecc_uncorrected = Some(7));
        world.expect("ecc", status, "7 uncorrected memory errors since the driver was loaded");
    }
}

#[test]
fn an_acknowledged_rise_is_an_old_error_and_rises_again() {
    let mut world = World::healthy();
    world.evaluate();
    world.change_health(|health| health.ecc_uncorrected = Some(1));
    world.expect("ecc", CheckStatus::Fail, "rose");
    world.memory.acknowledge();
    world.expect("ecc", CheckStatus::Warn, "none of them new");
    world.change_health(|health| health.ecc_uncorrected = Some(2));
    world.expect("ecc", CheckStatus::Fail, "rose above the 1");
}

#[test]
fn an_ecc_mode_other_than_the_configured_one_warns() {
    let mut world = World::healthy();
    world.change_health(|health| health.ecc_mode = Some((true, false)));
    world.expect("ecc", CheckStatus::Warn, "will be off after the next reboot");
    world.change_health(|health| health.ecc_mode = Some((true, true)));
    world.rules.card.ecc_mode = Some(false);
    world.expect("ecc", CheckStatus::Warn, "--ecc-mode");
    world.rules.card.ecc_mode = Some(true);
    world.expect("ecc", CheckStatus::Pass, "");
}

#[test]
fn failed_pending_and_many_remapped_rows() {
    for (pending, failure, rows, status, expected) in [
        (false, true, 1, CheckStatus::Fail, "replace the card"),
        (true, false, 1, CheckStatus::Warn, "next reset"),
        (false, false, 512, CheckStatus::Warn, "plan to replace"),
        (false, false, 511, CheckStatus::Pass, ""),
    ] {
        let mut world = World::healthy();
        world.change_health(|health| {
            health.remap_pending = Some(pending);
            health.remap_failure = Some(failure);
            health.remapped_uncorrectable = Some(rows);
        });
        world.expect("row_remap", status, expected);
        world.rules.card.remap_failure_gates = false;
        world.rules.card.remap_pending_gates = true;
        let status_if_gating = match status {
            CheckStatus::Fail => CheckStatus::Warn,
            CheckStatus::Warn if pending => CheckStatus::Fail,
            other => other,
        };
        world.expect("row_remap", status_if_gating, expected);
    }
}

#[test]
fn thermal_slowdown_warns_after_10_s_and_in_hardware_gates_after_60() {
    let mut world = World::healthy();
    world.evaluate();
    world.change_health(|health| health.clock_event_reasons = Some(SW_THERMAL));
    world.evaluate();
    assert_eq!(world.pass(9.5), ReadyStatus::Ready);
    assert_eq!(world.pass(0.5), ReadyStatus::Degraded);
    assert!(world.check("thermal").message.contains("images take longer"));
    assert_eq!(world.pass(120.0), ReadyStatus::Degraded, "software's slowing down never gates");
    world.change_health(|health| health.clock_event_reasons = Some(HW_THERMAL));
    world.evaluate();
    assert_eq!(world.pass(59.5), ReadyStatus::Degraded);
    assert_eq!(world.pass(0.5), ReadyStatus::NotReady);
    world.change_health(|health| health.clock_event_reasons = Some(1));
    world.evaluate();
    assert_eq!(world.pass(14.5), ReadyStatus::NotReady);
    assert_eq!(world.pass(0.5), ReadyStatus::Ready);
}

#[test]
fn a_power_brake_warns_and_a_power_cap_is_normal() {
    for (bit, status) in [
        (HW_POWER_BRAKE, ReadyStatus::Degraded),
        (HW_SLOWDOWN, ReadyStatus::Degraded),
        (0x04, ReadyStatus::Ready),
        (0x01, ReadyStatus::Ready),
    ] {
        let mut world = World::healthy();
        world.evaluate();
        world.change_health(|health| health.clock_event_reasons = Some(bit));
        world.evaluate();
        assert_eq!(world.pass(9.5), ReadyStatus::Ready, "{bit:#x}");
        assert_eq!(world.pass(0.5), status, "{bit:#x}");
        world.change_health(|health| health.clock_event_reasons = Some(0));
        world.evaluate();
        assert_eq!(world.pass(15.0), ReadyStatus::Ready, "{bit:#x}");
    }
}

#[test]
fn a_narrow_link_warns_only_while_busy() {
    let mut world = World::healthy();
    world.change_health(|health| health.pcie_width = Some((8, 16)));
    world.evaluate();
    assert_eq!(world.pass(120.0), ReadyStatus::Ready, "an idle link may narrow");
    world.reading(|reading| reading.report.utilization_gpu = Some(97));
    world.evaluate();
    assert_eq!(world.pass(29.5), ReadyStatus::Ready);
    assert_eq!(world.pass(0.5), ReadyStatus::Degraded);
    assert!(world.check("pcie_width").message.contains("8 of 16"));
    world.reading(|reading| reading.report.utilization_gpu = Some(0));
    assert_eq!(world.pass(60.0), ReadyStatus::Degraded, "idle proves nothing");
    world.change_health(|health| health.pcie_width = Some((16, 16)));
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);
    world.reading(|reading| reading.report.utilization_gpu = Some(97));
    for _ in 0..120 {
        assert_eq!(world.pass(0.5), ReadyStatus::Ready, "busy at its full width");
    }
}

#[test]
fn what_the_driver_does_not_support_is_unknown_and_never_fails() {
    let mut world = World::healthy();
    world.change_health(|health| *health = HealthReading::default());
    world.evaluate();
    assert_eq!(world.pass(120.0), ReadyStatus::Ready);
    for name in ["recovery_action", "xid", "ecc", "row_remap", "thermal", "power_brake", "pcie_width"] {
        world.expect(name, CheckStatus::Unknown, "does not support");
    }
}
