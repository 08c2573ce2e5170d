//! `nvidia-smi --query-gpu=FIELDS --format=csv[,noheader][,nounits]`, byte for byte (format of driver 595.80).

use std::time::SystemTime;

use serde_json::Value;
use shared::health::GpuReport;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    None,
    Mib,
    Percent,
    Watts,
    Mhz,
}

impl Unit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Mib => "MiB",
            Self::Percent => "%",
            Self::Watts => "W",
            Self::Mhz => "MHz",
        }
    }
}

/// A field: its name, which is also its key in the report, and the other names that it has.
struct Field(&'static str, &'static [&'static str], Unit);

/// In the order in which an unknown one is answered with them.
const FIELDS: &[Field] = &[
    Field("timestamp", &[], Unit::None),
    Field("driver_version", &[], Unit::None),
    Field("count", &[], Unit::None),
    Field("name", &["gpu_name"], Unit::None),
    Field("uuid", &["gpu_uuid"], Unit::None),
    Field("index", &[], Unit::None),
    Field("pci.bus_id", &["gpu_bus_id"], Unit::None),
    Field("compute_cap", &[], Unit::None),
    Field("compute_mode", &[], Unit::None),
    Field("persistence_mode", &[], Unit::None),
    Field("display_active", &[], Unit::None),
    Field("pstate", &[], Unit::None),
    Field("fan.speed", &[], Unit::Percent),
    Field("temperature.gpu", &[], Unit::None),
    Field("utilization.gpu", &[], Unit::Percent),
    Field("utilization.memory", &[], Unit::Percent),
    Field("memory.total", &[], Unit::Mib),
    Field("memory.reserved", &[], Unit::Mib),
    Field("memory.used", &[], Unit::Mib),
    Field("memory.free", &[], Unit::Mib),
    Field("power.draw", &[], Unit::Watts),
    Field("power.limit", &[], Unit::Watts),
    Field("enforced.power.limit", &[], Unit::Watts),
    Field("clocks.current.graphics", &["clocks.gr"], Unit::Mhz),
    Field("clocks.current.sm", &["clocks.sm"], Unit::Mhz),
    Field("clocks.current.memory", &["clocks.mem"], Unit::Mhz),
    Field("clocks_event_reasons.active", &["clocks_throttle_reasons.active"], Unit::None),
    Field("clocks_event_reasons.gpu_idle", &["clocks_throttle_reasons.gpu_idle"], Unit::None),
    Field("clocks_event_reasons.sw_power_cap", &["clocks_throttle_reasons.sw_power_cap"], Unit::None),
    Field("clocks_event_reasons.hw_slowdown", &["clocks_throttle_reasons.hw_slowdown"], Unit::None),
    Field(
        "clocks_event_reasons.sw_thermal_slowdown",
        &["clocks_throttle_reasons.sw_thermal_slowdown"],
        Unit::None,
    ),
    Field(
        "clocks_event_reasons.hw_thermal_slowdown",
        &["clocks_throttle_reasons.hw_thermal_slowdown"],
        Unit::None,
    ),
    Field(
        "clocks_event_reasons.hw_power_brake_slowdown",
        &["clocks_throttle_reasons.hw_power_brake_slowdown"],
        Unit::None,
    ),
    Field("ecc.mode.current", &[], Unit::None),
    Field("ecc.mode.pending", &[], Unit::None),
    Field("ecc.errors.corrected.volatile.total", &[], Unit::None),
    Field("ecc.errors.uncorrected.volatile.total", &[], Unit::None),
    Field("ecc.errors.corrected.aggregate.total", &[], Unit::None),
    Field("ecc.errors.uncorrected.aggregate.total", &[], Unit::None),
    Field("remapped_rows.correctable", &[], Unit::None),
    Field("remapped_rows.uncorrectable", &[], Unit::None),
    Field("remapped_rows.pending", &[], Unit::None),
    Field("remapped_rows.failure", &[], Unit::None),
    Field("gpu_recovery_action", &[], Unit::None),
    Field("pcie.link.gen.current", &["pcie.link.gen.gpucurrent"], Unit::None),
    Field("pcie.link.gen.max", &[], Unit::None),
    Field("pcie.link.width.current", &[], Unit::None),
    Field("pcie.link.width.max", &[], Unit::None),
];

/// Bits behind the words `Active` and `Not Active`.
const REASONS: &[(&str, u64)] = &[
    ("clocks_event_reasons.gpu_idle", 0x01),
    ("clocks_event_reasons.sw_power_cap", 0x04),
    ("clocks_event_reasons.hw_slowdown", 0x08),
    ("clocks_event_reasons.sw_thermal_slowdown", 0x20),
    ("clocks_event_reasons.hw_thermal_slowdown", 0x40),
    ("clocks_event_reasons.hw_power_brake_slowdown", 0x80),
];

/// What is asked for.
pub(crate) struct Query {
    fields: Vec<&'static Field>,
    header: bool,
    units: bool,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FaultyQuery {
    /// No such field.
    Field(String),
    /// Not a format that is told here.
    Format(String),
}

impl std::fmt::Display for FaultyQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field(name) => {
                let known: Vec<_> = FIELDS.iter().map(|field| field.0).collect();
                write!(f, "Field {name:?} is not a valid field to query. Known: {}", known.join(", "))
            }
            Self::Format(word) => {
                write!(
                    f,
                    "{word:?} is not a format; expected csv, csv,noheader, csv,nounits or csv,noheader,nounits"
                )
            }
        }
    }
}

