//! The rows, in the order of the table: what is there at the start, the driver, the card, its reports, its memory, its
//! heat and power, its slot, the engine, the service itself.

use std::time::Duration;

use fakes::gpu::Pcie;

use super::fault::{Action, Fault, Goal};

const MEMORY: &str = "nvmlDeviceGetMemoryInfo_v2";
/// The fake card's.
const UUID: &str = "GPU-6adaf00d-1234-5678-9abc-def012345678";

pub(crate) fn all() -> Vec<Fault> {
    [at_start(), driver(), card(), reports(), memory(), heat_and_slot(), engine_and_service()].concat()
}

fn at_start() -> Vec<Fault> {
    let init = |name, check, act| Fault::gates(name, check, act).at_start();
    vec![
        init("library missing at start", "nvml", Action::LibraryAway).repaired_by(Action::LibraryBack),
        init("driver not loaded at start", "nvml", Action::Machine(|machine| machine.init_error = 9)),
        init("no permission at start", "nvml", Action::Machine(|machine| machine.init_error = 4)),
        init("versions differ at start", "driver", Action::Machine(|machine| machine.init_error = 18)),
        init("init fails with 999 at start", "nvml", Action::Machine(|machine| machine.init_error = 999)),
        init(
            "init hangs at start",
            "nvml",
            Action::Machine(|machine| machine.hang.push("nvmlInit_v2".to_owned())),
        )
        // Until then connections wait for the first look.
        .delays(5.0, 0.0),
        init("no card at start", "gpu_present", Action::Machine(|machine| machine.gpus.clear())),
        Fault {
            flags: &["--gpu-id", UUID],
            ..init(
                "another card at start (by UUID)",
                "gpu_present",
                Action::Card(|card| "GPU-another".clone_into(&mut card.uuid)),
            )
        },
        Fault::warns(
            "ECC errors from before the start",
            "ecc",
            Action::Card(|card| card.ecc.uncorrected.volatile = 3),
        )
        .at_start(),
    ]
}

fn driver() -> Vec<Fault> {
    vec![
        Fault::gates("error 999, twice in a row", "nvml", Action::Card(|card| card.fail(MEMORY, 999))),
        Fault::gates("error 29, newer than we know", "nvml", Action::Card(|card| card.fail(MEMORY, 29))),
        Fault::gates(
            "every card gone while running",
            "nvml",
            Action::Machine(|machine| machine.gpus.clear()),
        ),
        Fault::gates(
            "driver unloaded while running",
            "nvml",
            Action::Machine(|machine| {
                machine.init_error = 9;
                machine.gpus[0].lost = true;
            }),
        ),
        Fault::gates(
            "a call hangs",
            "snapshot_fresh",
            Action::Machine(|machine| machine.hang.push(MEMORY.to_owned())),
        )
        .delays(5.0, 0.0),
        Fault::warns("driver upgraded on disk", "driver", Action::LibraryUpgraded)
            .repaired_by(Action::LibraryBack)
            .goal(Goal::SlowReading),
    ]
}

fn card() -> Vec<Fault> {
    let lost = |name| Fault::gates(name, "gpu_present", Action::Card(|card| card.lost = true));
    let advice = |name, act| Fault::gates(name, "recovery_action", act);
    vec![
        lost("GPU lost"),
        Fault { lasts: Duration::from_secs(20), ..lost("GPU lost, for 20 s") },
        Fault::gates(
            "GPU lost, in field values only",
            "gpu_present",
            Action::Card(|card| card.lost_inside_fields = true),
        ),
        Fault::gates("reset required (code 16)", "gpu_present", Action::Card(|card| card.fail(MEMORY, 16))),
        advice("recovery action 1, reset", Action::Card(|card| card.recovery_action = 1)),
        advice("recovery action 2, reboot", Action::Card(|card| card.recovery_action = 2)),
        advice("recovery action 4, drain and reset", Action::Card(|card| card.recovery_action = 4)),
        Fault::warns(
            "recovery action 3, drain P2P",
            "recovery_action",
            Action::Card(|card| card.recovery_action = 3),
        ),
    ]
}

