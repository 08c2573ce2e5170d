//! `gateway status`: the state of a running gateway and its backends, as a table.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    process::ExitCode,
    time::UNIX_EPOCH,
};

use clap::ArgMatches;
use reqwest::Method;
use serde_json::Value;
use service::secret::redact_url;
use wire::health::GpuReport;

use super::{
    CommandError, Environment, exit_code,
    target::{GatewayTarget, Reply, block_on, escaped},
};

const PATH: &str = "/v1/gateway/status";

pub(super) fn run(arguments: &ArgMatches, environment: Environment) -> Result<ExitCode, CommandError> {
    let target = GatewayTarget::from_arguments(arguments, environment)?;
    let reply = block_on(async {
        fetch(&target)
            .await
            .map_err(|why| CommandError::Message(format!("{}: {why}", redact_url(&target.base))))
    })?;
    let status = reply.json();
    if arguments.get_flag("json") {
        writeln!(io::stdout(), "{status:#}")?;
    } else {
        let colours = io::stdout().is_terminal() && environment("NO_COLOR").is_none();
        let page = StatusPage { now: unix_date(&reply), colours };
        write!(io::stdout(), "{}", page.render(&redact_url(&target.base), &status))?;
    }
    Ok(exit_code(all_ready(&status)))
}

/// The status; an error says why there is none.
pub(super) async fn fetch(target: &GatewayTarget) -> Result<Reply, String> {
    let reply = Reply::send(target.request(Method::GET, PATH)).await?;
    match reply.status.as_u16() {
        200 if reply.json()["backend_health"].is_object() => Ok(reply),
        401 => Err("401: the running gateway rejects the token. If it comes from .env, the file may have changed since the \
                    gateway read it; give another with --token"
            .to_owned()),
        status => Err(format!(
            "{PATH} answered {status} instead of a gateway's status: {}",
            escaped(reply.json()["error"]["message"].as_str().unwrap_or("not in a gateway's form"))
        )),
    }
}

fn all_ready(status: &Value) -> bool {
    let backends = status["backend_health"].as_object();
    backends.is_some_and(|backends| backends.values().all(|backend| backend["ready"] == true))
}

