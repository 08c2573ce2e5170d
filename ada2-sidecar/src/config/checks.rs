//! The readiness checks as `warn_only` names them.

use service::settings::nearest_n;

/// Every check, in the order of the report.
pub const CHECKS: &[&str] = &[
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
    "draining",
];
/// Those that gate in any case: without them nothing else is known, or no request can be served.
const ALWAYS_GATE: &[&str] = &["nvml", "snapshot_fresh", "engine_reachable", "draining"];

/// The value of `warn_only`.
pub(super) fn parse_list(names: &str) -> Result<Vec<&'static str>, Vec<String>> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let (mut checks, mut problems) = (Vec::new(), Vec::new());
    for name in names {
        match parse(name) {
            Ok(check) => checks.push(check),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(checks) } else { Err(problems) }
}

fn parse(name: &str) -> Result<&'static str, String> {
    if ALWAYS_GATE.contains(&name) {
        return Err(format!("{name} always gates: the other checks depend on it"));
    }
    let accepted = || CHECKS.iter().copied().filter(|check| !ALWAYS_GATE.contains(check));
    accepted().find(|check| *check == name).ok_or_else(|| {
        let near = nearest_n(name, accepted(), 1).concat();
        let all = accepted().collect::<Vec<_>>().join(", ");
        format!("unknown check {name:?}; did you mean {near:?}? The checks are {all}")
    })
}
