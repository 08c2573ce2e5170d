//! The rules, case by case. A [`World`] is the state at one moment; the tests advance its clock.

mod card;
mod engine;
mod host;
mod latch_model;
mod properties;
mod readings;
mod vram;
mod works;
mod xid;

use wire::health::GpuReport;

use super::*;
use crate::{
    engine::{EngineError, EngineStatus},
    gpu::{GpuMemory as Vram, GpuProcess, GpuProcessType, HealthReading, Xid, XidLog},
    host::OutputDisk,
    images::models::{EngineModel, SD_1},
};

const MIB: u64 = 1 << 20;
const UUID: &str = "GPU-1";

/// The inputs, the thresholds, and the state of the evaluation.
#[derive(Clone)]
struct World {
    rules: Rules,
    start: Instant,
    now: Instant,
    gpu: Option<GpuSample>,
    host: Option<HostSample>,
    engine: EngineState,
    graphs: Vec<String>,
    outcomes: JobHistorySnapshot,
    warm_up: WarmUp,
    inflight: usize,
    oldest_cancel: Option<Duration>,
    draining: bool,
    memory: EvaluationState,
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
            outcomes: JobHistorySnapshot::default(),
            warm_up: WarmUp::Off,
            inflight: 0,
            oldest_cancel: None,
            draining: false,
            memory: EvaluationState::new(Latch::new("boot")),
            report: None,
        };
        world.state(present(vec![]));
        world
    }

    /// A new sample of the card in this state.
    fn state(&mut self, state: GpuState) {
        let before = self.gpu.take();
        let (good, loads, xids) = before.map_or((PROVEN, 0, Arc::default()), |before| {
            (before.consecutive_good, before.driver_loads, before.xids)
        });
        self.gpu = Some(GpuSample {
            taken: self.now,
            timestamp: SystemTime::UNIX_EPOCH,
            consecutive_good: if matches!(state, GpuState::Present(_)) { good + 1 } else { 0 },
            failed_total: 0,
            driver_loads: loads,
            xids,
            state,
        });
    }

    /// A new sample with a changed reading.
    fn reading(&mut self, change: impl FnOnce(&mut GpuReading)) {
        let before = self.gpu.as_ref().map(|sample| sample.state.clone());
        let Some(GpuState::Present(mut reading)) = before else { panic!("there is no reading to change") };
        change(&mut reading);
        self.state(GpuState::Present(reading));
    }

    fn change_health(&mut self, change: impl FnOnce(&mut HealthReading)) {
        self.reading(|reading| change(&mut reading.health));
    }

    fn xid(&mut self, code: u32) {
        let sample = self.gpu.as_mut().unwrap();
        let mut log = XidLog::clone(&sample.xids);
        let sequence = log.recent.last().map_or(1, |last| last.sequence + 1);
        log.recent.push(Xid { sequence, code, at: self.now, timestamp: SystemTime::UNIX_EPOCH });
        sample.xids = Arc::new(log);
    }

    /// The service begins anew, in this boot, with the latch that the last one saved.
    fn restart(&mut self, boot: &str) {
        let saved = serde_json::to_string(&self.memory.latch).unwrap();
        let latch: Latch = serde_json::from_str(&saved).unwrap();
        self.memory = EvaluationState::new(latch.for_boot(boot));
        (self.engine, self.report) = (engine(), None);
        let sample = self.gpu.as_mut().unwrap();
        (sample.xids, sample.driver_loads) = (Arc::default(), 0);
    }

    /// Evaluates now, with a fresh sample of the host.
    fn evaluate(&mut self) -> &ReadyReport {
        if let Some(host) = &mut self.host {
            host.taken = self.now;
        }
        let inputs = EvaluationInputs {
            gpu: self.gpu.as_ref(),
            host: self.host.as_ref(),
            started_at: self.start,
            engine: &self.engine,
            graphs: &self.graphs,
            job_history: &self.outcomes,
            warm_up: &self.warm_up,
            slot_limit: 4,
            inflight: self.inflight,
            oldest_cancel_age: self.oldest_cancel,
            draining: self.draining,
        };
        let memory = std::mem::take(&mut self.memory);
        let verdict =
            evaluate(self.report.as_ref(), memory, &inputs, &self.rules, self.now, SystemTime::UNIX_EPOCH);
        self.memory = verdict.state;
        self.report.insert(verdict.report)
    }

    /// Evaluates twice a second for this long, each time with a fresh, unchanged sample of the card and a successful
    /// image.
    fn pass(&mut self, seconds: f64) -> ReadyStatus {
        let until = self.now + Duration::from_secs_f64(seconds);
        while self.now < until {
            self.now = until.min(self.now + Duration::from_millis(500));
            if let Some(state) = self.gpu.as_ref().map(|sample| sample.state.clone()) {
                self.state(state);
            }
            self.outcomes.last_success = Some(self.now);
            self.evaluate();
        }
        self.status()
    }

    fn status(&self) -> ReadyStatus {
        self.report.as_ref().unwrap().status
    }

    /// A check of the last verdict.
    fn check(&self, name: &str) -> &Check {
        self.report.as_ref().unwrap().checks.iter().find(|check| check.name == name).unwrap()
    }

    /// Evaluates now, and expects this status of a check and this text in its message.
    #[track_caller]
    fn expect(&mut self, name: &str, status: CheckStatus, message: &str) {
        self.evaluate();
        let check = self.check(name);
        assert_eq!(check.status, status, "{check:?}");
        assert!(check.message.contains(message), "{check:?}");
    }
}

