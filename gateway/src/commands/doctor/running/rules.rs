//! Findings about the running gateway. Pure.

use serde_json::Value;
use service::doctor::Finding;

use super::{
    super::launchd::{LABEL, RELOAD, RESTART, STDERR_LOG},
    CheckResult, Responder, RunningGateway,
};
use crate::commands::verify::IMAGES_BACKEND;

/// What the rules need besides the running gateway.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
pub(in super::super) struct RunContext<'a> {
    /// A reported problem keeps it from starting.
    pub(in super::super) is_blocked: bool,
    /// launchd starts it.
    pub(in super::super) is_daemon: bool,
    pub(in super::super) installed: &'a str,
    /// A running gateway that does not answer at the configured address.
    pub(in super::super) unreachable_process: Option<u32>,
    /// The gateway that answers.
    pub(in super::super) process: Option<u32>,
    /// Root sees every process.
    pub(in super::super) is_root: bool,
    /// The store cannot be written, which is reported already.
    pub(in super::super) store_fails: bool,
    /// `IP_ALLOWLIST` excludes this machine, which is reported already.
    pub(in super::super) is_excluded: bool,
}

impl RunContext<'_> {
    fn restart(self) -> String {
        if self.is_daemon {
            RESTART.to_owned()
        } else {
            match self.process.or(self.unreachable_process) {
                Some(process) => format!("restart the gateway (process {process})"),
                None => "restart the gateway".to_owned(),
            }
        }
    }

    fn reload(self) -> String {
        if self.is_daemon {
            RELOAD.to_owned()
        } else {
            match self.process {
                Some(process) => format!("kill -HUP {process}"),
                None => "kill -HUP the gateway's process".to_owned(),
            }
        }
    }
}

pub(in super::super) fn findings(running: &RunningGateway, context: RunContext<'_>) -> Vec<Finding> {
    let mut findings: Vec<_> = port(running, context).into_iter().collect();
    match &running.status {
        Some(Ok(status)) => {
            findings.extend(version(status, context));
            findings.extend(reload(status, running.changed.as_ref(), context));
            findings.extend(log(status));
            findings.push(verify_result(&running.checks, context.store_fails));
        }
        Some(Err(_)) if context.is_excluded => {
            findings.push(Finding::skip("answers", "the gateway answers 403 to this machine (IP_ALLOWLIST)"));
        }
        Some(Err(why)) => {
            let message = format!("the running gateway does not report its status: {why}");
            findings.push(Finding::fail("answers", message, context.reload()));
        }
        None => {}
    }
    findings
}

fn port(running: &RunningGateway, context: RunContext<'_>) -> Option<Finding> {
    let (name, base) = ("port", &running.base);
    let listener = running.listener.as_ref();
    let holder = match listener {
        None if context.is_root => "another program".to_owned(),
        Some((process, program)) => format!("{program} (process {process})"),
        None => "a program that only root can see".to_owned(),
    };
    let stop = |process: &u32| {
        if context.is_daemon {
            "sudo ./install.sh --replace LABEL (from the package; LABEL as in: sudo launchctl list), or another GATEWAY_PORT".to_owned()
        } else {
            format!("stop it (sudo kill {process}), or set another GATEWAY_PORT")
        }
    };
    let find = format!("sudo lsof -nP -iTCP:{} -sTCP:LISTEN", base.rsplit(':').next().unwrap_or_default());
    // The port's process is not visible, or is that gateway, with TLS where none is configured or the reverse.
    let is_earlier = context
        .unreachable_process
        .is_some_and(|earlier| listener.is_none_or(|(process, _)| *process == earlier));
    Some(match &running.answer {
        Responder::Gateway(_) => Finding::ok(name, format!("a gateway answers at {base}")),
        Responder::Closed | Responder::Other(_) | Responder::Invalid(_)
            if is_earlier && context.is_blocked =>
        {
            return None;
        }
        Responder::Closed | Responder::Other(_) | Responder::Invalid(_) if is_earlier => Finding::warn(
            name,
            format!(
                "nothing answers at {base} as configured: process {} still runs with the previous settings",
                context.unreachable_process.unwrap_or_default()
            ),
            format!("gateway check-config, then: {}", context.restart()),
        ),
        // The reason is reported already.
        Responder::Closed if context.is_blocked => return None,
        Responder::Closed if context.is_daemon => Finding::fail(
            name,
            format!("nothing listens at {base}"),
            format!("sudo launchctl kickstart system/{LABEL}, then read {STDERR_LOG}"),
        ),
        Responder::Closed => Finding::fail(
            name,
            format!("nothing listens at {base}: the gateway is not running"),
            "gateway serve",
        ),
        Responder::Invalid(why) if running.process().is_some() => {
            Finding::fail(name, format!("the gateway at {base} does not answer: {why}"), context.restart())
        }
        Responder::Other(what) | Responder::Invalid(what) => Finding::fail(
            name,
            format!("{base} is held by {holder}: {what}"),
            listener.map_or(find, |(process, _)| stop(process)),
        ),
    })
}

