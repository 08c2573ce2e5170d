//! The rules, case by case.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    engine::Survey,
    gpu::{GpuProcess, Memory},
    models::{Base, EngineModel},
};

const MIB: u64 = 1 << 20;

fn rules() -> Rules {
    Rules {
        gpu_required: true,
        min_free_vram: 8 << 30,
        engine_unit: "invokeai.service".into(),
        engine: "invokeai",
        engine_url: Some("http://127.0.0.1:9090/".into()),
        default_model: None,
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
    };
    EngineState { survey: Some(survey), fault: None, seen: Some(Instant::now()) }
}

fn sample(state: GpuState) -> GpuSample {
    GpuSample { taken: Instant::now(), wall: SystemTime::UNIX_EPOCH, state }
}

fn present(processes: Vec<GpuProcess>) -> GpuState {
    let used: u64 = processes.iter().filter_map(|process| process.used).sum();
    let memory = Memory { total: 46_068 * MIB, reserved: 609 * MIB, used, free: (46_068 - 609) * MIB - used };
    GpuState::Present(Box::new(GpuReading {
        report: GpuReport { name: "RTX 6000 Ada".into(), uuid: "GPU-1".into(), ..GpuReport::default() },
        memory,
        processes: Some(processes),
        engine_unit_active: true,
    }))
}

fn process(pid: u32, unit: &str, mib: u64) -> GpuProcess {
    GpuProcess { pid, name: "python3".into(), unit: Some(unit.into()), used: Some(mib * MIB) }
}

fn judged(gpu: Option<&GpuSample>, engine: &EngineState, rules: &Rules) -> ReadyReport {
    let inputs = Inputs {
        gpu,
        started: Instant::now(),
        engine,
        limit: 4,
        inflight: 0,
        oldest_cancel: None,
        draining: false,
    };
    judge(None, &inputs, rules, Instant::now(), SystemTime::now()).report
}

fn check<'a>(report: &'a ReadyReport, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.name == name).unwrap()
}

#[test]
fn all_well_is_ready() {
    let report = judged(Some(&sample(present(vec![]))), &engine(), &rules());
    assert_eq!((report.status, report.line()), (Status::Ready, "ready".to_owned()));
}

#[test]
fn each_state_of_the_card_is_said_in_its_own_words() {
    let optional = Rules { gpu_required: false, ..rules() };
    for (state, name, says, gates_when_optional) in [
        (GpuState::NoLibrary("no file".into()), "nvml", "libnvidia-ml cannot be loaded (no file)", false),
        (GpuState::DriverNotLoaded, "nvml", "modprobe nvidia", false),
        (GpuState::NoPermission, "nvml", "/dev/nvidiactl", true),
        (GpuState::VersionMismatch, "nvml", "reboot", true),
        (GpuState::Failed("Unknown Error".into()), "nvml", "Unknown Error", true),
        (GpuState::Lost, "gpu_present", "GPU is lost", true),
        (GpuState::NoDevice { wanted: "0".into(), found: vec![] }, "gpu_present", "knows no GPU", false),
        (
            GpuState::NoDevice { wanted: "GPU-2".into(), found: vec!["GPU-1".into()] },
            "gpu_present",
            "only GPU-1",
            true,
        ),
    ] {
        let sample = sample(state);
        let report = judged(Some(&sample), &engine(), &rules());
        assert_eq!(report.status, Status::NotReady, "{sample:?}");
        assert!(check(&report, name).message.contains(says), "{:?}", check(&report, name));
        let lenient = judged(Some(&sample), &engine(), &optional);
        assert_eq!(lenient.status == Status::NotReady, gates_when_optional, "optional: {sample:?}");
    }
}

#[test]
fn a_sample_that_grows_old_is_a_hanging_driver() {
    let old = GpuSample { taken: Instant::now(), ..sample(present(vec![])) };
    let engine = engine();
    let inputs = Inputs {
        gpu: Some(&old),
        started: Instant::now(),
        engine: &engine,
        limit: 4,
        inflight: 0,
        oldest_cancel: None,
        draining: false,
    };
    let at =
        |seconds| judge(None, &inputs, &rules(), old.taken + Duration::from_secs(seconds), SystemTime::now());
    assert_eq!(at(5).report.status, Status::Ready);
    let late = at(6).report;
    assert!(check(&late, "snapshot_fresh").message.contains("hangs"));
    assert_eq!(late.status, Status::NotReady);
}

#[test]
fn a_driver_that_hangs_from_the_first_call_on_gates_even_where_a_gpu_is_optional() {
    let (engine, start) = (engine(), Instant::now());
    let inputs = Inputs {
        gpu: None,
        started: start,
        engine: &engine,
        limit: 4,
        inflight: 0,
        oldest_cancel: None,
        draining: false,
    };
    let optional = Rules { gpu_required: false, ..rules() };
    let at =
        |seconds| judge(None, &inputs, &optional, start + Duration::from_secs(seconds), SystemTime::now());
    assert_eq!(at(5).report.status, Status::Ready);
    assert_eq!(at(6).report.status, Status::NotReady);
}

