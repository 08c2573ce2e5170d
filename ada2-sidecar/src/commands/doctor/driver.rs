//! The NVIDIA driver: whether it is loaded, and whether its library matches its kernel module.

use std::{fs, path::Path};

use service::doctor::Finding;

use super::fixes::FixHints;
use crate::gpu::GpuState;

const NAME: &str = "driver";
const INSTALL: &str = "sudo ubuntu-drivers install && sudo reboot";

/// The driver as the kernel sees it.
#[derive(Debug, Default, Clone)]
pub(super) struct KernelDriver {
    /// The version of the loaded NVIDIA module.
    pub(super) module: Option<String>,
    /// The free driver controls the card.
    nouveau_loaded: bool,
    /// An NVIDIA module is installed for the running kernel.
    module_available: bool,
}

impl KernelDriver {
    pub(super) fn detect() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        Self {
            module: module_version(&read("/proc/driver/nvidia/version")),
            nouveau_loaded: read("/proc/modules").lines().any(|line| line.starts_with("nouveau ")),
            module_available: has_module(&Path::new("/lib/modules").join(release.trim())),
        }
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  595.80  Tue …`
fn module_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

/// According to the list that depmod makes.
fn has_module(dir: &Path) -> bool {
    let list = fs::read_to_string(dir.join("modules.dep")).unwrap_or_default();
    list.lines().filter_map(|line| line.split(':').next()).any(|file| {
        let name = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == "nvidia.ko" || name.starts_with("nvidia.ko.")
    })
}

/// The facts.
pub(super) struct DriverFacts<'a> {
    /// None if the driver did not answer in time.
    pub(super) state: Option<&'a GpuState>,
    pub(super) kernel: &'a KernelDriver,
    /// Whether a card is required.
    pub(super) required: bool,
    pub(super) root: bool,
    /// The library that the configuration names.
    pub(super) library: Option<&'a Path>,
    pub(super) fixes: &'a FixHints,
}

impl DriverFacts<'_> {
    /// None if no card is required and there is none.
    pub(super) fn evaluate(&self) -> Option<Finding> {
        let fail = |message: &str, fix: &str| Some(Finding::fail(NAME, message, fix));
        let absent = matches!(self.state, Some(GpuState::LibraryUnavailable(_) | GpuState::DriverNotLoaded));
        if absent && !self.required {
            return None;
        }
        match self.state {
            None => fail(
                "a call into the NVIDIA driver does not return within 5 s",
                "sudo dmesg | grep -iE 'nvrm|xid' | tail # if it persists: sudo reboot",
            ),
            Some(GpuState::LibraryUnavailable(error)) => Some(self.no_library(error)),
            Some(GpuState::DriverNotLoaded) => Some(self.not_loaded()),
            Some(GpuState::VersionMismatch) => {
                let loaded =
                    self.kernel.module.as_ref().map(|version| format!(" ({version})")).unwrap_or_default();
                let message = format!(
                    "the driver was upgraded, but its old kernel module{loaded} is still loaded: programs that start now fail"
                );
                fail(&message, "sudo reboot")
            }
            Some(GpuState::NoPermission) if !self.root => {
                Some(Finding::skip(NAME, "the driver refuses this user: run with sudo"))
            }
            Some(GpuState::NoPermission) => fail(
                "the driver refuses even root",
                "ls -l /dev/nvidia*; sudo nvidia-modprobe # if that fails: sudo reboot",
            ),
            Some(GpuState::Failed(error)) => fail(
                &format!("NVML fails: {error}"),
                "nvidia-smi; sudo dmesg | grep -iE 'nvrm|xid' | tail # if it persists: sudo reboot",
            ),
            Some(GpuState::Present(reading)) => Some(match &reading.health.driver_on_disk {
                Some(installed) => Finding::warn(
                    NAME,
                    format!(
                        "{installed} was installed since the driver was loaded: programs that start now fail"
                    ),
                    "sudo reboot",
                ),
                None => Finding::ok(
                    NAME,
                    format!("{} answers", reading.report.driver_version.as_deref().unwrap_or("NVML")),
                ),
            }),
            // The card has a line of its own.
            Some(GpuState::NoDevice { .. } | GpuState::Lost) => Some(Finding::ok(NAME, "NVML answers")),
        }
    }

    fn no_library(&self, error: &str) -> Finding {
        if let Some(library) = self.library {
            let message = format!("nvml_lib cannot be loaded: {error}");
            let fix = self.fixes.edit(&format!("correct nvml_lib: {} in", library.display()));
            return Finding::fail(NAME, message, fix);
        }
        match &self.kernel.module {
            Some(version) => {
                let major = version.split('.').next().unwrap_or_default();
                let message = format!(
                    "the kernel module {version} is loaded, but its library is not installed ({error})"
                );
                Finding::fail(NAME, message, format!("sudo apt install libnvidia-compute-{major}"))
            }
            None if self.kernel.nouveau_loaded => {
                Finding::fail(NAME, "the NVIDIA driver is not installed; nouveau controls the card", INSTALL)
            }
            None => Finding::fail(NAME, format!("the NVIDIA driver is not installed ({error})"), INSTALL),
        }
    }

    fn not_loaded(&self) -> Finding {
        if self.kernel.nouveau_loaded {
            return Finding::fail(
                NAME,
                "nouveau controls the card, so the NVIDIA kernel module is not loaded",
                INSTALL,
            );
        }
        if self.kernel.module_available {
            let fix = "sudo modprobe nvidia # if that fails: sudo dmesg | tail shows why (after a kernel upgrade: sudo reboot)";
            return Finding::fail(NAME, "the NVIDIA kernel module is not loaded", fix);
        }
        let message = "the NVIDIA kernel module is not loaded, and none is installed for the running kernel";
        Finding::fail(NAME, message, INSTALL)
    }
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    #[test]
    fn the_loaded_modules_version_is_read() {
        let text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.80  Release Build  (root@x)\nGCC version:  12\n";
        assert_eq!(module_version(text).as_deref(), Some("595.80"));
        assert_eq!(module_version(""), None);
    }

    fn kernel(module: Option<&str>, nouveau: bool, built: bool) -> KernelDriver {
        KernelDriver { module: module.map(str::to_owned), nouveau_loaded: nouveau, module_available: built }
    }

    fn message_and_fix(
        state: Option<&GpuState>,
        kernel: &KernelDriver,
        required: bool,
        root: bool,
    ) -> Option<String> {
        let fixes = FixHints { file: "/etc/c.yaml".into(), managed_by_unit: true };
        let found = DriverFacts { state, kernel, required, root, library: None, fixes: &fixes }.evaluate()?;
        Some(format!("{} -> {}", found.message, found.fix.unwrap_or_default()))
    }

    #[test]
    fn a_missing_driver_is_installed_or_loaded() {
        let (missing, unloaded) =
            (GpuState::LibraryUnavailable("cannot open".into()), GpuState::DriverNotLoaded);
        for (state, kernel, expected) in [
            (&missing, kernel(None, false, false), "not installed (cannot open) -> sudo ubuntu-drivers"),
            (&missing, kernel(Some("595.80"), false, true), "-> sudo apt install libnvidia-compute-595"),
            (&missing, kernel(None, true, false), "nouveau controls the card"),
            (&unloaded, kernel(None, true, true), "nouveau controls the card, so"),
            (&unloaded, kernel(None, false, true), "-> sudo modprobe nvidia"),
            (
                &unloaded,
                kernel(None, false, false),
                "none is installed for the running kernel -> sudo ubuntu",
            ),
        ] {
            let line = message_and_fix(Some(state), &kernel, true, true).unwrap();
            assert!(line.contains(expected), "{line}");
            assert_eq!(message_and_fix(Some(state), &kernel, false, true), None, "no card is needed");
        }
    }

    #[test]
    fn an_installed_driver_answers_or_needs_a_reboot() {
        let kernel = kernel(Some("590.1"), false, true);
        let (mismatch, refused) = (GpuState::VersionMismatch, GpuState::NoPermission);
        for (state, root, expected) in [
            (None, true, "does not return within 5 s -> sudo dmesg"),
            (Some(&mismatch), true, "(590.1) is still loaded: programs that start now fail -> sudo reboot"),
            (Some(&refused), false, "run with sudo"),
            (Some(&refused), true, "refuses even root"),
            (Some(&GpuState::Failed("error 999".into())), true, "NVML fails: error 999"),
            (Some(&GpuState::Lost), true, "NVML answers"),
        ] {
            let line = message_and_fix(state, &kernel, true, root).unwrap();
            assert!(line.contains(expected), "{line}");
        }
    }

    #[test]
    fn a_configured_library_is_corrected_in_the_configuration() {
        let (fixes, state) = (
            FixHints { file: "/etc/c.yaml".into(), managed_by_unit: true },
            GpuState::LibraryUnavailable("no".into()),
        );
        let (library, kernel) = (Some(Path::new("/opt/nvml.so")), KernelDriver::default());
        let facts = DriverFacts {
            state: Some(&state),
            kernel: &kernel,
            required: true,
            root: true,
            library,
            fixes: &fixes,
        };
        let found = facts.evaluate().unwrap();
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.fix.unwrap().starts_with("correct nvml_lib: /opt/nvml.so in /etc/c.yaml"));
    }
}
