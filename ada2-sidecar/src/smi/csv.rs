//! `nvidia-smi --query-gpu=FIELDS --format=csv[,noheader][,nounits]`, byte for byte (format of driver 595.80).

use std::time::SystemTime;

use serde_json::Value;
use service::{settings::nearest_n, text::prefix};
use wire::health::GpuReport;

use super::fields::{Field, FieldUnit, REPORT_KEYS, find, names};

/// Names suggested for an unknown one.
const MAX_SUGGESTIONS: usize = 5;

/// Fields that are `Active` or `Not Active`, with their bit in `clocks_event_reasons.active`.
const REASONS: &[(&str, u64)] = &[
    ("clocks_event_reasons.gpu_idle", 0x01),
    ("clocks_event_reasons.applications_clocks_setting", 0x02),
    ("clocks_event_reasons.sw_power_cap", 0x04),
    ("clocks_event_reasons.hw_slowdown", 0x08),
    ("clocks_event_reasons.sync_boost", 0x10),
    ("clocks_event_reasons.sw_thermal_slowdown", 0x20),
    ("clocks_event_reasons.hw_thermal_slowdown", 0x40),
    ("clocks_event_reasons.hw_power_brake_slowdown", 0x80),
];

/// The `query` and `format` parameters.
pub(crate) struct SmiQuery {
    fields: Vec<Field>,
    header: bool,
    units: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SmiQueryError {
    Field(String),
    Format(String),
}

impl std::fmt::Display for SmiQueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field(name) => {
                let near = nearest_n(name, names(), MAX_SUGGESTIONS);
                write!(f, "Field {name:?} is not a valid field to query. Nearest: {}", near.join(", "))
            }
            Self::Format(format) => {
                write!(
                    f,
                    "{format:?} is not a format; expected csv, csv,noheader, csv,nounits or csv,noheader,nounits"
                )
            }
        }
    }
}

impl SmiQuery {
    pub(crate) fn parse(fields: &str, format: &str) -> Result<Self, SmiQueryError> {
        let truncated = |text: &str| prefix(text, 100).to_owned();
        let find = |name: &str| find(name).ok_or_else(|| SmiQueryError::Field(truncated(name)));
        let options: Vec<_> = format.split(',').map(str::trim).collect();
        if let Some(option) =
            options.iter().find(|option| !matches!(**option, "csv" | "noheader" | "nounits"))
        {
            return Err(SmiQueryError::Format(truncated(option)));
        }
        if !options.contains(&"csv") {
            return Err(SmiQueryError::Format(truncated(format)));
        }
        Ok(Self {
            fields: fields.split(',').map(|name| find(name.trim())).collect::<Result<_, _>>()?,
            header: !options.contains(&"noheader"),
            units: !options.contains(&"nounits"),
        })
    }

    pub(crate) fn to_csv(&self, report: &GpuReport, wall: SystemTime) -> String {
        let report = serde_json::to_value(report).expect("a report is JSON");
        let headings = self.fields.iter().map(|Field { name, unit, .. }| match unit.as_str() {
            "" => (*name).to_owned(),
            unit => format!("{name} [{unit}]"),
        });
        let cells = self.fields.iter().map(|field| self.cell(field, &report, wall));
        let line = |cells: Vec<String>| cells.join(", ") + "\n";
        let head = if self.header { line(headings.collect()) } else { String::new() };
        head + &line(cells.collect())
    }

    fn cell(&self, field: &Field, report: &Value, wall: SystemTime) -> String {
        if field.name == "timestamp" {
            return timestamp(wall);
        }
        match (format_value(field, report), field.unit.as_str()) {
            (None, _) => "[N/A]".to_owned(),
            (Some(text), unit) if self.units && !unit.is_empty() => format!("{text} {unit}"),
            (Some(text), _) => text,
        }
    }
}

/// The value as `nvidia-smi` writes it, without its unit; none if it is unknown.
pub(crate) fn format_value(field: &Field, report: &Value) -> Option<String> {
    let Field { name, unit, supported: true } = *field else { return None };
    if let Some((_, bit)) = REASONS.iter().find(|(reason, _)| *reason == name) {
        return format_reason(report, *bit);
    }
    let key = REPORT_KEYS.iter().find(|(other, _)| *other == name).map_or(name, |(_, key)| key);
    match report.get(key)? {
        Value::String(text) => Some(text.clone()),
        number if unit == FieldUnit::Watts => Some(format!("{:.2}", number.as_f64().unwrap_or_default())),
        number => Some(number.to_string()),
    }
}

fn format_reason(report: &Value, bit: u64) -> Option<String> {
    let bits = report.get("clocks_event_reasons.active")?.as_str()?.strip_prefix("0x")?;
    let set = u64::from_str_radix(bits, 16).ok()? & bit != 0;
    Some(if set { "Active" } else { "Not Active" }.to_owned())
}

