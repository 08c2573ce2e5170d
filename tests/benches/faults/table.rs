//! The table as Markdown, and which goals were missed.

use std::fmt::Write;

use wire::health::ReadyStatus;

use super::{
    fault::{Fault, Goal},
    trial::Trial,
};

/// The longest reason that is printed, in characters.
const REASON: usize = 110;
/// Until the gateway serves again.
const RECOVERY: f64 = 3.0;

/// Everything, for standard output.
pub(crate) fn print(faults: &[Fault], trials: &[Vec<Trial>], runs: usize) -> String {
    let mut text = format!(
        "{} faults, {runs} runs each; seconds, p50 / max. Refused: from the moment when the rule's own delay is over to the \
         first refused request at the gateway (for what only degrades: to the warning on `/readyz`). Recovered: from the \
         moment when the rule's own clearing delay is over to the first image through the gateway; of it, until the \
         sidecar itself admits.\n\n\
         | fault | status | reason | refused after | recovered after | of it the sidecar |\n|---|---|---|--:|--:|--:|\n",
        faults.len()
    );
    let mut missed = String::new();
    for (fault, trials) in faults.iter().zip(trials) {
        let of = |value: fn(&Trial) -> f64| spread(trials.iter().map(value).collect());
        let (refused, recovered) = (of(|trial| trial.refused), of(|trial| trial.recovered));
        let admitted = of(|trial| trial.admitted);
        let name = named(fault);
        let status = if fault.status == ReadyStatus::Degraded { "degraded" } else { "not_ready" };
        let reason = cut(&trials[trials.len() - 1].reason);
        let _ = writeln!(
            text,
            "| {name} | {status} | {reason} | {} | {} | {} |",
            both(refused),
            both(recovered),
            both(admitted)
        );
        let goal = match fault.goal {
            Goal::Sampled => 1.0,
            Goal::Reported => 0.2,
            Goal::SlowReading | Goal::Other => f64::INFINITY,
        };
        if refused.1 > goal {
            let _ = writeln!(missed, "refused later than {goal} s: {name}, {}", both(refused));
        }
        if recovered.1 > RECOVERY {
            let _ = writeln!(missed, "recovered later than {RECOVERY} s: {name}, {}", both(recovered));
        }
    }
    format!("{text}\n{}", if missed.is_empty() { "every goal met\n".to_owned() } else { missed })
}

/// Includes the rule's delays.
fn named(fault: &Fault) -> String {
    let mut name = fault.name.to_owned();
    if !fault.rise.is_zero() {
        let _ = write!(name, ", for {} s", fault.rise.as_secs_f64());
    }
    if !fault.fall.is_zero() {
        let _ = write!(name, " (clears after {} s)", fault.fall.as_secs_f64());
    }
    name
}

/// The median and the greatest.
fn spread(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() - 1])
}

fn both((median, greatest): (f64, f64)) -> String {
    format!("{median:.2} / {greatest:.2}")
}

fn cut(reason: &str) -> String {
    let prefix: String = reason.chars().take(REASON).collect();
    if prefix.len() < reason.len() { format!("{prefix} …") } else { prefix }.replace('|', "/")
}
