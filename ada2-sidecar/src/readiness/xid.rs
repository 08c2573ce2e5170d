//! The driver's error reports (XIDs): what each means for the service. A table, from what DCGM, the Kubernetes device
//! plugin, GKE, EKS, Azure and Meta do with them; where those differ, the stricter for faults of the card, and never
//! more than a warning for faults of an application.

/// What follows from a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XidPolicy {
    /// Ignored: another reading shows it better, or it only follows another report.
    Ignore,
    /// An application's fault: a warning for a minute; many of them warn until the engine restarts.
    Application,
    /// A warning that stays as a fatal one does.
    LatchedWarning,
    /// The card cannot be trusted: not ready until reboot, driver reload, recovery or acknowledgement.
    Fatal,
    /// The engine's memory was hit: not ready until the engine restarts.
    FatalForEngine,
}

impl XidPolicy {
    /// Of a code.
    pub(crate) const fn for_code(code: u32) -> Self {
        match code {
            // 45: the driver tidies up after another report. 154: the recovery action is read at once.
            45 | 154 => Self::Ignore,
            63 | 92 => Self::LatchedWarning,
            46 | 48 | 54 | 62 | 64 | 74 | 79 | 95 | 110 | 119 | 120 | 136 | 140 | 143 | 155 | 156 | 158 => {
                Self::Fatal
            }
            94 => Self::FatalForEngine,
            _ => Self::Application,
        }
    }
}

/// What NVIDIA's catalogue calls it.
pub(crate) const fn description(code: u32) -> &'static str {
    match code {
        13 => "graphics engine exception",
        31 => "GPU memory page fault",
        43 | 46 => "GPU stopped processing",
        45 => "preemptive cleanup",
        48 => "double-bit ECC error",
        54 => "auxiliary power is not connected",
        62 => "internal micro-controller halt",
        63 => "memory row remapped",
        64 => "memory row remapping failed",
        68 => "video engine exception",
        74 => "NVLink error",
        79 => "GPU has fallen off the bus",
        92 => "high rate of single-bit ECC errors",
        94 => "contained memory error",
        95 => "uncontained memory error",
        109 => "context switch timed out",
        110 => "security fault",
        119 => "GPU system processor does not answer",
        120 => "GPU system processor error",
        136 => "link error",
        140 => "unrecovered ECC error",
        143 => "GPU initialisation failed",
        154 => "recovery action changed",
        155 | 156 | 158 => "GPU fault",
        999 => "code not reported by the driver",
        _ => "see NVIDIA's catalogue of XIDs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn application_xids_never_gate_and_hardware_xids_do() {
        for application in [13, 31, 43, 68, 109, 999, 12345] {
            assert_eq!(XidPolicy::for_code(application), XidPolicy::Application, "{application}");
        }
        for fatal in [46, 48, 62, 64, 74, 79, 95, 119, 120, 140, 54, 110, 136, 143, 155, 156, 158] {
            assert_eq!(XidPolicy::for_code(fatal), XidPolicy::Fatal, "{fatal}");
        }
        assert_eq!(XidPolicy::for_code(94), XidPolicy::FatalForEngine);
        assert_eq!([63, 92].map(XidPolicy::for_code), [XidPolicy::LatchedWarning; 2]);
        assert_eq!([45, 154].map(XidPolicy::for_code), [XidPolicy::Ignore; 2]);
    }

    #[test]
    fn every_code_that_has_a_policy_of_its_own_is_described() {
        let unknown = description(12345);
        assert_eq!(unknown, "see NVIDIA's catalogue of XIDs");
        let policies = (0..1000).filter(|code| XidPolicy::for_code(*code) != XidPolicy::Application);
        for code in policies.chain([13, 31, 43, 68, 109, 999]) {
            assert_ne!(description(code), unknown, "{code}");
        }
    }
}