#[test]
fn what_the_engine_caches_is_its_own_and_what_others_hold_is_named() {
    let own = sample(present(vec![process(1, "invokeai.service", 40_000)]));
    assert_eq!(judged(Some(&own), &engine(), &rules()).status, Status::Ready);
    let foreign = sample(present(vec![process(7, "ollama.service", 40_000)]));
    let report = judged(Some(&foreign), &engine(), &rules());
    let message = &check(&report, "vram_headroom").message;
    assert_eq!(report.status, Status::NotReady);
    assert!(message.contains("pid 7 \"python3\" (ollama.service) 40000 MiB"), "{message}");
    let off = Rules { min_free_vram: 0, ..rules() };
    assert_eq!(judged(Some(&foreign), &engine(), &off).status, Status::Ready);
}

#[test]
fn a_share_that_cannot_be_told_is_unknown_and_gates_nothing() {
    let GpuState::Present(mut reading) = present(vec![process(7, "session-1.scope", 40_000)]) else { return };
    reading.engine_unit_active = false;
    let report = judged(Some(&sample(GpuState::Present(reading))), &engine(), &rules());
    assert_eq!(check(&report, "vram_headroom").status, CheckStatus::Unknown);
    assert_eq!(report.status, Status::Ready);
}

#[test]
fn the_engines_faults_gate_in_their_own_words() {
    let with = |fault| EngineState { fault: Some(fault), ..engine() };
    let mut paused = engine();
    paused.survey.as_mut().unwrap().paused = true;
    let mut bare = engine();
    bare.survey.as_mut().unwrap().models = Arc::new([]);
    for (state, name, says) in [
        (
            with(EngineError::Refused("connection refused".into())),
            "engine_reachable",
            "systemctl start invokeai.service",
        ),
        (with(EngineError::NoAnswer("no answer in time".into())), "engine_reachable", "does not answer"),
        (with(EngineError::Strange("not InvokeAI".into())), "engine_reachable", "not InvokeAI"),
        (EngineState::default(), "engine_reachable", "not answered yet"),
        (paused, "engine_queue", "paused"),
        (bare, "engine_model", "install one"),
    ] {
        let report = judged(Some(&sample(present(vec![]))), &state, &rules());
        assert_eq!(report.status, Status::NotReady, "{name}");
        assert!(check(&report, name).message.contains(says), "{:?}", check(&report, name));
    }
    let missing = Rules { default_model: Some("gone".into()), ..rules() };
    let report = judged(Some(&sample(present(vec![]))), &engine(), &missing);
    assert!(check(&report, "engine_model").message.contains("\"gone\" does not exist"));
}

#[test]
fn an_untested_version_degrades_and_a_busy_sidecar_is_ready() {
    let mut newer = engine();
    newer.survey.as_mut().unwrap().caution = Some("untested".into());
    assert_eq!(judged(Some(&sample(present(vec![]))), &newer, &rules()).status, Status::Degraded);
    let (gpu, engine) = (sample(present(vec![])), engine());
    let busy = Inputs {
        gpu: Some(&gpu),
        started: Instant::now(),
        engine: &engine,
        limit: 4,
        inflight: 4,
        oldest_cancel: None,
        draining: false,
    };
    let at = |cancel| {
        let inputs = Inputs { oldest_cancel: cancel, ..Inputs { gpu: Some(&gpu), engine: &engine, ..busy } };
        judge(None, &inputs, &rules(), Instant::now(), SystemTime::now()).report.status
    };
    assert_eq!(at(None), Status::Ready);
    assert_eq!(at(Some(Duration::from_secs(59))), Status::Ready);
    assert_eq!(at(Some(Duration::from_mins(1))), Status::NotReady, "the one case in which slots gate");
}

proptest! {
    #[test]
    fn a_lost_gpu_or_a_draining_service_is_never_ready(inflight in 0usize..5, required: bool, draining: bool) {
        let (lost, engine) = (sample(GpuState::Lost), engine());
        let inputs = Inputs { gpu: Some(&lost), started: Instant::now(), engine: &engine, limit: 4, inflight, oldest_cancel: None, draining };
        let rules = Rules { gpu_required: required, ..rules() };
        let verdict = judge(None, &inputs, &rules, Instant::now(), SystemTime::now());
        prop_assert!(!verdict.report.admits());
        let well = sample(present(vec![]));
        let inputs = Inputs { gpu: Some(&well), draining: true, ..inputs };
        prop_assert!(!judge(Some(&verdict), &inputs, &rules, Instant::now(), SystemTime::now()).report.admits());
    }
}
