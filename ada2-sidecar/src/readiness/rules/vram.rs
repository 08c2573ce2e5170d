//! The one check with a memory of its own: VRAM that the engine could have, against the floor. It fails only after
//! the floor was missed for a while and passes only after a margin was kept for a while, so it cannot flap.

use std::time::{Duration, Instant};

use shared::health::{Check, CheckStatus};

use super::Rules;
use crate::gpu::{GpuProcess, GpuReading};

/// Below the floor for this long: fail.
const FALL: Duration = Duration::from_secs(15);
/// Above floor and margin for this long: pass again.
const RISE: Duration = Duration::from_secs(10);
/// Above the floor by this much, to pass again.
const MARGIN: u64 = 1 << 30;

const MIB: u64 = 1 << 20;

/// On which side of the floor we are, and since when the readings say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watermark {
    below: bool,
    doubt: Option<Instant>,
}

impl Watermark {
    /// The first reading decides at once; later ones only once they have lasted.
    fn next(prev: Option<Self>, effective: u64, floor: u64, now: Instant) -> Self {
        let Some(prev) = prev else { return Self { below: effective < floor, doubt: None } };
        let (doubtful, limit) = if prev.below {
            (effective >= floor.saturating_add(MARGIN), RISE)
        } else {
            (effective < floor, FALL)
        };
        if !doubtful {
            return Self { doubt: None, ..prev };
        }
        let since = prev.doubt.unwrap_or(now);
        if now.saturating_duration_since(since) >= limit {
            Self { below: !prev.below, doubt: None }
        } else {
            Self { doubt: Some(since), ..prev }
        }
    }
}

/// The check, and what to remember for the next one.
pub(super) fn check(
    prev: Option<Watermark>,
    reading: Option<&GpuReading>,
    rules: &Rules,
    now: Instant,
) -> (Option<Watermark>, Check) {
    let floor = rules.min_free_vram;
    let expected = if floor == 0 { "off".to_owned() } else { format!("at least {} MiB", floor / MIB) };
    let check = |observed: String| Check::pass("vram_headroom", observed, expected);
    let Some(reading) = reading else {
        return (None, check("unknown".to_owned()).but(CheckStatus::Unknown, "no GPU is being read"));
    };
    let headroom = reading.headroom(&rules.engine_unit);
    // What is free is the engine's to have in any case, whoever holds the rest.
    let effective = headroom.effective.or(Some(headroom.free).filter(|free| *free >= floor));
    let Some(effective) = effective else {
        let words = format!(
            "{} MiB are free and the engine's own share cannot be told: no process of {} is known (--engine-unit)",
            headroom.free / MIB,
            rules.engine_unit
        );
        return (None, check(format!("{} MiB free", headroom.free / MIB)).but(CheckStatus::Unknown, words));
    };
    let check = check(format!("{} MiB", effective / MIB));
    if floor == 0 {
        return (None, check);
    }
    let mark = Watermark::next(prev, effective, floor, now);
    if !mark.below {
        return (Some(mark), check);
    }
    let words = format!(
        "the engine could have only {} MiB of VRAM, the floor is {} MiB: {}",
        effective / MIB,
        floor / MIB,
        holders(&headroom.foreign)
    );
    (Some(mark), check.but(CheckStatus::Fail, words))
}

/// Who holds the rest, largest first, and what to do.
fn holders(foreign: &[GpuProcess]) -> String {
    let one = |process: &GpuProcess| {
        let unit = process.unit.as_deref().unwrap_or("no unit");
        let used = process.used.map_or_else(|| "? MiB".to_owned(), |used| format!("{} MiB", used / MIB));
        format!("pid {} {:?} ({unit}) {used}", process.pid, process.name)
    };
    if foreign.is_empty() {
        return "held by no process that the driver names; look at `nvidia-smi`, or lower --min-free-vram"
            .to_owned();
    }
    let largest: Vec<_> = foreign.iter().take(3).map(one).collect();
    format!("held by {}; stop it, or lower --min-free-vram", largest.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: u64 = 8 << 30;

    fn run(readings: &[(u64, u64)]) -> Vec<bool> {
        let start = Instant::now();
        let mut mark = None;
        readings
            .iter()
            .map(|(second, gib)| {
                let next = Watermark::next(mark, gib << 30, FLOOR, start + Duration::from_secs(*second));
                mark = Some(next);
                next.below
            })
            .collect()
    }

    #[test]
    fn it_falls_after_15_s_and_rises_after_10_s_with_a_margin() {
        assert_eq!(run(&[(0, 7)]), [true], "the first reading decides");
        assert_eq!(run(&[(0, 9), (1, 7), (15, 7), (16, 7)]), [false, false, false, true]);
        assert_eq!(
            run(&[(0, 9), (1, 7), (10, 9), (11, 7), (25, 7)]),
            [false; 5],
            "a recovery starts the time anew"
        );
        assert_eq!(run(&[(0, 7), (1, 8), (30, 8)]), [true, true, true], "at the floor, without the margin");
        assert_eq!(run(&[(0, 7), (1, 9), (10, 9), (11, 9)]), [true, true, true, false]);
    }

    proptest::proptest! {
        #[test]
        fn it_never_flaps_faster_than_its_hysteresis(gibs in proptest::collection::vec(0u64..20, 1..200)) {
            let start = Instant::now();
            let (mut mark, mut turned): (Option<Watermark>, Option<Duration>) = (None, None);
            for (tick, gib) in gibs.into_iter().enumerate() {
                let at = Duration::from_millis(500) * u32::try_from(tick).unwrap();
                let next = Watermark::next(mark, gib << 30, FLOOR, start + at);
                if mark.is_some_and(|mark| mark.below != next.below) {
                    if let Some(turned) = turned {
                        proptest::prop_assert!(at.checked_sub(turned).unwrap() >= RISE);
                    }
                    turned = Some(at);
                }
                mark = Some(next);
            }
        }
    }
}