fn reports() -> Vec<Fault> {
    let warning = |name, codes| Fault::warns(name, "xid", Action::Xids(codes)).goal(Goal::Reported);
    vec![
        Fault::fatal("XID 79, off the bus", &[79]),
        Fault::fatal("XID 48, double-bit ECC", &[48]),
        Fault::fatal("XID 95, uncontained", &[95]),
        Fault::fatal("XID 119, GSP timeout", &[119]),
        Fault::fatal("XID 94, contained", &[94]).of_invokeai().repaired_by(Action::EngineStarts),
        warning("XID 31, a program's fault", &[31]).delays(0.0, 60.0).repaired_by(Action::Wait),
        warning("XID 31, three in 10 min", &[31, 31, 31]).repaired_by(Action::Acknowledge),
        warning("XID 63, row remapped", &[63]).repaired_by(Action::Acknowledge),
    ]
}

fn memory() -> Vec<Fault> {
    vec![
        Fault::gates(
            "uncorrected ECC errors rise",
            "ecc",
            Action::Card(|card| card.ecc.uncorrected.volatile += 1),
        )
        .repaired_by(Action::Acknowledge),
        Fault::gates(
            "row remap failure",
            "row_remap",
            Action::Card(|card| card.remapped_rows.failure = true),
        ),
        Fault::warns(
            "row remap pending",
            "row_remap",
            Action::Card(|card| card.remapped_rows.pending = true),
        ),
        Fault::warns(
            "512 rows remapped",
            "row_remap",
            Action::Card(|card| card.remapped_rows.uncorrectable = 512),
        ),
        Fault::warns("ECC mode pending", "ecc", Action::Card(|card| card.ecc.pending = false))
            .goal(Goal::SlowReading),
        Fault::gates("foreign VRAM", "vram_headroom", Action::Foreign).delays(15.0, 10.0).goal(Goal::Other),
    ]
}

fn heat_and_slot() -> Vec<Fault> {
    vec![
        Fault::warns(
            "thermal slowdown, software",
            "thermal",
            Action::Card(|card| card.throttle_reasons = 0x20),
        )
        .delays(10.0, 15.0),
        Fault::gates(
            "thermal slowdown, hardware",
            "thermal",
            Action::Card(|card| card.throttle_reasons = 0x40),
        )
        .delays(60.0, 15.0),
        Fault::warns("power brake", "power_brake", Action::Card(|card| card.throttle_reasons = 0x80))
            .delays(10.0, 15.0),
        Fault::warns(
            "8 of 16 PCIe lanes while busy",
            "pcie_width",
            Action::Card(|card| {
                card.utilization.gpu = 90;
                card.pcie = Pcie { width: 8, ..card.pcie };
            }),
        )
        .delays(30.0, 0.0)
        .goal(Goal::SlowReading),
    ]
}

fn engine_and_service() -> Vec<Fault> {
    let engine = |name, check, breaks, repair| {
        Fault::gates(name, check, breaks).of_invokeai().repaired_by(repair).goal(Goal::Other)
    };
    vec![
        engine("engine gone", "engine_reachable", Action::EngineStops, Action::EngineStarts),
        engine(
            "engine hangs",
            "engine_reachable",
            Action::Engine(|script| script.hang = true),
            Action::Engine(|script| script.hang = false),
        )
        .delays(1.5, 0.0),
        engine("engine's queue paused", "engine_queue", Action::Pause(true), Action::Pause(false)),
        engine("cancel not confirmed", "slots", Action::CancelIgnored, Action::CancelObeyed)
            .delays(60.0, 0.0),
        Fault::gates("sidecar stopped, then started", "draining", Action::Stop)
            .repaired_by(Action::Start)
            .goal(Goal::Other),
    ]
}
