//! Readiness as text: one line for `/healthz`, a table and a line per check for `/readyz?verbose`.

use std::fmt::Write;

use wire::health::{Check, CheckStatus, ReadyReport};

use crate::smi::{GpuView, table};

/// The second line of `/healthz`.
pub(crate) fn healthz_line(report: &ReadyReport) -> String {
    let card = report.gpu.as_ref().map_or_else(
        || "gpu none".to_owned(),
        |gpu| {
            let temperature =
                gpu.temperature.map_or_else(|| "N/A".to_owned(), |celsius| format!("{celsius}C"));
            let memory = match (gpu.memory_used, gpu.memory_total) {
                (Some(used), Some(total)) => format!("{used}/{total}"),
                _ => "N/A".to_owned(),
            };
            format!("gpu {} {} {memory} MiB {temperature}", gpu.index, gpu.name)
        },
    );
    format!("{card} {}", report.summary())
}

/// A table of the card, then a line per check, then the verdict.
pub(crate) fn verbose_text(view: &GpuView<'_>) -> String {
    let mut text = table(view);
    let report = view.report;
    let engine = &report.engine;
    let version = engine.version.as_deref().unwrap_or("?");
    // `ada2-sidecar gpu` without a running service has no report on the engine.
    if report.checks.iter().any(|check| check.name.starts_with("engine_")) {
        let _ = writeln!(
            text,
            "engine {} {version}, {} jobs, {} models",
            engine.kind, engine.queue_depth, engine.models
        );
    }
    for check in &report.checks {
        text.push_str(&check_line(check));
    }
    text.push_str(if report.admits() { "readyz check passed\n" } else { "readyz check failed\n" });
    text
}

/// `[+]name ok …` or `[-]name failed: …`.
pub(crate) fn check_line(check: &Check) -> String {
    let Check { name, observed, message, .. } = check;
    match check.status {
        CheckStatus::Pass => format!("[+]{name} ok {observed}\n"),
        CheckStatus::Warn => format!("[+]{name} warning: {message}\n"),
        CheckStatus::Unknown => format!("[+]{name} unknown: {message}\n"),
        CheckStatus::Fail => format!("[-]{name} failed: {message}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use wire::health::{EngineReport, GpuReport, ReadyStatus};

    fn report() -> ReadyReport {
        ReadyReport {
            status: ReadyStatus::NotReady,
            checks: vec![
                Check::pass("nvml", "loaded", "loaded"),
                Check::pass("engine_queue", "paused", "x")
                    .with_status(CheckStatus::Fail, "paused: resume it"),
                Check::pass("vram_headroom", "?", "x").with_status(CheckStatus::Unknown, "not reported"),
            ],
            gpu: Some(GpuReport {
                name: "NVIDIA RTX 6000 Ada Generation".into(),
                memory_used: Some(12034),
                memory_total: Some(46068),
                temperature: Some(54),
                ..GpuReport::default()
            }),
            engine: EngineReport {
                kind: "invokeai".into(),
                url: None,
                version: None,
                queue_depth: 1,
                models: 2,
            },
            since: 1,
            sampled_at: 1.0,
        }
    }

    #[test]
    fn the_healthz_line_is_as_documented() {
        let mut report = report();
        report.status = ReadyStatus::Ready;
        assert_eq!(healthz_line(&report), "gpu 0 NVIDIA RTX 6000 Ada Generation 12034/46068 MiB 54C ready");
        let unified = GpuReport { name: "NVIDIA GB10".into(), temperature: Some(54), ..GpuReport::default() };
        report.gpu = Some(unified);
        assert_eq!(healthz_line(&report), "gpu 0 NVIDIA GB10 N/A MiB 54C ready");
        report.gpu = None;
        report.status = ReadyStatus::NotReady;
        assert_eq!(healthz_line(&report), "gpu none not_ready: engine_queue: paused: resume it");
    }

    #[test]
    fn the_verbose_text_is_as_documented() {
        let report = report();
        let view = GpuView { sample: None, report: &report, now: Instant::now() };
        insta::assert_snapshot!(verbose_text(&view), @r"
        the driver has not answered yet
        readiness: not_ready: engine_queue: paused: resume it
        engine invokeai ?, 1 jobs, 2 models
        [+]nvml ok loaded
        [-]engine_queue failed: paused: resume it
        [+]vram_headroom unknown: not reported
        readyz check failed
        ");
    }
}