/// A gateway whose certificate is not the configured one.
pub(in super::super) fn unconfigured_gateway(running: &RunningGateway, context: RunContext<'_>) -> Finding {
    Finding::warn(
        "answers",
        format!("the gateway that answers at {} uses another GATEWAY_DATA_DIR or certificate", running.base),
        format!("gateway check-config, which prints the configured one; to use it: {}", context.restart()),
    )
}

fn version(status: &Value, context: RunContext<'_>) -> Option<Finding> {
    let (name, runs) = ("version", status["gateway"]["version"].as_str()?);
    Some(if runs == context.installed {
        Finding::ok(name, format!("{runs} is running"))
    } else {
        Finding::warn(
            name,
            format!("{runs} is running, {} is installed", context.installed),
            context.restart(),
        )
    })
}

fn reload(status: &Value, changed: Option<&(f64, String)>, context: RunContext<'_>) -> Option<Finding> {
    let (name, config) = ("reload", &status["gateway"]["config"]);
    if let Some(why) = config["last_error"].as_str() {
        let message =
            format!("the last reload was refused; the previous configuration is still in force: {why}");
        return Some(Finding::warn(name, message, format!("correct it, then: {}", context.reload())));
    }
    let loaded = config["loaded_at"].as_f64()?;
    match changed {
        // The status may report whole seconds.
        Some((at, file)) if *at > loaded + 1.0 => Some(Finding::warn(
            name,
            format!("{file} was changed since the gateway read it"),
            format!("gateway check-config && {}", context.reload()),
        )),
        _ => Some(Finding::ok(name, "the running gateway has read the current files")),
    }
}

/// Only the gateway itself knows whether it can write its log.
fn log(status: &Value) -> Option<Finding> {
    let warnings = status["gateway"]["warnings"].as_array()?;
    let message =
        warnings.iter().filter_map(Value::as_str).find(|message| message.starts_with("the log file"))?;
    Some(Finding::warn("log", message, "make its directory writable for the gateway, then send SIGHUP"))
}

/// The results of `gateway verify`, except those that have their own finding.
pub(in super::super) fn verify_result(checks: &[(&'static str, CheckResult)], store_fails: bool) -> Finding {
    let name = "answers";
    let counts = |check: &str| check != IMAGES_BACKEND && !(store_fails && check == "readyz");
    let counted: Vec<_> = checks.iter().filter(|(check, _)| counts(check)).collect();
    let failed: Vec<_> = counted
        .iter()
        .filter_map(|(check, result)| Some(format!("{check}: {}", result.as_ref().err()?)))
        .collect();
    if failed.is_empty() {
        Finding::ok(name, format!("{} checks of `gateway verify` pass", counted.len()))
    } else {
        Finding::fail(name, failed.join("; "), "gateway verify, and read the gateway's log")
    }
}

/// What a remote gateway reports about its backends and itself.
pub(in super::super) fn from_status(status: &Value) -> Vec<Finding> {
    let fix = "gateway doctor, on the gateway's own machine";
    let backends = status["backend_health"].as_object().into_iter().flatten();
    let mut findings: Vec<_> = backends
        .map(|(class, health)| {
            if health["ready"] == true {
                return Finding::ok("backend", format!("{class} is ready"));
            }
            let why = health["error"].as_str().unwrap_or("it does not say why");
            Finding::fail("backend", format!("{class} is not ready: {why}"), fix)
        })
        .collect();
    let warnings = status["gateway"]["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    findings.extend(warnings.map(|message| Finding::warn("gateway_warning", message, fix)));
    findings
}

#[cfg(test)]
mod tests;
