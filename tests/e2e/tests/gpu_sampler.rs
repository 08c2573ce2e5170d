//! The thread that looks at the card, against a fake library: what it reads, and how it survives every fault.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ada2_sidecar::gpu::{self, GpuReading, GpuSample, GpuSamplerConfig, GpuState, KernelPaths};
use fakes::gpu::{CardMemory, FakeCard, Process};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

const INTERVAL: Duration = Duration::from_millis(20);
/// Linux assigns no such number.
pub(crate) const NO_SUCH_PID: u32 = 4_194_305;
pub(crate) const MIB: u64 = 1 << 20;

#[tokio::test]
async fn memory_and_its_processes_are_read_together() {
    let card = FakeCard::new();
    let mut samples = Samples::of(&card, "0");
    samples.reading(|_| true).await;
    card.set(|scenario| {
        scenario.gpus[0].memory.used = 5000;
        scenario.gpus[0].processes =
            vec![Process { pid: NO_SUCH_PID, used_mib: Some(5000), graphics: false }];
    });
    let both_seen = |reading: &GpuReading| {
        let used = reading.memory.unwrap().used;
        let holders = reading.processes.as_ref().map(Vec::len);
        assert_eq!(holders, Some(usize::from(used > 0)), "one without the other");
        let effective = (used == 0).then_some(45_459);
        assert_eq!(reading.report.memory_effective_free, effective, "which follows from these two");
        used == 5000 * MIB
    };
    samples.reading(both_seen).await;
    let (frequent, rare) =
        (card.calls("nvmlDeviceGetTemperature"), card.calls("nvmlDeviceGetGraphicsRunningProcesses_v3"));
    assert!(frequent > 3 * rare, "processes are read as often as the rest: {rare} of {frequent}");
}

#[tokio::test]
async fn a_lost_card_comes_back_by_itself() {
    let card = FakeCard::new();
    let mut samples = Samples::of(&card, "0");
    samples.reading(|_| true).await;
    card.set(|scenario| scenario.gpus[0].lost = true);
    samples.state(|state| matches!(state, GpuState::Lost)).await;
    card.set(|scenario| {
        scenario.gpus[0].lost = false;
        scenario.driver_version = "600.1".into();
    });
    let reading = samples.reading(|_| true).await;
    assert_eq!(reading.report.driver_version.as_deref(), Some("600.1"), "a reloaded driver is read again");
    assert!(card.calls("nvmlShutdown") >= 1, "a lost card's driver is unloaded");
}

#[tokio::test]
async fn a_loss_seen_only_by_an_optional_reading_is_a_loss() {
    let card = FakeCard::new();
    card.set(|scenario| scenario.gpus[0].fail("nvmlDeviceGetPowerUsage", 16));
    Samples::of(&card, "0").state(|state| matches!(state, GpuState::Lost)).await;
}

#[tokio::test]
async fn a_passing_error_keeps_the_library() {
    let card = FakeCard::new();
    let mut samples = Samples::of(&card, "0");
    samples.reading(|_| true).await;
    card.set(|scenario| scenario.gpus[0].fail("nvmlDeviceGetMemoryInfo_v2", 29));
    let text = "reading the memory: NVML error 29";
    samples.state(|state| matches!(state, GpuState::Failed(message) if message == text)).await;
    card.set(|scenario| scenario.gpus[0].errors.clear());
    samples.reading(|_| true).await;
    assert_eq!(card.calls("nvmlInit_v2"), 1);
}

#[tokio::test]
async fn initialisation_says_why_it_fails() {
    let card = FakeCard::new();
    card.set(|scenario| scenario.init_error = 9);
    let mut samples = Samples::of(&card, "0");
    samples.state(|state| matches!(state, GpuState::DriverNotLoaded)).await;
    card.set(|scenario| scenario.init_error = 18);
    samples.state(|state| matches!(state, GpuState::VersionMismatch)).await;
    card.set(|scenario| scenario.init_error = 0);
    samples.reading(|_| true).await;

    let card = FakeCard::new();
    card.set(|scenario| scenario.init_error = 4);
    Samples::of(&card, "0").state(|state| matches!(state, GpuState::NoPermission)).await;
}

