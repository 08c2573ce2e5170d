//! Calls that are slow or hang, and what is kept between calls.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nvml_wrapper::{enum_wrappers::device::TemperatureSensor, error::NvmlError};

use crate::machine::Machine;

/// Long enough that a call which does not hang has returned.
const A_WHILE: Duration = Duration::from_millis(100);
const FOR_EVER_MS: u64 = 600_000;

#[test]
fn a_hang_ends_when_the_scenario_no_longer_has_it() {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0).expect("there is one");
    machine.set(|scenario| scenario.hang.push("nvmlDeviceGetTemperature".into()));
    thread::scope(|scope| {
        let stuck = scope.spawn(|| card.temperature(TemperatureSensor::Gpu));
        thread::sleep(A_WHILE);
        assert!(!stuck.is_finished(), "it hangs");
        assert!(card.memory_info().is_ok(), "and nothing else does");
        machine.set(|scenario| {
            scenario.hang.clear();
            scenario.gpus[0].temperature = 60;
        });
        let answer = stuck.join().expect("no panic");
        assert!(matches!(answer, Ok(60)), "the answer is of when it was given");
    });
}

#[test]
fn initialisation_can_hang() {
    let machine = Machine::new();
    machine.set(|scenario| scenario.hang.push("nvmlInit_v2".into()));
    thread::scope(|scope| {
        let stuck = scope.spawn(|| machine.try_load().is_ok());
        thread::sleep(A_WHILE);
        assert!(!stuck.is_finished(), "it hangs");
        machine.set(|scenario| scenario.hang.clear());
        assert!(stuck.join().expect("no panic"));
    });
}

#[test]
fn a_wait_that_has_begun_can_hang() {
    let machine = Machine::new();
    let nvml = machine.load();
    let set = nvml.create_event_set().expect("a set");
    thread::scope(|scope| {
        let stuck = scope.spawn(move || matches!(set.wait(300), Err(NvmlError::Timeout)));
        machine.set(|scenario| scenario.hang.push("nvmlEventSetWait_v2".into()));
        thread::sleep(5 * A_WHILE);
        assert!(!stuck.is_finished(), "it hangs beyond its timeout");
        machine.set(|scenario| scenario.hang.clear());
        assert!(stuck.join().expect("no panic"));
    });
}

#[test]
fn a_delay_takes_its_time_and_ends_early_when_the_scenario_says_so() {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0).expect("there is one");
    let delay = |milliseconds| {
        machine.set(|scenario| {
            scenario.delay_ms.insert("nvmlDeviceGetTemperature".into(), milliseconds);
        });
    };
    delay(35);
    let began = Instant::now();
    assert!(card.temperature(TemperatureSensor::Gpu).is_ok());
    assert!(began.elapsed() >= Duration::from_millis(35));
    delay(FOR_EVER_MS);
    thread::scope(|scope| {
        let slow = scope.spawn(|| card.temperature(TemperatureSensor::Gpu).is_ok());
        thread::sleep(A_WHILE);
        assert!(!slow.is_finished());
        delay(0);
        assert!(slow.join().expect("no panic"));
    });
}

#[test]
fn every_change_is_visible_to_the_next_call() {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0).expect("there is one");
    // Files of one size, faster than a file system's clock ticks: only the inode tells them apart, and the one that
    // nobody reads leaves room for the next to get the inode of the one before it.
    for temperature in (10..99).cycle().take(200) {
        machine.set_card(|gpu| gpu.temperature = 99);
        machine.set_card(|gpu| gpu.temperature = temperature);
        assert!(matches!(card.temperature(TemperatureSensor::Gpu), Ok(reading) if reading == temperature));
    }
}

#[test]
fn every_call_is_recorded() {
    let machine = Machine::new();
    let nvml = machine.load();
    let before = machine.calls().len();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let card = nvml.device_by_index(0).expect("there is one");
                for _ in 0..100 {
                    assert!(card.power_usage().is_ok());
                }
            });
        }
    });
    let calls = machine.calls();
    assert_eq!(calls.len(), before + 404);
    assert_eq!(calls.iter().filter(|call| *call == "nvmlDeviceGetPowerUsage").count(), 400);
}

#[test]
#[cfg(target_os = "linux")]
fn reloading_leaves_no_file_open() {
    let machine = Machine::new();
    let ours = || {
        let open = fs::read_dir("/proc/self/fd").expect("this is Linux");
        let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target.starts_with(machine.dir())).count()
    };
    for _ in 0..20 {
        let nvml = machine.load();
        assert!(nvml.device_count().is_ok());
        assert!(ours() >= 1, "the call log is kept open");
    }
    assert_eq!(ours(), 0);
}
