//! The latches against a model that remembers everything: what is latched follows from the whole past, told in the words of the
//! documents.

use proptest::prelude::*;

use super::*;

/// XIDs that gate until reboot, driver reload, recovery or acknowledgement.
const FATAL: [u32; 3] = [48, 79, 95];
/// Gates until the engine restarts, too.
const CONTAINED: u32 = 94;
/// A warning that stays.
const REMAPPED: u32 = 63;
/// Gates never.
const HARMLESS: [u32; 3] = [13, 45, 109];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Xid(u32),
    Recovery(Option<u32>),
    Ecc(Option<u64>),
    Lost,
    Found,
    EngineRestart,
    DriverLoad,
    Acknowledge,
    ServiceRestart,
    Reboot,
    Time,
}

fn any_event() -> impl Strategy<Value = Event> {
    let codes: Vec<_> = [CONTAINED, REMAPPED].into_iter().chain(FATAL).chain(HARMLESS).collect();
    prop_oneof![
        6 => prop::sample::select(codes).prop_map(Event::Xid),
        3 => prop::option::weighted(0.8, 0..3_u32).prop_map(Event::Recovery),
        4 => prop::option::weighted(0.8, 0..4_u64).prop_map(Event::Ecc),
        6 => prop::sample::select(vec![
            Event::Lost, Event::Found, Event::EngineRestart, Event::DriverLoad, Event::Acknowledge,
            Event::ServiceRestart, Event::Reboot, Event::Time,
        ]),
    ]
}

/// One evaluation: what happened before it, and what the card said.
#[derive(Debug, Clone, Copy)]
struct Moment {
    event: Event,
    recovery: Option<u32>,
    ecc: Option<u64>,
}

impl Moment {
    fn clears_all(&self) -> bool {
        matches!(self.event, Event::DriverLoad | Event::Acknowledge | Event::Reboot)
    }
}

/// Whether a report of this code is still in force.
fn is_in_force(past: &[Moment], code: u32) -> bool {
    let Some(reported) = past.iter().rposition(|moment| moment.event == Event::Xid(code)) else {
        return false;
    };
    let since = &past[reported..];
    let advised = since.iter().position(|moment| moment.recovery.is_some_and(|action| action != 0));
    let recovered = advised.is_some_and(|at| since[at..].iter().any(|moment| moment.recovery == Some(0)));
    let engine = code == CONTAINED && since.iter().any(|moment| moment.event == Event::EngineRestart);
    !recovered && !engine && !since.iter().any(Moment::clears_all)
}

/// Whether memory errors have risen since they were first counted: since the driver was loaded, which a falling count shows, too.
fn has_risen(past: &[Moment]) -> bool {
    let from = past.iter().rposition(Moment::clears_all).unwrap_or(0);
    let counts: Vec<_> = past[from..].iter().filter_map(|moment| moment.ecc).collect();
    let fell = counts.windows(2).rposition(|pair| pair[1] < pair[0]).map_or(0, |at| at + 1);
    counts[fell..].iter().any(|count| *count > counts[fell])
}

/// The driver's next sample, and the verdict.
fn happen(
    world: &mut World,
    card: &mut HealthReading,
    is_lost: &mut bool,
    event: Event,
    boot: &mut u32,
) -> Moment {
    match event {
        Event::Xid(code) => world.xid(code),
        Event::Recovery(action) => card.recovery_action = action,
        Event::Ecc(count) => card.ecc_uncorrected = count,
        Event::Lost | Event::Found => *is_lost = event == Event::Lost,
        Event::EngineRestart => world.engine.restarts += 1,
        Event::DriverLoad => world.gpu.as_mut().unwrap().driver_loads += 1,
        Event::Acknowledge => world.memory.acknowledge(),
        Event::ServiceRestart | Event::Reboot => {
            *boot += u32::from(event == Event::Reboot);
            world.restart(&format!("boot {boot}"));
        }
        Event::Time => world.now += Duration::from_hours(1),
    }
    if *is_lost {
        world.state(GpuState::Lost);
    } else {
        world.state(present(vec![]));
        world.change_health(|health| *health = card.clone());
    }
    world.evaluate();
    let seen = |reading| if *is_lost { None } else { reading };
    let ecc = if *is_lost { None } else { card.ecc_uncorrected };
    Moment { event, recovery: seen(card.recovery_action), ecc }
}

proptest! {
    #[test]
    fn what_is_latched_follows_from_the_whole_past(events in prop::collection::vec(any_event(), 1..60)) {
        let mut world = World::healthy();
        let Some(GpuState::Present(reading)) = world.gpu.as_ref().map(|sample| &sample.state) else { unreachable!() };
        let (mut card, mut is_lost, mut boot, mut past) = (reading.health.clone(), false, 0, Vec::new());
        world.restart("boot 0");
        for event in events {
            past.push(happen(&mut world, &mut card, &mut is_lost, event, &mut boot));
            let gates = is_in_force(&past, CONTAINED) || FATAL.iter().any(|code| is_in_force(&past, *code));
            let xid = world.check("xid");
            prop_assert_eq!(xid.status == CheckStatus::Fail, gates, "{:?} after {:#?}", xid, past);
            if !gates && is_in_force(&past, REMAPPED) {
                prop_assert_eq!(xid.status, CheckStatus::Warn, "{:?} after {:#?}", xid, past);
            }
            let ecc = world.check("ecc");
            prop_assert_eq!(ecc.status == CheckStatus::Fail, has_risen(&past), "{:?} after {:#?}", ecc, past);
            prop_assert!(!gates || !world.report.as_ref().unwrap().admits());
        }
    }
}
