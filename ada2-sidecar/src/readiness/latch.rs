//! Faults that stay until an operator handles them: fatal XIDs and rising memory errors. NVML does not report them again, so
//! they are kept across restarts of this service, together with the boot that they belong to. Pure but for `store`.

pub(crate) mod store;

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};
use service::clock::unix_seconds;

use super::xid::XidPolicy;

/// What is latched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    /// The boot that it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// By code.
    pub xids: BTreeMap<u32, LatchedXid>,
    /// Uncorrected memory errors.
    pub ecc: Option<EccBaseline>,
}

/// A report of the driver that stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatchedXid {
    /// Unix seconds.
    pub since: u64,
    /// Whether the driver has advised a recovery since then: once it no longer does, the report is dealt with.
    pub recovery_advised: bool,
}

/// Where the count of uncorrected memory errors began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EccBaseline {
    /// The card.
    pub uuid: String,
    /// The count when it was first seen since the driver was loaded.
    pub first: u64,
    /// The count when it was last seen.
    pub last: u64,
    /// Whether it has risen since.
    pub risen: bool,
}

impl Latch {
    /// Nothing latched in this boot.
    pub fn new(boot_id: &str) -> Self {
        Self { boot_id: boot_id.to_owned(), ..Self::default() }
    }

    /// Itself, if it is of this boot.
    #[must_use]
    pub fn for_boot(self, boot_id: &str) -> Self {
        if self.boot_id == boot_id { self } else { Self::new(boot_id) }
    }

    /// Whether anything is latched that an operator can acknowledge.
    pub fn is_latched(&self) -> bool {
        !self.xids.is_empty() || self.ecc.as_ref().is_some_and(|mark| mark.risen)
    }

    /// Cleared by an operator, or by a reloaded driver. Memory errors are counted from their next reading on.
    #[must_use]
    pub fn cleared(&self) -> Self {
        Self::new(&self.boot_id)
    }

    /// One line for each thing that is latched.
    pub fn describe(&self) -> Vec<String> {
        let xids = self.xids.keys().map(|code| format!("XID {code} ({})", super::xid::description(*code)));
        let ecc = self.ecc.iter().filter(|mark| mark.risen);
        xids.chain(ecc.map(|mark| format!("uncorrected memory errors of {}", mark.uuid))).collect()
    }

    /// A report came in.
    pub(crate) fn record_xid(&mut self, code: u32, wall: SystemTime) {
        if matches!(
            XidPolicy::for_code(code),
            XidPolicy::Fatal | XidPolicy::FatalForEngine | XidPolicy::LatchedWarning
        ) {
            let since = unix_seconds(wall);
            self.xids.insert(code, LatchedXid { since, recovery_advised: false });
        }
    }

    /// What the driver advises now.
    pub(crate) fn record_recovery_action(&mut self, action: u32) {
        if action == 0 {
            self.xids.retain(|_, xid| !xid.recovery_advised);
        } else {
            self.xids.values_mut().for_each(|xid| xid.recovery_advised = true);
        }
    }

    /// The engine restarted: contained errors went with its memory.
    pub(crate) fn clear_engine_errors(&mut self) {
        self.xids.retain(|code, _| XidPolicy::for_code(*code) != XidPolicy::FatalForEngine);
    }

    /// The count of uncorrected memory errors. A falling count means that the driver was reloaded.
    pub(crate) fn record_ecc(&mut self, uuid: &str, count: u64) {
        let fresh = || EccBaseline { uuid: uuid.to_owned(), first: count, last: count, risen: false };
        let mark = self.ecc.get_or_insert_with(fresh);
        if mark.uuid != uuid || count < mark.last {
            *mark = fresh();
        }
        mark.risen |= count > mark.first;
        mark.last = count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latched(code: u32) -> Latch {
        let mut latch = Latch::new("boot");
        latch.record_xid(code, SystemTime::UNIX_EPOCH);
        latch
    }

    #[test]
    fn a_fatal_xid_stays_latched_until_it_is_cleared() {
        assert!(latched(79).is_latched() && latched(94).is_latched() && latched(63).is_latched());
        assert!(
            !latched(13).is_latched() && !latched(45).is_latched(),
            "an application's fault is not the card's"
        );
        assert!(!latched(79).for_boot("next").is_latched(), "another boot");
        assert!(latched(79).for_boot("boot").is_latched(), "the same boot");
        assert!(!latched(79).cleared().is_latched());
        let mut advised = latched(79);
        advised.record_recovery_action(0);
        assert!(advised.is_latched(), "nothing was advised yet");
        advised.record_recovery_action(1);
        advised.record_recovery_action(0);
        assert!(!advised.is_latched());
        let (mut fatal, mut contained) = (latched(79), latched(94));
        fatal.clear_engine_errors();
        contained.clear_engine_errors();
        assert!(fatal.is_latched() && !contained.is_latched());
    }

    #[test]
    fn rising_memory_errors_latch() {
        let mut latch = Latch::new("boot");
        for (count, risen) in [(3, false), (3, false), (4, true), (4, true), (0, false), (1, true)] {
            latch.record_ecc("GPU-1", count);
            assert_eq!(latch.is_latched(), risen, "{count}");
        }
        latch.record_ecc("GPU-2", 9);
        assert!(!latch.is_latched(), "another card");
        assert_eq!(latch.cleared().ecc, None, "counted from the next reading on");
    }
}