/// In the host's time zone, as in `nvidia-smi`.
pub(super) fn timestamp(wall: SystemTime) -> String {
    let zoned = jiff::Timestamp::try_from(wall).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y/%m/%d %H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smi::fields::supported;

    fn report() -> GpuReport {
        GpuReport {
            name: "NVIDIA RTX 6000 Ada Generation".into(),
            uuid: "GPU-1".into(),
            memory_total: Some(46_068),
            memory_free: Some(45_459),
            count: Some(2),
            temperature: Some(54),
            utilization_gpu: Some(97),
            power_draw: Some(21.5),
            power_limit: Some(300.0),
            clocks_sm: Some(210),
            pstate: Some("P8".into()),
            ecc_uncorrected_volatile: Some(0),
            clocks_event_reasons: Some("0x0000000000000001".into()),
            ..GpuReport::default()
        }
    }

    fn csv(fields: &str, format: &str) -> String {
        SmiQuery::parse(fields, format).unwrap().to_csv(&report(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn the_format_is_nvidia_smis_byte_for_byte() {
        assert_eq!(csv("memory.free,temperature.gpu", "csv,noheader,nounits"), "45459, 54\n");
        assert_eq!(
            csv("memory.free,temperature.gpu,utilization.gpu,power.draw,clocks.sm,fan.speed", "csv"),
            "memory.free [MiB], temperature.gpu, utilization.gpu [%], power.draw [W], clocks.current.sm [MHz], fan.speed [%]\n\
             45459 MiB, 54, 97 %, 21.50 W, 210 MHz, [N/A]\n"
        );
        assert_eq!(
            csv("memory.free,power.limit", "csv,nounits"),
            "memory.free [MiB], power.limit [W]\n45459, 300.00\n"
        );
        assert_eq!(
            csv(
                "gpu_name, clocks_event_reasons.gpu_idle,clocks_throttle_reasons.hw_slowdown,pstate",
                "csv,noheader"
            ),
            "NVIDIA RTX 6000 Ada Generation, Active, Not Active, P8\n"
        );
        assert_eq!(csv("ecc.errors.uncorrected.volatile.total,count", "noheader,csv"), "0, 2\n");
        let timestamp = csv("timestamp", "csv,noheader");
        assert!(
            timestamp.len() == "2026/11/24 18:19:27.123\n".len() && timestamp.contains(".000"),
            "{timestamp}"
        );
    }

    #[test]
    fn an_unknown_name_gets_suggestions() {
        let error = |fields, format| SmiQuery::parse(fields, format).err().unwrap().to_string();
        assert!(
            error("memory.fre", "csv")
                .starts_with("Field \"memory.fre\" is not a valid field to query. Nearest: memory.free, ")
        );
        assert!(error("", "csv").contains("Nearest: name, "));
        assert!(error("vram", "csv").split(", ").count() == MAX_SUGGESTIONS, "there are always suggestions");
        assert!(error("name", "json").starts_with("\"json\" is not a format"));
        assert!(error("name", "noheader").contains("expected csv"));
    }

    #[test]
    fn every_supported_field_has_its_key_in_the_report() {
        for Field { name, .. } in supported() {
            let key = REPORT_KEYS.iter().find(|(other, _)| *other == name).map_or(name, |(_, key)| key);
            let is_known = include_str!("../../../shared/wire/src/health/gpu.rs")
                .contains(&format!("\"{key}\""))
                || matches!(name, "timestamp" | "name" | "uuid" | "index")
                || REASONS.iter().any(|(reason, _)| *reason == name);
            assert!(is_known, "{name}");
        }
    }

    #[test]
    fn every_name_of_public_scripts_and_of_the_help_is_accepted() {
        for (fields, expected) in [
            // GPUtil.
            (
                "index,uuid,utilization.gpu,memory.total,memory.used,memory.free,driver_version,name,gpu_serial,\
                 display_active,display_mode,temperature.gpu",
                "0, GPU-1, 97, 46068, [N/A], 45459, [N/A], NVIDIA RTX 6000 Ada Generation, [N/A], [N/A], [N/A], 54\n",
            ),
            // systeminformation.
            (
                "driver_version,pci.sub_device_id,name,pci.bus_id,fan.speed,memory.total,memory.used,memory.free,\
                 utilization.gpu,utilization.memory,temperature.gpu,temperature.memory,power.draw,power.limit,clocks.gr,\
                 clocks.mem",
                "[N/A], [N/A], NVIDIA RTX 6000 Ada Generation, [N/A], [N/A], 46068, [N/A], 45459, 97, [N/A], 54, [N/A], 21.50, \
                 300.00, [N/A], [N/A]\n",
            ),
        ] {
            assert_eq!(csv(fields, "csv, noheader, nounits"), expected);
        }
        let all: Vec<_> = names().collect();
        assert!(all.len() > 280, "{}", all.len());
        let line = csv(&all.join(","), "csv,noheader");
        assert_eq!(line.split(", ").count(), all.len());
        assert!(all.iter().all(|name| all.iter().filter(|other| *other == name).count() == 1));
    }

    #[test]
    fn an_unsupported_field_is_not_available_under_its_own_heading() {
        assert_eq!(
            csv("clocks.max.gr,module.power.limit,fabric.state,retired_pages.sbe,utilization.jpeg", "csv"),
            "clocks.max.graphics [MHz], module.power.limit [W], fabric.state, retired_pages.single_bit_ecc.count, \
             utilization.jpeg [%]\n[N/A], [N/A], [N/A], [N/A], [N/A]\n"
        );
        let query = SmiQuery::parse("name,memory.total,memory.used", "csv").unwrap();
        let unified = GpuReport { name: "NVIDIA GB10".into(), ..GpuReport::default() };
        assert_eq!(
            query.to_csv(&unified, SystemTime::UNIX_EPOCH),
            "name, memory.total [MiB], memory.used [MiB]\nNVIDIA GB10, [N/A], [N/A]\n"
        );
    }
}
