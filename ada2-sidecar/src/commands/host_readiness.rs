//! GPU and host, read directly where no sidecar runs.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use sysinfo::System;
use wire::health::ReadyReport;

use super::client::{block_on, service_address};
use crate::{
    config::Config,
    engine::monitor::EngineState,
    gpu::{self, GpuSample},
    host,
    job_history::JobHistorySnapshot,
    readiness::{
        WarmUp,
        latch::{
            Latch,
            store::{LatchStore, boot_id},
        },
        rules::{EvaluationInputs, EvaluationState, evaluate, is_host_check, status_of},
    },
    reload::readiness_rules,
    smi::GpuView,
};

/// For the driver, which may hang.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(5);

/// This process's own readings, evaluated by the service's rules.
pub(super) struct HostReadiness {
    sample: Option<Arc<GpuSample>>,
    pub(super) report: ReadyReport,
    /// Says where the text that follows comes from.
    pub(super) preamble: String,
}

/// The first sample; none if the driver does not answer in time.
pub(super) fn first_sample(sampling: gpu::GpuSamplerConfig) -> io::Result<Option<Arc<GpuSample>>> {
    let mut samples = gpu::start(sampling)?;
    block_on(async {
        let first = tokio::time::timeout(DRIVER_TIMEOUT, samples.wait_for(Option::is_some)).await;
        first.ok().and_then(Result::ok).and_then(|sample| sample.clone())
    })
}

impl HostReadiness {
    pub(super) fn read(config: &Config) -> io::Result<Self> {
        let started = Instant::now();
        let readiness = Self::from_sample(config, first_sample(config.gpu_sampler_config())?, started);
        let address = service_address(config).map(|address| format!(" at {address}")).unwrap_or_default();
        let preamble = format!(
            "no sidecar runs{address}: GPU and host were read directly, the engine was not checked\n"
        );
        Ok(Self { preamble, ..readiness })
    }

    /// With a sample that was requested at `started`.
    pub(super) fn from_sample(config: &Config, sample: Option<Arc<GpuSample>>, started: Instant) -> Self {
        let host =
            System::new().ok().map(|mut system| host::sample(&mut system, &config.host_sampler_config()));
        let inputs = EvaluationInputs {
            gpu: sample.as_deref(),
            host: host.as_ref(),
            started_at: started,
            engine: &EngineState::default(),
            graphs: &[],
            job_history: &JobHistorySnapshot::default(),
            warm_up: &WarmUp::Off,
            slot_limit: config.max_inflight,
            inflight: 0,
            oldest_cancel_age: None,
            draining: false,
        };
        let state = EvaluationState::new(stored_latch(config));
        let now = Instant::now();
        let mut report =
            evaluate(None, state, &inputs, &readiness_rules(config), now, SystemTime::now()).report;
        report.checks.retain(is_host_check);
        report.status = status_of(&report.checks);
        Self { sample, report, preamble: String::new() }
    }

    pub(super) fn view(&self) -> GpuView<'_> {
        GpuView { sample: self.sample.as_deref(), report: &self.report, now: Instant::now() }
    }
}

/// What an earlier sidecar latched on this host.
fn stored_latch(config: &Config) -> Latch {
    let stored = config.state_dirs.iter().find_map(|dir| LatchStore::open(dir).load().ok().flatten());
    stored.unwrap_or_default().for_boot(&boot_id())
}
