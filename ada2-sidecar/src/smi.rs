//! The card as `nvidia-smi` tells it: a table, JSON, and its `--query-gpu` CSV. Made from a published sample; the driver
//! is never asked here.

mod csv;
pub(crate) mod fields;
pub(crate) mod readiness_text;
mod table;

use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use wire::health::ReadyReport;

use crate::gpu::{GpuReading, GpuSample, GpuState, is_stale};

pub(crate) use csv::{SmiQuery, SmiQueryError, format_value};
pub(crate) use table::table;

const MIB: u64 = 1 << 20;

/// A look at the card, and what was concluded from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GpuView<'a> {
    /// The look; none before the first.
    pub(crate) sample: Option<&'a GpuSample>,
    /// The conclusion.
    pub(crate) report: &'a ReadyReport,
    /// For ages.
    pub(crate) now: Instant,
}

impl<'a> GpuView<'a> {
    /// The reading, if there is one.
    pub(crate) fn reading(&self) -> Option<&'a GpuReading> {
        match self.sample.map(|sample| &sample.state) {
            Some(GpuState::Present(reading)) => Some(reading),
            _ => None,
        }
    }

    /// The reading, if it is not so old that the driver must be hanging.
    pub(crate) fn fresh_reading(&self) -> Result<(&'a GpuReading, SystemTime), String> {
        match (self.reading(), self.sample) {
            (Some(reading), Some(sample)) if !is_stale(sample, self.now) => Ok((reading, sample.timestamp)),
            (Some(_), _) => Err("the NVIDIA driver hangs: the last reading is too old to be told".to_owned()),
            _ => Err(self.unavailable_reason()),
        }
    }

    /// Why there is no reading, as `nvidia-smi` says it where it has words for it.
    fn unavailable_reason(&self) -> String {
        match self.sample.map(|sample| &sample.state) {
            None => "the driver has not answered yet".to_owned(),
            Some(GpuState::NoDevice { found, .. }) if found.is_empty() => "No devices were found".to_owned(),
            Some(GpuState::VersionMismatch) => {
                "Failed to initialize NVML: Driver/library version mismatch".to_owned()
            }
            Some(GpuState::DriverNotLoaded) => "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA \
                                                driver. Make sure that the latest NVIDIA driver is installed and running."
                .to_owned(),
            Some(state) => state.to_string(),
        }
    }

    /// The keys of `--query-gpu`, and what belongs to them.
    pub(crate) fn json(&self) -> Value {
        let mut value = match self.reading() {
            Some(reading) => serde_json::to_value(&reading.report).expect("a report is JSON"),
            None => json!({"error": self.unavailable_reason()}),
        };
        let processes = self.reading().and_then(|reading| reading.processes.as_ref()).map(|all| {
            let one = |process: &crate::gpu::GpuProcess| {
                json!({"pid": process.pid, "process_name": process.name, "type": process.process_type.as_str(),
                    "used_gpu_memory": process.used.map(|bytes| bytes / MIB), "unit": process.unit})
            };
            all.iter().map(one).collect::<Vec<_>>()
        });
        let xid = self.sample.and_then(|sample| sample.xids.recent.last()).map(|xid| {
            json!({"xid": xid.code, "age_seconds": self.now.saturating_duration_since(xid.at).as_secs()})
        });
        value["timestamp"] = json!(self.sample.map(|sample| csv::timestamp(sample.timestamp)));
        value["processes"] = json!(processes);
        value["last_xid"] = json!(xid);
        value["sample_age_seconds"] = json!(self.sample_age_seconds());
        value["readiness"] = json!(self.report.summary());
        value
    }

    fn sample_age_seconds(&self) -> Option<f64> {
        self.sample.map(|sample| self.now.saturating_duration_since(sample.taken).as_secs_f64())
    }
}
