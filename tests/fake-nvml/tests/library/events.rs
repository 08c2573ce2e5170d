//! XIDs: what a set reports, what it does not, and how soon.

use std::{
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper::{
    EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
    struct_wrappers::event::EventData,
};

use crate::machine::Machine;

const SOON: Duration = Duration::from_millis(50);
/// Longer than anything that should come.
const LONG_MS: u32 = 10_000;

#[test]
fn an_xid_wakes_a_waiting_call_within_50_ms() {
    let machine = Machine::new();
    let nvml = machine.load();
    let set = registered(&nvml);
    // The fastest of a few: a busy machine may keep either thread waiting.
    let took = (0..5).map(|_| time_to_be_reported(&machine, &set)).min().expect("five times");
    assert!(took < SOON, "it took {took:?}");
}

fn time_to_be_reported(machine: &Machine, set: &EventSet<'_>) -> Duration {
    thread::scope(|scope| {
        let report = scope.spawn(|| {
            thread::sleep(Duration::from_millis(25));
            machine.set_card(|gpu| gpu.xid(79));
            Instant::now()
        });
        assert_eq!(set_wait(set, LONG_MS), Ok(79));
        let reported = Instant::now();
        reported.saturating_duration_since(report.join().expect("no panic"))
    })
}

#[test]
fn an_event_says_which_card_it_is_about() -> Result<(), NvmlError> {
    let machine = Machine::new();
    machine.set(|scenario| {
        let mut second = scenario.gpus[0].clone();
        (second.index, second.uuid) = (1, "GPU-2".into());
        scenario.gpus.push(second);
    });
    let nvml = machine.load();
    let set = registered(&nvml);
    let second = nvml.device_by_index(1)?;
    let set = second.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|failed| failed.error)?;
    machine.set(|scenario| scenario.gpus[1].xid(48));
    let event: EventData<'_> = set.wait(LONG_MS)?;
    assert_eq!(event.device.uuid()?, "GPU-2");
    assert_eq!(event.event_type, EventTypes::CRITICAL_XID_ERROR);
    Ok(())
}

#[test]
fn nothing_is_reported_twice_or_from_before_the_registration() {
    let machine = Machine::new();
    machine.set_card(|gpu| gpu.xid(31));
    let nvml = machine.load();
    let early = registered(&nvml);
    assert_eq!(set_wait(&early, 30), Err(WaitError::Nothing));
    machine.set_card(|gpu| gpu.xid(43));
    let late = registered(&nvml);
    assert_eq!(set_wait(&early, LONG_MS), Ok(43));
    assert_eq!(set_wait(&early, 30), Err(WaitError::Nothing));
    assert_eq!(set_wait(&late, 0), Err(WaitError::Nothing), "each set has its own events");
    drop(early);
    drop(late);
    assert_eq!(set_wait(&registered(&nvml), 0), Err(WaitError::Nothing));
}

#[test]
fn of_several_xids_only_the_newest_code_is_reported() {
    let machine = Machine::new();
    let nvml = machine.load();
    let set = registered(&nvml);
    for code in [13, 48, 79] {
        machine.set_card(|gpu| gpu.xid(code));
    }
    assert_eq!([(); 3].map(|()| set_wait(&set, 0)), [Ok(79), Ok(79), Ok(79)]);
    assert_eq!(set_wait(&set, 0), Err(WaitError::Nothing));
}

#[test]
fn a_lost_card_ends_a_wait_after_its_xid() {
    let machine = Machine::new();
    let nvml = machine.load();
    let set = registered(&nvml);
    machine.set_card(|gpu| {
        gpu.xid(79);
        gpu.lost = true;
    });
    assert_eq!(set_wait(&set, LONG_MS), Ok(79));
    assert_eq!(set_wait(&set, LONG_MS), Err(WaitError::Lost));
    machine.set_card(|gpu| gpu.lost = false);
    assert_eq!(set_wait(&set, 0), Err(WaitError::Nothing));
}

#[test]
fn waiting_fails_as_scripted() {
    let machine = Machine::new();
    let nvml = machine.load();
    let set = registered(&nvml);
    machine.set_card(|gpu| gpu.fail("nvmlEventSetWait_v2", 999));
    assert!(matches!(set.wait(LONG_MS), Err(NvmlError::Unknown)));
    assert!(set.release_events().is_ok());
}

#[test]
fn only_supported_types_can_be_registered() -> Result<(), NvmlError> {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0)?;
    assert!(card.supported_event_types()?.contains(EventTypes::CRITICAL_XID_ERROR));
    machine.set_card(|gpu| gpu.event_types = 1);
    let refused = card.register_events(EventTypes::CRITICAL_XID_ERROR, nvml.create_event_set()?);
    assert!(matches!(refused.map_err(|failed| failed.error), Err(NvmlError::NotSupported)));
    let frees = machine.calls().iter().filter(|call| *call == "nvmlEventSetFree").count();
    assert_eq!(frees, 1, "the wrapper frees a set that it cannot register");
    Ok(())
}

/// Why no XID was reported.
#[derive(Debug, PartialEq)]
enum WaitError {
    Nothing,
    Lost,
    Other(String),
}

fn registered(nvml: &Nvml) -> EventSet<'_> {
    let card = nvml.device_by_index(0).expect("there is one");
    let set = nvml.create_event_set().expect("a set");
    card.register_events(EventTypes::CRITICAL_XID_ERROR, set)
        .map_err(|failed| failed.error)
        .expect("registered")
}

fn set_wait(set: &EventSet<'_>, timeout_ms: u32) -> Result<u64, WaitError> {
    match set.wait(timeout_ms) {
        Ok(EventData { event_data: Some(XidError::Value(code)), .. }) => Ok(code),
        Ok(event) => Err(WaitError::Other(format!("{event:?}"))),
        Err(NvmlError::Timeout) => Err(WaitError::Nothing),
        Err(NvmlError::GpuLost) => Err(WaitError::Lost),
        Err(error) => Err(WaitError::Other(error.to_string())),
    }
}