/// The gateway's own clock: ages are never computed from two clocks.
fn unix_date(reply: &Reply) -> Option<f64> {
    let date = httpdate::parse_http_date(reply.header("date")).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

struct StatusPage {
    /// The gateway's time in Unix seconds, if known.
    now: Option<f64>,
    colours: bool,
}

impl StatusPage {
    fn render(&self, base: &str, status: &Value) -> String {
        let own = &status["gateway"];
        let text = |value: &Value| escaped(value.as_str().unwrap_or("unknown"));
        let mut page = format!(
            "gateway {} at {}, up {}; images from {}\n",
            text(&own["version"]),
            escaped(base.trim_end_matches('/')),
            span(own["uptime_seconds"].as_f64()),
            text(&own["images_backend"]),
        );
        let _ = writeln!(page, "configuration of {}", self.age(&own["config"]["loaded_at"]));
        if let Some(error) = own["config"]["last_error"].as_str() {
            let _ = writeln!(page, "{}", self.red(&format!("last reload refused: {}", escaped(error))));
        }
        for warning in own["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let _ = writeln!(page, "{}", self.red(&format!("warning: {}", escaped(warning))));
        }
        page.push('\n');
        page.push_str(&self.table(status));
        page
    }

    /// A row per backend, and below it what needs attention.
    fn table(&self, status: &Value) -> String {
        let none = serde_json::Map::new();
        let backends = status["backend_health"].as_object().unwrap_or(&none);
        let mut rows = vec![["BACKEND", "READY", "CHECKED", "IN USE", "GPU"].map(str::to_owned)];
        for (class, health) in backends {
            let ready = if health["ready"] == true { "yes" } else { "no" };
            let checked = self.age(&health["last_check"]);
            rows.push([escaped(class), ready.to_owned(), checked, slots(class, status), gpu(&health["gpu"])]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        let mut table = String::new();
        for (index, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ").trim_end().to_owned();
            let health = index.checked_sub(1).and_then(|index| backends.values().nth(index));
            let _ = match health {
                Some(health) if health["ready"] != true => writeln!(table, "{}", self.red(&line)),
                _ => writeln!(table, "{line}"),
            };
            for message in health.into_iter().flat_map(messages) {
                let _ = writeln!(table, "  {message}");
            }
        }
        table
    }

    fn age(&self, at: &Value) -> String {
        match (self.now, at.as_f64()) {
            (Some(now), Some(at)) => format!("{} ago", span(Some((now - at).max(0.0)))),
            (None, Some(_)) => "unknown".to_owned(),
            (_, None) => "never".to_owned(),
        }
    }

    fn red(&self, text: &str) -> String {
        if self.colours { format!("\x1b[31m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn messages(health: &Value) -> Vec<String> {
    let error = health["error"].as_str().map(escaped);
    let warnings = health["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    error.into_iter().chain(warnings.map(|warning| format!("warning: {}", escaped(warning)))).collect()
}

/// `images 1/2`, for each capability.
fn slots(class: &str, status: &Value) -> String {
    let all = status["admission_control"].as_object().into_iter().flatten();
    let of_class = all.filter_map(|(key, slots)| {
        let capability = key.strip_prefix(class)?.strip_prefix('.')?;
        Some(format!("{} {}/{}", escaped(capability), slots["inflight"], slots["limit"]))
    });
    of_class.collect::<Vec<_>>().join(", ")
}

fn gpu(report: &Value) -> String {
    let Ok(report) = serde_json::from_value::<GpuReport>(report.clone()) else { return String::new() };
    let degrees = report.temperature.map_or_else(String::new, |degrees| format!(" {degrees}C"));
    let memory = match (report.memory_used, report.memory_total) {
        (Some(used), Some(total)) => format!(" {used}/{total} MiB"),
        // Unified memory.
        _ => String::new(),
    };
    format!("{}{memory}{degrees}", escaped(&report.name))
}

/// A duration in its two largest units.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an age in whole seconds")]
fn span(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds.map(|seconds| seconds as u64) else { return "unknown".to_owned() };
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unified_memory_is_shown_without_figures() {
        let unified = json!({"index": 0, "name": "NVIDIA GB10", "uuid": "GPU-1", "temperature.gpu": 46});
        assert_eq!(gpu(&unified), "NVIDIA GB10 46C");
    }

    fn example() -> Value {
        json!({
            "admission_control": {
                "gpu_heavy.images": {"limit": 2, "available": 1, "inflight": 1},
                "local_mlx.chat": {"limit": 2, "available": 2, "inflight": 0},
                "local_mlx.embeddings": {"limit": 4, "available": 4, "inflight": 0},
            },
            "backend_health": {
                "gpu_heavy": {"healthy": true, "ready": true, "last_check": 995.5, "error": null,
                    "warnings": ["limit 4 is above its own 2"], "gpu": {
                        "index": 0, "name": "NVIDIA RTX 6000 Ada", "uuid": "GPU-1", "memory.total": 46068,
                        "memory.reserved": 500, "memory.used": 12034, "memory.free": 33534, "temperature.gpu": 54}},
                "local_mlx": {"healthy": false, "ready": false, "last_check": null,
                    "error": "refused\u{1b}[2J", "warnings": [], "gpu": null},
            },
            "gateway": {"version": "0.1.0", "uptime_seconds": 11_000, "images_backend": "http_openai_images",
                "config": {"loaded_at": 900, "last_error": "f: k: expected x"},
                "warnings": ["the disk with the images is 93 % full"]},
        })
    }

    #[test]
    fn the_table_is_aligned_and_foreign_text_is_escaped() {
        let page =
            StatusPage { now: Some(1000.0), colours: false }.render("https://127.0.0.1:8800/", &example());
        insta::assert_snapshot!(page, @r"
        gateway 0.1.0 at https://127.0.0.1:8800, up 3h 3m; images from http_openai_images
        configuration of 1m 40s ago
        last reload refused: f: k: expected x
        warning: the disk with the images is 93 % full

        BACKEND    READY  CHECKED  IN USE                    GPU
        gpu_heavy  yes    4s ago   images 1/2                NVIDIA RTX 6000 Ada 12034/46068 MiB 54C
          warning: limit 4 is above its own 2
        local_mlx  no     never    chat 0/2, embeddings 0/4
          refused\u{1b}[2J
        ");
    }

    #[test]
    fn only_problems_are_coloured() {
        let page = StatusPage { now: None, colours: true }.render("http://x", &example());
        let red: Vec<_> = page.lines().filter(|line| line.starts_with("\x1b[31m")).collect();
        assert_eq!(red.len(), 3, "{page}");
        assert!(red[2].contains("local_mlx") && !all_ready(&example()));
    }
}
