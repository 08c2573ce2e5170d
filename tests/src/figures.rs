//! Figures of many measurements.

use std::time::Duration;

/// So many of a hundred were at most this long; the times get sorted.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