impl Query {
    /// Reads both parameters.
    pub(crate) fn read(fields: &str, format: &str) -> Result<Self, FaultyQuery> {
        let foreign = |text: &str| text.chars().take(100).collect::<String>();
        let find = |name: &str| {
            let is_meant = |field: &&Field| field.0 == name || field.1.contains(&name);
            FIELDS.iter().find(is_meant).ok_or_else(|| FaultyQuery::Field(foreign(name)))
        };
        let words: Vec<_> = format.split(',').map(str::trim).collect();
        if let Some(word) = words.iter().find(|word| !matches!(**word, "csv" | "noheader" | "nounits")) {
            return Err(FaultyQuery::Format(foreign(word)));
        }
        if !words.contains(&"csv") {
            return Err(FaultyQuery::Format(foreign(format)));
        }
        Ok(Self {
            fields: fields.split(',').map(|name| find(name.trim())).collect::<Result<_, _>>()?,
            header: !words.contains(&"noheader"),
            units: !words.contains(&"nounits"),
        })
    }

    /// The answer.
    pub(crate) fn answer(&self, report: &GpuReport, wall: SystemTime) -> String {
        let report = serde_json::to_value(report).expect("a report is JSON");
        let heads = self.fields.iter().map(|Field(name, _, unit)| match unit {
            Unit::None => (*name).to_owned(),
            unit => format!("{name} [{}]", unit.as_str()),
        });
        let cells = self.fields.iter().map(|field| self.cell(field, &report, wall));
        let line = |cells: Vec<String>| cells.join(", ") + "\n";
        let head = if self.header { line(heads.collect()) } else { String::new() };
        head + &line(cells.collect())
    }

    fn cell(&self, Field(name, _, unit): &Field, report: &Value, wall: SystemTime) -> String {
        if *name == "timestamp" {
            return timestamp(wall);
        }
        if *name == "count" {
            return "1".to_owned();
        }
        if let Some((_, bit)) = REASONS.iter().find(|(reason, _)| reason == name) {
            return reason(report, *bit).unwrap_or_else(|| "[N/A]".to_owned());
        }
        let text = match report.get(*name) {
            Some(Value::String(text)) => return text.clone(),
            Some(value) if *unit == Unit::Watts => format!("{:.2}", value.as_f64().unwrap_or_default()),
            Some(value) => value.to_string(),
            None => return "[N/A]".to_owned(),
        };
        if self.units && *unit != Unit::None { format!("{text} {}", unit.as_str()) } else { text }
    }
}

fn reason(report: &Value, bit: u64) -> Option<String> {
    let bits = report.get("clocks_event_reasons.active")?.as_str()?.strip_prefix("0x")?;
    let set = u64::from_str_radix(bits, 16).ok()? & bit != 0;
    Some(if set { "Active" } else { "Not Active" }.to_owned())
}

/// In the host's time zone, as `nvidia-smi` tells it.
pub(super) fn timestamp(wall: SystemTime) -> String {
    let zoned = jiff::Timestamp::try_from(wall).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y/%m/%d %H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> GpuReport {
        GpuReport {
            name: "NVIDIA RTX 6000 Ada Generation".into(),
            uuid: "GPU-1".into(),
            memory_total: 46_068,
            memory_free: 45_459,
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

    fn ask(fields: &str, format: &str) -> String {
        Query::read(fields, format).unwrap().answer(&report(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn it_is_nvidia_smis_format_byte_for_byte() {
        assert_eq!(ask("memory.free,temperature.gpu", "csv,noheader,nounits"), "45459, 54\n");
        assert_eq!(
            ask("memory.free,temperature.gpu,utilization.gpu,power.draw,clocks.sm,fan.speed", "csv"),
            "memory.free [MiB], temperature.gpu, utilization.gpu [%], power.draw [W], clocks.current.sm [MHz], fan.speed [%]\n\
             45459 MiB, 54, 97 %, 21.50 W, 210 MHz, [N/A]\n"
        );
        assert_eq!(
            ask("memory.free,power.limit", "csv,nounits"),
            "memory.free [MiB], power.limit [W]\n45459, 300.00\n"
        );
        assert_eq!(
            ask(
                "gpu_name, clocks_event_reasons.gpu_idle,clocks_throttle_reasons.hw_slowdown,pstate",
                "csv,noheader"
            ),
            "NVIDIA RTX 6000 Ada Generation, Active, Not Active, P8\n"
        );
        assert_eq!(ask("ecc.errors.uncorrected.volatile.total,count", "noheader,csv"), "0, 1\n");
        let stamp = ask("timestamp", "csv,noheader");
        assert!(stamp.len() == "2026/11/24 18:19:27.123\n".len() && stamp.contains(".000"), "{stamp}");
    }

    #[test]
    fn what_is_not_known_is_named_with_what_is() {
        let fault = |fields, format| Query::read(fields, format).err().unwrap().to_string();
        assert!(
            fault("memory.fre", "csv")
                .starts_with("Field \"memory.fre\" is not a valid field to query. Known: timestamp")
        );
        assert!(fault("", "csv").contains("memory.free"));
        assert!(fault("name", "json").starts_with("\"json\" is not a format"));
        assert!(fault("name", "noheader").contains("expected csv"));
    }

    #[test]
    fn every_field_is_in_a_whole_report() {
        let whole = serde_json::to_value(GpuReport::default()).unwrap();
        for Field(name, _, _) in FIELDS {
            let key = format!("\"{name}\"");
            let told = include_str!("../../../shared/src/health/gpu.rs").contains(&key)
                || whole.get(*name).is_some()
                || matches!(*name, "timestamp" | "count")
                || REASONS.iter().any(|(reason, _)| reason == name);
            assert!(told, "{name}");
        }
    }
}