/// Consecutive good samples of a card that has long been healthy.
const PROVEN: u32 = 10;

fn rules() -> Rules {
    Rules {
        gpu_required: true,
        min_free_vram: 8 << 30,
        engine_unit: "invokeai.service".into(),
        engine: "invokeai",
        model_location: Some("in its model manager"),
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
    let status = EngineStatus {
        loras: Arc::default(),
        version: "6.14.2".into(),
        warning: None,
        paused: false,
        busy: false,
        queue_depth: 0,
        others_waiting: 0,
        models: Arc::new([EngineModel::in_process("k", "tiny", &SD_1)]),
        unclassified_models: 0,
    };
    EngineState::default().apply(Ok(status), false, Instant::now())
}

fn host(taken: Instant) -> HostSample {
    HostSample {
        taken,
        memory_total: 64 << 30,
        memory_available: 32 << 30,
        swap_total: 8 << 30,
        swap_used: 0,
        disk: OutputDisk::Found { mount: "/data".into(), total: 1 << 40, available: 1 << 39 },
        engine: None,
    }
}

fn present(processes: Vec<GpuProcess>) -> GpuState {
    let used: u64 = processes.iter().filter_map(|process| process.used).sum();
    let memory = Vram { total: 46_068 * MIB, reserved: 609 * MIB, used, free: (46_068 - 609) * MIB - used };
    let health = HealthReading {
        clock_event_reasons: Some(1),
        ecc_uncorrected: Some(0),
        ecc_mode: Some((true, true)),
        remapped_uncorrectable: Some(0),
        remap_pending: Some(false),
        remap_failure: Some(false),
        recovery_action: Some(0),
        pcie_width: Some((16, 16)),
        receives_xids: true,
        driver_on_disk: None,
    };
    GpuState::Present(Box::new(GpuReading {
        report: GpuReport { name: "RTX 6000 Ada".into(), uuid: UUID.into(), ..GpuReport::default() },
        health,
        memory: Some(memory),
        processes: Some(processes),
        processes_taken_at: Instant::now(),
        engine_unit_active: true,
        other_gpus: Vec::new(),
    }))
}

fn process(pid: u32, unit: &str, mib: u64) -> GpuProcess {
    GpuProcess {
        pid,
        name: "python3".into(),
        unit: Some(unit.into()),
        process_type: GpuProcessType::Compute,
        used: Some(mib * MIB),
    }
}

#[test]
fn a_healthy_host_is_ready() {
    let mut world = World::healthy();
    assert_eq!(world.evaluate().summary(), "ready");
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
    world.change_health(|health| health.remap_failure = Some(true));
    world.expect("row_remap", CheckStatus::Fail, "replace the card");
    world.rules.warn_only = vec!["row_remap", "slots"];
    world.expect("row_remap", CheckStatus::Warn, "replace the card");
    world.expect("row_remap", CheckStatus::Warn, "because warn_only names row_remap");
    let message = &world.check("row_remap").message;
    assert_eq!(message.matches("warn_only").count(), 1, "{message}");
    assert_eq!(world.status(), ReadyStatus::Degraded);
    world.change_health(|health| health.recovery_action = Some(2));
    assert_eq!(world.evaluate().status, ReadyStatus::NotReady, "it names no other");
    world.change_health(|health| (health.recovery_action, health.remap_failure) = (Some(0), Some(false)));
    assert_eq!(world.evaluate().status, ReadyStatus::Ready);
    world.expect("row_remap", CheckStatus::Pass, "");
}
