//! The rules, case by case. A [`World`] is what is seen at one moment; time passes by hand.

mod card;
mod engine;
mod host;
mod looks;
mod properties;
mod vram;
mod works;
mod xid;

use wire::health::GpuReport;

use super::*;
use crate::{
    engine::{EngineError, Survey},
    gpu::{GpuProcess, Memory as Vram, Vitals, Work, Xid, XidLog},
    host::Disk,
    images::models::{Base, EngineModel},
};

const MIB: u64 = 1 << 20;
const UUID: &str = "GPU-1";

/// What is seen, the thresholds, and what was concluded so far.
#[derive(Clone)]
struct World {
    rules: Rules,
    start: Instant,
    now: Instant,
    gpu: Option<GpuSample>,
    host: Option<HostSample>,
    engine: EngineState,
    graphs: Vec<String>,
    outcomes: Seen,
    warm_up: WarmUp,
    inflight: usize,
    oldest_cancel: Option<Duration>,
    draining: bool,
    memory: Memory,
    report: Option<ReadyReport>,
}

impl World {
    /// A healthy idle card, an engine, a host with room.
    fn healthy() -> Self {
        let now = Instant::now();
        let mut world = Self {
            rules: rules(),
            start: now,
            now,
            gpu: None,
            host: Some(host(now)),
            engine: engine(),
            graphs: Vec::new(),
            outcomes: Seen::default(),
            warm_up: WarmUp::Off,
            inflight: 0,
            oldest_cancel: None,
            draining: false,
            memory: Memory::starting(Latch::new("boot")),
            report: None,
        };
        world.state(present(vec![]));
        world
    }

    /// The card is looked at now, and this is what is seen.
    fn state(&mut self, state: GpuState) {
        let before = self.gpu.take();
        let (good, loads, xids) = before
            .map_or((PROVEN, 0, Arc::default()), |before| (before.good, before.driver_loads, before.xids));
        self.gpu = Some(GpuSample {
            taken: self.now,
            wall: SystemTime::UNIX_EPOCH,
            good: if matches!(state, GpuState::Present(_)) { good + 1 } else { 0 },
            failed: 0,
            driver_loads: loads,
            xids,
            state,
        });
    }

    /// The reading changes, and the card is looked at now.
    fn reading(&mut self, change: impl FnOnce(&mut GpuReading)) {
        let before = self.gpu.as_ref().map(|sample| sample.state.clone());
        let Some(GpuState::Present(mut reading)) = before else { panic!("there is no reading to change") };
        change(&mut reading);
        self.state(GpuState::Present(reading));
    }

    fn vitals(&mut self, change: impl FnOnce(&mut Vitals)) {
        self.reading(|reading| change(&mut reading.vitals));
    }

    fn xid(&mut self, code: u32) {
        let sample = self.gpu.as_mut().unwrap();
        let mut log = XidLog::clone(&sample.xids);
        let sequence = log.recent.last().map_or(1, |last| last.sequence + 1);
        log.recent.push(Xid { sequence, code, at: self.now, wall: SystemTime::UNIX_EPOCH });
        sample.xids = Arc::new(log);
    }

    /// Judges now; the host is looked at afresh.
    fn judge(&mut self) -> &ReadyReport {
        if let Some(host) = &mut self.host {
            host.taken = self.now;
        }
        let inputs = Inputs {
            gpu: self.gpu.as_ref(),
            host: self.host.as_ref(),
            started: self.start,
            engine: &self.engine,
            graphs: &self.graphs,
            outcomes: &self.outcomes,
            warm_up: &self.warm_up,
            limit: 4,
            inflight: self.inflight,
            oldest_cancel: self.oldest_cancel,
            draining: self.draining,
        };
        let memory = std::mem::take(&mut self.memory);
        let verdict =
            judge(self.report.as_ref(), memory, &inputs, &self.rules, self.now, SystemTime::UNIX_EPOCH);
        self.memory = verdict.memory;
        self.report.insert(verdict.report)
    }

    /// Judges twice a second for this long, the card being looked at each time and staying as it is, and pictures
    /// succeeding all the while.
    fn pass(&mut self, seconds: f64) -> Status {
        let until = self.now + Duration::from_secs_f64(seconds);
        while self.now < until {
            self.now = until.min(self.now + Duration::from_millis(500));
            if let Some(state) = self.gpu.as_ref().map(|sample| sample.state.clone()) {
                self.state(state);
            }
            self.outcomes.succeeded = Some(self.now);
            self.judge();
        }
        self.status()
    }

    fn status(&self) -> Status {
        self.report.as_ref().unwrap().status
    }

    /// The result of a check at the last verdict.
    fn check(&self, name: &str) -> &Check {
        self.report.as_ref().unwrap().checks.iter().find(|check| check.name == name).unwrap()
    }

