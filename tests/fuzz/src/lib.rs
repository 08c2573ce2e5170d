//! Runs a check on an input, and measures it: processor time and memory must grow with the input's length, and no faster.

mod meter;

pub use libfuzzer_sys;

use std::hash::{DefaultHasher, Hash, Hasher};

/// Processor time of any input, and of each byte; in a build with instrumentation and debug assertions.
const BASE_NANOS: u64 = 100_000_000;
const NANOS_PER_BYTE: u64 = 30_000;
/// Memory in use at once, of any input and of each byte; and all that is ever allocated, which counts copies too.
const BASE_PEAK: usize = 4 << 20;
const PEAK_PER_BYTE: usize = 1 << 10;
const BASE_TOTAL: usize = 16 << 20;
const TOTAL_PER_BYTE: usize = 16 << 10;
/// Of so many short inputs, one is also tried with a part of it repeated.
const REPEAT_ONE_OF: u64 = 64;
const MAX_REPEATED: usize = 2 << 10;
const REPEATED_LEN: usize = 48 << 10;

/// Defines a fuzzer of this check.
#[macro_export]
macro_rules! fuzz {
    ($check:path) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run($check, data));
    };
}

/// Runs the check; fails if it takes more than its share.
pub fn run(check: fn(&[u8]), data: &[u8]) {
    measured(check, data);
    if let Some(repeated) = repeated(data) {
        measured(check, &repeated);
    }
}

fn measured(check: fn(&[u8]), data: &[u8]) {
    let cost = meter::measure(|| check(data));
    let within = |base: usize, each: usize| base + each * data.len();
    assert!(cost.peak <= within(BASE_PEAK, PEAK_PER_BYTE), "{} bytes at once for {}", cost.peak, data.len());
    assert!(
        cost.total <= within(BASE_TOTAL, TOTAL_PER_BYTE),
        "{} bytes in all for {}",
        cost.total,
        data.len()
    );
    let limit = BASE_NANOS + NANOS_PER_BYTE * data.len() as u64;
    // A page fault or a cold cache may cost as much, but not twice.
    if cost.nanos > limit {
        let again = meter::measure(|| check(data));
        assert!(again.nanos <= limit, "{} ns for {} bytes", again.nanos, data.len());
    }
}

/// A long input made of a short one: what takes more than linear time shows on long ones, which are found seldom.
fn repeated(data: &[u8]) -> Option<Vec<u8>> {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    let hash = hasher.finish();
    if !(2..=MAX_REPEATED).contains(&data.len()) || hash % REPEAT_ONE_OF != 0 {
        return None;
    }
    let pick = |shift: u32, below: usize| (hash >> shift) as usize % below;
    let start = pick(8, data.len());
    let length = 1 + pick(24, (data.len() - start).min(64));
    let (before, rest) = data.split_at(start);
    let (part, after) = rest.split_at(length);
    Some([before, &part.repeat(REPEATED_LEN / length), after].concat())
}
