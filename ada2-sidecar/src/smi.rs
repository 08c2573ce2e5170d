//! The card as `nvidia-smi` shows it: a table, JSON, and the CSV of `--query-gpu`. Rendered from a published sample, never
//! by asking the driver.

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

/// A sample of the card and the readiness report based on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GpuView<'a> {
    /// None before the first sample.
    pub(crate) sample: Option<&'a GpuSample>,
    pub(crate) report: &'a ReadyReport,
    /// Ages are relative to this.
    pub(crate) now: Instant,
}

impl<'a> GpuView<'a> {
    pub(crate) fn reading(&self) -> Option<&'a GpuReading> {
        match self.sample.map(|sample| &sample.state) {
            Some(GpuState::Present(reading)) => Some(reading),
            _ => None,
        }
    }

    /// The reading and its time, unless it is so old that the driver must be hanging.
    pub(crate) fn fresh_reading(&self) -> Result<(&'a GpuReading, SystemTime), String> {
        match (self.reading(), self.sample) {
            (Some(reading), Some(sample)) if !is_stale(sample, self.now) => Ok((reading, sample.timestamp)),
            (Some(_), _) => {
                Err("the NVIDIA driver is not responding: the last reading is too old".to_owned())
            }
            _ => Err(self.unavailable_reason()),
        }
    }

    /// Why there is no reading, with `nvidia-smi`'s message if it has one.
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

    /// The keys of `--query-gpu`, with processes, the last XID and the readiness.
    pub(crate) fn json(&self) -> Value {
        let mut value = match self.reading() {
            Some(reading) => serde_json::to_value(&reading.report).expect("a report is JSON"),
            None => json!({"error": self.unavailable_reason()}),
        };
        let processes = self.reading().and_then(|reading| reading.processes.as_ref()).map(|processes| {
            let to_json = |process: &crate::gpu::GpuProcess| {
                json!({"pid": process.pid, "process_name": process.name, "type": process.process_type.as_str(),
                    "used_gpu_memory": process.used.map(|bytes| bytes / MIB), "unit": process.unit})
            };
            processes.iter().map(to_json).collect::<Vec<_>>()
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