    /// Judges now and expects this of a check: its result, and words in its message.
    #[track_caller]
    fn expect(&mut self, name: &str, status: CheckStatus, says: &str) {
        self.judge();
        let check = self.check(name);
        assert_eq!(check.status, status, "{check:?}");
        assert!(check.message.contains(says), "{check:?}");
    }
}

/// Good looks of a card that has long been well.
const PROVEN: u32 = 10;

fn rules() -> Rules {
    Rules {
        gpu_required: true,
        min_free_vram: 8 << 30,
        engine_unit: "invokeai.service".into(),
        engine: "invokeai",
        engine_url: Some("http://127.0.0.1:9090/".into()),
        default_model: None,
        presets: Vec::new(),
        models: Vec::new(),
        warn_only: Vec::new(),
        card: CardRules {
            ecc_mode: None,
            old_ecc_errors_gate: false,
            remap_pending_gates: false,
            remap_failure_gates: true,
        },
        host: HostRules {
            min_free_disk: 1 << 30,
            min_free_memory: 1 << 30,
            max_swap_used: 90,
            max_engine_memory: 0,
        },
    }
}

fn engine() -> EngineState {
    let survey = Survey {
        version: "6.14.2".into(),
        caution: None,
        paused: false,
        busy: false,
        queue_depth: 0,
        others_waiting: 0,
        models: Arc::new([EngineModel::plain("k", "tiny", Base::Sd1)]),
        unread: 0,
    };
    EngineState::default().next(Ok(survey), Instant::now())
}

fn host(taken: Instant) -> HostSample {
    HostSample {
        taken,
        memory_total: 64 << 30,
        memory_available: 32 << 30,
        swap_total: 8 << 30,
        swap_used: 0,
        disk: Disk::Seen { mount: "/data".into(), total: 1 << 40, available: 1 << 39 },
        engine: None,
    }
}

fn present(processes: Vec<GpuProcess>) -> GpuState {
    let used: u64 = processes.iter().filter_map(|process| process.used).sum();
    let memory = Vram { total: 46_068 * MIB, reserved: 609 * MIB, used, free: (46_068 - 609) * MIB - used };
    let vitals = Vitals {
        slowdown: Some(1),
        ecc_uncorrected: Some(0),
        ecc_mode: Some((true, true)),
        remapped_uncorrectable: Some(0),
        remap_pending: Some(false),
        remap_failure: Some(false),
        recovery_action: Some(0),
        pcie_width: Some((16, 16)),
        reports_xids: true,
        replaced_driver: None,
    };
    GpuState::Present(Box::new(GpuReading {
        report: GpuReport { name: "RTX 6000 Ada".into(), uuid: UUID.into(), ..GpuReport::default() },
        vitals,
        memory: Some(memory),
        processes: Some(processes),
        processes_taken: Instant::now(),
        engine_unit_active: true,
        elsewhere: Vec::new(),
    }))
}

fn process(pid: u32, unit: &str, mib: u64) -> GpuProcess {
    GpuProcess {
        pid,
        name: "python3".into(),
        unit: Some(unit.into()),
        work: Work::Compute,
        used: Some(mib * MIB),
    }
}

#[test]
fn all_well_is_ready() {
    let mut world = World::healthy();
    assert_eq!(world.judge().line(), "ready");
    let names: Vec<_> = world.report.unwrap().checks.into_iter().map(|check| check.name).collect();
    assert_eq!(
        names,
        [
            "nvml",
            "driver",
            "snapshot_fresh",
            "gpu_present",
            "recovery_action",
            "xid",
            "ecc",
            "row_remap",
            "thermal",
            "power_brake",
            "pcie_width",
            "vram_headroom",
            "engine_reachable",
            "engine_process",
            "engine_queue",
            "engine_model",
            "engine_works",
            "slots",
            "disk",
            "host_memory",
            "draining"
        ]
    );
    assert_eq!(names, crate::config::checks::CHECKS);
}

#[test]
fn a_check_that_warn_only_names_warns_where_it_would_gate_and_says_so() {
    let mut world = World::healthy();
    world.vitals(|vitals| vitals.remap_failure = Some(true));
    world.expect("row_remap", CheckStatus::Fail, "replace the card");
    world.rules.warn_only = vec!["row_remap", "slots"];
    world.expect("row_remap", CheckStatus::Warn, "replace the card");
    world.expect("row_remap", CheckStatus::Warn, "because warn_only names row_remap");
    let words = &world.check("row_remap").message;
    assert_eq!(words.matches("warn_only").count(), 1, "{words}");
    assert_eq!(world.status(), Status::Degraded);
    world.vitals(|vitals| vitals.recovery_action = Some(2));
    assert_eq!(world.judge().status, Status::NotReady, "it names no other");
    world.vitals(|vitals| (vitals.recovery_action, vitals.remap_failure) = (Some(0), Some(false)));
    assert_eq!(world.judge().status, Status::Ready);
    world.expect("row_remap", CheckStatus::Pass, "");
}
