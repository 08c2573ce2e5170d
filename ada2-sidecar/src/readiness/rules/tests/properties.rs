//! What must hold for any sequence of events.

use proptest::prelude::*;

use super::*;

/// Something that happens between two verdicts.
#[derive(Debug, Clone)]
enum Event {
    State(u8),
    Foreign(u64),
    Slowdown(u64),
    Recovery(u32),
    Ecc(u64),
    Rows(bool, bool),
    Xid(u32),
    Memory(u64),
    EngineRestart,
    DriverLoad,
    Acknowledge,
    Pass(u16),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..5_u8).prop_map(Event::State),
        (0..45_000_u64).prop_map(Event::Foreign),
        prop::sample::select(vec![0, 1, 4, 8, 0x20, 0x40, 0x80, 0xff]).prop_map(Event::Slowdown),
        (0..9_u32).prop_map(Event::Recovery),
        (0..4_u64).prop_map(Event::Ecc),
        any::<(bool, bool)>().prop_map(|(pending, failure)| Event::Rows(pending, failure)),
        prop::sample::select(vec![13, 31, 45, 63, 79, 94, 109, 154, 999]).prop_map(Event::Xid),
        (0..64_u64).prop_map(Event::Memory),
        Just(Event::EngineRestart),
        Just(Event::DriverLoad),
        Just(Event::Acknowledge),
        (1..300_u16).prop_map(Event::Pass),
    ]
}

impl World {
    /// Changes the current sample, without a new one.
    fn change_current_sample(&mut self, change: impl FnOnce(&mut HealthReading)) {
        if let Some(GpuState::Present(reading)) = self.gpu.as_mut().map(|sample| &mut sample.state) {
            change(&mut reading.health);
        }
    }

    fn apply(&mut self, event: &Event) {
        let is_present = matches!(&self.gpu.as_ref().unwrap().state, GpuState::Present(_));
        match event {
            Event::State(0) => self.state(GpuState::Lost),
            Event::State(1) => self.state(GpuState::Failed("odd".into())),
            Event::State(2) => self.state(GpuState::DriverNotLoaded),
            Event::State(_) => self.state(present(vec![])),
            Event::Foreign(mib) => self.state(present(vec![process(7, "ollama.service", *mib)])),
            Event::Xid(code) => self.xid(*code),
            Event::Memory(gib) => self.host.as_mut().unwrap().memory_available = gib << 30,
            Event::EngineRestart => self.engine.restarts += 1,
            Event::DriverLoad => self.gpu.as_mut().unwrap().driver_loads += 1,
            Event::Acknowledge => self.memory.acknowledge(),
            Event::Pass(halves) => {
                self.pass(f64::from(*halves) / 2.0);
            }
            _ if !is_present => {}
            Event::Slowdown(bits) => self.change_health(|health| health.clock_event_reasons = Some(*bits)),
            Event::Recovery(action) => self.change_health(|health| health.recovery_action = Some(*action)),
            Event::Ecc(count) => self.change_health(|health| health.ecc_uncorrected = Some(*count)),
            Event::Rows(pending, failure) => self.change_health(|health| {
                health.remap_pending = Some(*pending);
                health.remap_failure = Some(*failure);
            }),
        }
        self.evaluate();
    }
}

fn severity(status: CheckStatus) -> u8 {
    match status {
        CheckStatus::Pass | CheckStatus::Unknown => 0,
        CheckStatus::Warn => 1,
        CheckStatus::Fail => 2,
    }
}

proptest! {
    #[test]
    fn never_ready_with_a_lost_card_or_while_draining(events in prop::collection::vec(any_event(), 0..30), draining: bool) {
        let mut world = World::healthy();
        for event in &events {
            world.apply(event);
        }
        world.draining = draining;
        if !draining {
            world.state(GpuState::Lost);
        }
        prop_assert!(!world.evaluate().admits());
    }

    #[test]
    fn the_verdict_is_the_worst_of_its_checks_and_each_that_does_not_pass_says_why(
        events in prop::collection::vec(any_event(), 1..30),
    ) {
        let mut world = World::healthy();
        for event in &events {
            world.apply(event);
            let report = world.report.clone().unwrap();
            let worst = report.checks.iter().map(|check| severity(check.status)).max().unwrap();
            let expected = [ReadyStatus::Ready, ReadyStatus::Degraded, ReadyStatus::NotReady][usize::from(worst)];
            prop_assert_eq!(report.status, expected);
            for check in &report.checks {
                prop_assert_eq!(check.status != CheckStatus::Pass, !check.message.is_empty(), "{:?}", check);
            }
        }
    }

    /// A reading that becomes unsupported can only turn its check to unknown; nothing that passed begins to fail.
    #[test]
    fn a_reading_that_is_not_supported_never_fails(events in prop::collection::vec(any_event(), 0..20)) {
        let mut world = World::healthy();
        for event in &events {
            world.apply(event);
        }
        world.state(present(vec![]));
        world.evaluate();
        let mut unsupported = world.clone();
        unsupported.change_health(|health| *health = HealthReading::default());
        unsupported.evaluate();
        for name in ["recovery_action", "row_remap", "thermal", "power_brake", "pcie_width", "ecc", "xid"] {
            prop_assert!(severity(unsupported.check(name).status) <= severity(world.check(name).status), "{}", name);
        }
    }

    /// Whatever went before, adding a fault leaves no check milder.
    #[test]
    fn a_further_fault_never_improves_the_verdict(events in prop::collection::vec(any_event(), 0..20), worse in 0..6_u8) {
        let mut world = World::healthy();
        for event in &events {
            world.apply(event);
        }
        world.state(present(vec![]));
        let mut faulty = world.clone();
        world.evaluate();
        match worse {
            0 => faulty.change_current_sample(|health| health.recovery_action = Some(2)),
            1 => faulty.change_current_sample(|health| health.remap_failure = Some(true)),
            2 => faulty.change_current_sample(|health| health.remap_pending = Some(true)),
            3 => faulty.xid(79),
            4 => faulty.engine.error = Some(EngineError::ConnectionRefused("gone".into())),
            _ => faulty.oldest_cancel = Some(Duration::from_mins(2)),
        }
        let (healthy, faulty_report) = (world.report.unwrap(), faulty.evaluate().clone());
        prop_assert!(!faulty_report.admits() || healthy.admits());
        for (before, after) in healthy.checks.iter().zip(&faulty_report.checks) {
            // Without the engine its queue and model are unknown.
            if !(worse == 4 && matches!(before.name.as_str(), "engine_queue" | "engine_model")) {
                prop_assert!(severity(after.status) >= severity(before.status), "{:?} {:?}", before, after);
            }
        }
    }

    /// After a failed reading of the card nothing is admitted.
    #[test]
    fn nothing_is_admitted_after_a_failed_reading(events in prop::collection::vec(any_event(), 0..20)) {
        let mut world = World::healthy();
        for event in &events {
            world.apply(event);
        }
        world.state(GpuState::Failed("odd".into()));
        prop_assert!(!world.evaluate().admits());
    }

    /// With the same readings for ever, the verdict settles and stays.
    #[test]
    fn the_verdict_settles_under_constant_input(events in prop::collection::vec(any_event(), 0..20)) {
        let mut world = World::healthy();
        for event in &events {
            world.apply(event);
        }
        world.pass(700.0);
        let settled = world.status();
        for _ in 0..100 {
            prop_assert_eq!(world.pass(1.0), settled);
        }
    }
}
