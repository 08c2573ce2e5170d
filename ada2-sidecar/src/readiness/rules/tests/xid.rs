//! Error reports of the driver.

use super::*;

#[test]
fn a_fatal_xid_gates_until_reboot_reload_recovery_or_acknowledgement() {
    let fatal = || {
        let mut world = World::healthy();
        world.evaluate();
        world.xid(79);
        world.expect("xid", CheckStatus::Fail, "XID 79 (GPU has fallen off the bus)");
        assert_eq!(world.pass(3600.0), ReadyStatus::NotReady, "time does not mend it");
        world
    };
    let mut world = fatal();
    world.engine.restarts += 1;
    assert_eq!(world.evaluate().status, ReadyStatus::NotReady, "nor does the engine's restart");
    world.memory.acknowledge();
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);

    let mut world = fatal();
    world.gpu.as_mut().unwrap().driver_loads += 1;
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);

    let mut world = fatal();
    world.change_health(|health| health.recovery_action = Some(1));
    assert_eq!(world.evaluate().status, ReadyStatus::NotReady);
    world.change_health(|health| health.recovery_action = Some(0));
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);

    // The service restarts in the same boot, and in the next one.
    for (boot, status) in [("boot", ReadyStatus::NotReady), ("next", ReadyStatus::Ready)] {
        let latch = fatal().memory.latch.for_boot(boot);
        let mut world = World::healthy();
        world.memory = EvaluationState::new(latch);
        assert_eq!(world.evaluate().status, status, "{boot}");
    }
}

#[test]
fn a_contained_error_gates_until_the_engine_restarts() {
    let mut world = World::healthy();
    world.evaluate();
    world.xid(94);
    world.expect("xid", CheckStatus::Fail, "restart the engine");
    world.engine.restarts += 1;
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);
}

#[test]
fn a_restart_of_the_service_alone_clears_no_contained_error() {
    let mut world = World::healthy();
    world.evaluate();
    world.xid(94);
    world.evaluate();
    world.restart("boot");
    world.expect("xid", CheckStatus::Fail, "restart the engine");
    world.engine.restarts += 1;
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);
}

#[test]
fn an_application_xid_warns_for_a_minute_and_never_gates() {
    for code in [13, 31, 43, 68, 109, 999, 4711] {
        let mut world = World::healthy();
        world.evaluate();
        world.xid(code);
        world.expect("xid", CheckStatus::Warn, &format!("XID {code}"));
        assert_eq!(world.pass(59.5), ReadyStatus::Degraded);
        assert_eq!(world.pass(0.5), ReadyStatus::Ready, "{code}");
    }
}

#[test]
fn many_application_xids_warn_until_the_engine_restarts() {
    for (codes, many) in [(&[31, 31][..], false), (&[31, 13, 43], true), (&[109, 109], true)] {
        let mut world = World::healthy();
        world.evaluate();
        for code in codes {
            world.xid(*code);
            world.evaluate();
            world.pass(100.0);
        }
        let (before, message) = (world.status(), world.check("xid").message.clone());
        assert_eq!(
            before,
            if many { ReadyStatus::Degraded } else { ReadyStatus::Ready },
            "{codes:?} {message}"
        );
        world.engine.restarts += 1;
        assert_eq!(world.evaluate().status, ReadyStatus::Ready, "{codes:?}");
    }
}

#[test]
fn application_xids_far_apart_do_not_add_up() {
    let mut world = World::healthy();
    world.evaluate();
    for _ in 0..5 {
        world.xid(31);
        world.evaluate();
        assert_eq!(world.pass(400.0), ReadyStatus::Ready);
    }
}

#[test]
fn a_remapped_row_stays_a_warning_and_a_followup_xid_is_ignored() {
    let mut world = World::healthy();
    world.evaluate();
    world.xid(63);
    assert_eq!(world.pass(3600.0), ReadyStatus::Degraded);
    world.memory.acknowledge();
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);
    for code in [45, 154] {
        world.xid(code);
        assert_eq!(world.evaluate().status, ReadyStatus::Ready, "{code}");
    }
}

#[test]
fn an_xid_counts_once_however_often_it_is_evaluated() {
    let mut world = World::healthy();
    world.evaluate();
    world.xid(79);
    world.evaluate();
    world.memory.acknowledge();
    world.pass(10.0);
    assert_eq!(world.status(), ReadyStatus::Ready);
}

#[test]
fn a_latched_xid_is_reported_while_the_card_cannot_be_read() {
    let mut world = World::healthy();
    world.evaluate();
    world.xid(79);
    world.evaluate();
    world.state(GpuState::Lost);
    world.expect("xid", CheckStatus::Fail, "XID 79");
}
