//! What happens next: random, but reproducible by its seed. Of every twenty seconds six are calm, in which everything
//! is well but for one fatal report of the driver that is acknowledged two and a half seconds later. In every other
//! twenty seconds no call is slow, so that a fault's deadline is known.

use fakes::gpu::{Process, RemappedRows, Scenario};

/// Steps of 100 ms.
const ROUND: u64 = 200;
const CALM_FROM: u64 = 40;
const CALM_XID: u64 = 65;
const CALM_ACK: u64 = 90;
const CALM_TO: u64 = 100;
/// The longest a call hangs, in steps.
const LONGEST_HANG: u64 = 20;
const LONGEST_DELAY_MS: u64 = 300;
/// Kinds of harm: a call that is slow, a call that hangs. The two before them are advice and rows.
const SLOW: u64 = 8;
const HANGING: u64 = 9;
/// How many faults are repaired at a time; with fewer the machine would hardly ever be healthy.
const HEALED: usize = 2;
pub(crate) const MEMORY: &str = "nvmlDeviceGetMemoryInfo_v2";
pub(crate) const TEMPERATURE: &str = "nvmlDeviceGetTemperature";
const ECC: &str = "nvmlDeviceGetTotalEccErrors";
/// Every kind of call: to start, to find the card, to read it, to wait, to end.
const SYMBOLS: [&str; 10] = [
    MEMORY,
    TEMPERATURE,
    ECC,
    "nvmlInit_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlEventSetWait_v2",
    "nvmlShutdown",
];
const XIDS: [u64; 10] = [13, 31, 43, 45, 63, 79, 94, 95, 119, 154];
/// Linux assigns no such number.
const SOMEBODY: u32 = 4_194_305;

/// What happens in a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The machine changes; perhaps the driver reports an XID.
    Machine(Option<u64>),
    /// Everything is well, and what was latched is acknowledged.
    Calm,
    /// What is latched is acknowledged.
    Acknowledge,
}

/// The machine, and the random number generator.
#[derive(Debug)]
pub(crate) struct FaultGenerator {
    dice: u64,
    step: u64,
    hang_ends: u64,
    machine: Scenario,
}

impl FaultGenerator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { dice: seed, step: 0, hang_ends: 0, machine: Scenario::default() }
    }

    /// As it is now.
    pub(crate) fn machine(&self) -> &Scenario {
        &self.machine
    }

    /// Everything is well; what the driver once reported stays reported.
    pub(crate) fn calm(&mut self) {
        let xids = std::mem::take(&mut self.machine.gpus[0].xids);
        self.machine = Scenario::default();
        self.machine.gpus[0].xids = xids;
    }

    /// The next step.
    pub(crate) fn next(&mut self) -> Option<Change> {
        self.step += 1;
        match self.step % ROUND {
            CALM_FROM => {
                self.calm();
                Some(Change::Calm)
            }
            CALM_XID => Some(self.report(&[48, 79, 95, 119])),
            CALM_ACK => Some(Change::Acknowledge),
            step if (CALM_FROM..CALM_TO).contains(&step) => None,
            _ => Some(self.storm()),
        }
    }

    fn storm(&mut self) -> Change {
        if self.step >= self.hang_ends && !self.machine.hang.is_empty() {
            self.machine.hang.clear();
            return Change::Machine(None);
        }
        match self.roll(100) {
            0..4 => Change::Acknowledge,
            4..8 => self.report(&XIDS),
            8..55 => {
                for _ in 0..HEALED {
                    let kind = self.roll(12);
                    self.heal(kind);
                }
                Change::Machine(None)
            }
            55..72 => {
                self.harmless();
                Change::Machine(None)
            }
            _ => {
                let kind = self.roll(12);
                self.harm(kind);
                Change::Machine(None)
            }
        }
    }

    fn report(&mut self, codes: &[u64]) -> Change {
        let code = *self.pick(codes);
        self.machine.gpus[0].xid(code);
        Change::Machine(Some(code))
    }

    fn harm(&mut self, kind: u64) {
        let (symbol, delay) = (*self.pick(&SYMBOLS), 20 + self.roll(LONGEST_DELAY_MS - 20));
        let code = *self.pick(&[999, 29, 16, 2]);
        let init = *self.pick(&[9, 9, 4, 18, 999]);
        let field = *self.pick(&[143_u32, 144, 145, 230]);
        let (action, hang, dice) = (1 + self.roll(8), 2 + self.roll(LONGEST_HANG - 2), self.roll(4));
        let kind = match kind {
            SLOW | HANGING if (self.step / ROUND).is_multiple_of(2) => kind - 2,
            kind => kind,
        };
        let card = &mut self.machine.gpus[0];
        match kind {
            0 => card.lost = true,
            1 => card.lost_inside_fields = true,
            2 => card.fail(MEMORY, code),
            3 => card.fail(TEMPERATURE, 999),
            4 => card.fail(ECC, 3),
            5 => card.field_errors.extend([(field, if dice == 0 { 999 } else { 3 })]),
            6 => card.recovery_action = u32::try_from(action).expect("small"),
            7 => {
                card.remapped_rows =
                    RemappedRows { pending: dice < 3, failure: dice < 2, uncorrectable: 1, correctable: 2 }
            }
            SLOW => self.machine.delay_ms.extend([(symbol.to_owned(), delay)]),
            HANGING => {
                self.machine.hang = vec![symbol.to_owned()];
                self.hang_ends = self.step + hang;
            }
            10 if dice == 0 => self.machine.init_error = init,
            _ => card.ecc.uncorrected.volatile += 1,
        }
    }

    fn heal(&mut self, kind: u64) {
        let card = &mut self.machine.gpus[0];
        match kind {
            0 => card.lost = false,
            1 => card.lost_inside_fields = false,
            2 => card.errors.retain(|symbol, _| symbol != MEMORY),
            3 => card.errors.retain(|symbol, _| symbol != TEMPERATURE),
            4 => card.errors.retain(|symbol, _| symbol != ECC),
            5 => card.field_errors.clear(),
            6 => card.recovery_action = 0,
            7 => card.remapped_rows = RemappedRows::default(),
            SLOW => self.machine.delay_ms.clear(),
            HANGING => self.machine.hang.clear(),
            10 => self.machine.init_error = 0,
            _ => card.ecc.uncorrected.volatile = 0,
        }
    }

    fn harmless(&mut self) {
        let throttle = *self.pick(&[0, 1, 4, 0x20, 0x40, 0x80]);
        let (temperature, used, kind) = (30 + self.roll(60), self.roll(40_000), self.roll(3));
        let card = &mut self.machine.gpus[0];
        match kind {
            0 => card.throttle_reasons = throttle,
            1 => card.temperature = u32::try_from(temperature).expect("small"),
            _ => {
                card.memory.used = used;
                card.processes = vec![Process { pid: SOMEBODY, used_mib: Some(used), graphics: false }];
            }
        }
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.roll(all.len() as u64)).expect("short")]
    }

    /// SplitMix64.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}
