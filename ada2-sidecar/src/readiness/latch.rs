//! What stays wrong until somebody sees to it: fatal XIDs and memory errors that rose. NVML does not tell them again, so
//! they are kept across restarts of this service, together with the boot that they belong to. Pure but for `file`.

pub(crate) mod file;

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::xid::Policy;

/// What is latched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    /// The boot that it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// By code.
    pub xids: BTreeMap<u32, LatchedXid>,
    /// Uncorrected memory errors.
    pub ecc: Option<EccMark>,
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
pub struct EccMark {
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

    /// What was kept, if it is of this boot.
    #[must_use]
    pub fn of_boot(self, boot_id: &str) -> Self {
        if self.boot_id == boot_id { self } else { Self::new(boot_id) }
    }

    /// Whether anything is latched that an operator can acknowledge.
    pub fn holds(&self) -> bool {
        !self.xids.is_empty() || self.ecc.as_ref().is_some_and(|mark| mark.risen)
    }

    /// Cleared by hand, or by a driver that was loaded anew. Memory errors are counted from their next reading on.
    #[must_use]
    pub fn cleared(&self) -> Self {
        Self::new(&self.boot_id)
    }

    /// One line for each thing that is latched.
    pub fn lines(&self) -> Vec<String> {
        let xids = self.xids.keys().map(|code| format!("XID {code} ({})", super::xid::meaning(*code)));
        let ecc = self.ecc.iter().filter(|mark| mark.risen);
        xids.chain(ecc.map(|mark| format!("uncorrected memory errors of {}", mark.uuid))).collect()
    }

    /// A report came in.
    pub(crate) fn note(&mut self, code: u32, wall: SystemTime) {
        if matches!(Policy::of(code), Policy::Fatal | Policy::FatalForEngine | Policy::Lasting) {
            let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            self.xids.insert(code, LatchedXid { since, recovery_advised: false });
        }
    }

    /// What the driver advises now.
    pub(crate) fn note_recovery(&mut self, action: u32) {
        if action == 0 {
            self.xids.retain(|_, xid| !xid.recovery_advised);
        } else {
            self.xids.values_mut().for_each(|xid| xid.recovery_advised = true);
        }
    }

    /// The engine was started anew: contained errors went with its memory.
    pub(crate) fn note_engine_start(&mut self) {
        self.xids.retain(|code, _| Policy::of(*code) != Policy::FatalForEngine);
    }

    /// The count of uncorrected memory errors. A count that falls is a driver loaded anew.
    pub(crate) fn note_ecc(&mut self, uuid: &str, count: u64) {
        let fresh = || EccMark { uuid: uuid.to_owned(), first: count, last: count, risen: false };
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
        latch.note(code, SystemTime::UNIX_EPOCH);
        latch
    }

    #[test]
    fn a_fatal_report_stays_until_one_of_its_ends() {
        assert!(latched(79).holds() && latched(94).holds() && latched(63).holds());
        assert!(!latched(13).holds() && !latched(45).holds(), "an application's fault is not the card's");
        assert!(!latched(79).of_boot("next").holds(), "another boot");
        assert!(latched(79).of_boot("boot").holds(), "the same boot");
        assert!(!latched(79).cleared().holds());
        let mut advised = latched(79);
        advised.note_recovery(0);
        assert!(advised.holds(), "nothing was advised yet");
        advised.note_recovery(1);
        advised.note_recovery(0);
        assert!(!advised.holds());
        let (mut fatal, mut contained) = (latched(79), latched(94));
        fatal.note_engine_start();
        contained.note_engine_start();
        assert!(fatal.holds() && !contained.holds());
    }

    #[test]
    fn memory_errors_latch_when_they_rise() {
        let mut latch = Latch::new("boot");
        for (count, risen) in [(3, false), (3, false), (4, true), (4, true), (0, false), (1, true)] {
            latch.note_ecc("GPU-1", count);
            assert_eq!(latch.holds(), risen, "{count}");
        }
        latch.note_ecc("GPU-2", 9);
        assert!(!latch.holds(), "another card");
        assert_eq!(latch.cleared().ecc, None, "counted from the next reading on");
    }
}