#[tokio::test]
async fn a_missing_or_wrong_library_is_reported() {
    let mut missing = Samples::with(sampling(Some("/does/not/exist/libnvidia-ml.so.1".into()), "0"));
    let text = |state: &GpuState| matches!(state, GpuState::LibraryUnavailable(text) if text.contains("No such file"));
    missing.state(text).await;

    let mut other = Samples::with(sampling(Some("libc.so.6".into()), "0"));
    let text = |state: &GpuState| matches!(state, GpuState::Failed(text) if text.contains("nvmlInit_v2"));
    other.state(text).await;
}

#[tokio::test]
async fn a_card_is_found_by_uuid_or_the_others_are_named() {
    let card = FakeCard::new();
    card.set(|scenario| {
        let mut second = scenario.gpus[0].clone();
        second.index = 1;
        second.uuid = "GPU-2".into();
        second.memory = CardMemory { total: 8192, reserved: 200, used: 0 };
        scenario.gpus.push(second);
    });
    let reading = Samples::of(&card, "GPU-2").reading(|_| true).await;
    assert_eq!((reading.report.index, reading.report.memory_total), (1, Some(8192)));

    let there = [
        "0 = GPU-6adaf00d-1234-5678-9abc-def012345678 (NVIDIA RTX 6000 Ada Generation)",
        "1 = GPU-2 (NVIDIA RTX 6000 Ada Generation)",
    ];
    for absent in ["GPU-3", "7"] {
        let is_reported = |state: &GpuState| matches!(state, GpuState::NoDevice { requested, found } if requested == absent && found == &there);
        Samples::of(&card, absent).state(is_reported).await;
    }
}

#[tokio::test]
async fn a_hanging_driver_only_makes_samples_stale() {
    let card = FakeCard::new();
    let mut samples = Samples::of(&card, "0");
    samples.reading(|_| true).await;
    card.set(|scenario| scenario.hang = vec!["nvmlDeviceGetTemperature".into()]);
    // At most one reading was in progress when the driver began to hang.
    while timeout(20 * INTERVAL, samples.0.changed()).await.is_ok() {}
    let last = samples.0.borrow_and_update().clone().expect("there was a sample");
    sleep(10 * INTERVAL).await;
    assert!(last.taken.elapsed() >= 10 * INTERVAL);
    assert!(matches!(last.state, GpuState::Present(_)), "nothing new is claimed");
}

#[tokio::test]
async fn the_thread_ends_when_nobody_listens() {
    let card = FakeCard::new();
    let mut samples = Samples::of(&card, "0");
    samples.reading(|_| true).await;
    drop(samples);
    let shut_down = async {
        while card.calls("nvmlShutdown") == 0 {
            sleep(INTERVAL).await;
        }
    };
    timeout(Duration::from_secs(10), shut_down).await.expect("the library is unloaded");
}

/// The samples of one sampler.
pub(crate) struct Samples(watch::Receiver<Option<Arc<GpuSample>>>);

impl Samples {
    pub(crate) fn of(card: &FakeCard, gpu_id: &str) -> Self {
        Self::with(sampling(Some(card.library()), gpu_id))
    }

    pub(crate) fn with(sampling: GpuSamplerConfig) -> Self {
        Self(gpu::start(sampling).expect("a thread can be started"))
    }

    /// The first sample of such a state.
    async fn state(&mut self, condition: impl Fn(&GpuState) -> bool) -> Arc<GpuSample> {
        let comes = self.0.wait_for(|sample| sample.as_ref().is_some_and(|sample| condition(&sample.state)));
        let found = timeout(Duration::from_secs(15), comes)
            .await
            .ok()
            .map(|sample| sample.expect("the sampler lives").clone().expect("only a sample is waited for"));
        assert!(found.is_some(), "it never came; the last was {:?}", self.0.borrow());
        found.expect("just seen")
    }

    pub(crate) async fn reading(&mut self, condition: impl Fn(&GpuReading) -> bool) -> GpuReading {
        let matches = |state: &GpuState| matches!(state, GpuState::Present(reading) if condition(reading));
        let sample = self.state(matches).await;
        let GpuState::Present(reading) = &sample.state else { unreachable!("a reading was waited for") };
        GpuReading::clone(reading)
    }
}

pub(crate) fn sampling(library: Option<PathBuf>, gpu_id: &str) -> GpuSamplerConfig {
    GpuSamplerConfig {
        library,
        gpu_id: gpu_id.to_owned(),
        interval: INTERVAL,
        engine_unit: "no-such.service".to_owned(),
        kernel: KernelPaths::default(),
    }
}
