//! What is wrong with the gateway that runs. Pure.

use serde_json::Value;
use service::doctor::Finding;

use super::{
    super::{super::verify::IMAGES_BACKEND, escaped, launchd::LABEL},
    CheckResult, Responder, RunningGateway,
};

/// What is known besides of the machine that it runs on.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
pub(in super::super) struct RunContext<'a> {
    /// Something else that was found keeps it from starting.
    pub(in super::super) is_blocked: bool,
    /// launchd starts it.
    pub(in super::super) is_daemon: bool,
    /// The version that is installed.
    pub(in super::super) installed: &'a str,
    /// A gateway that runs, though none answers at the configured address.
    pub(in super::super) unreachable_process: Option<u32>,
    /// The process of the gateway that answers.
    pub(in super::super) process: Option<u32>,
    /// The caller sees every process.
    pub(in super::super) is_root: bool,
    /// The store cannot be written, which is reported already.
    pub(in super::super) store_fails: bool,
    /// `IP_ALLOWLIST` excludes this machine, which is reported already.
    pub(in super::super) is_excluded: bool,
}

impl RunContext<'_> {
    fn restart(self) -> String {
        if self.is_daemon {
            format!("sudo launchctl kill TERM system/{LABEL}")
        } else {
            match self.process.or(self.unreachable_process) {
                Some(process) => format!("restart the gateway (process {process})"),
                None => "restart the gateway".to_owned(),
            }
        }
    }

    fn reload(self) -> String {
        if self.is_daemon {
            format!("sudo launchctl kill HUP system/{LABEL}")
        } else {
            match self.process {
                Some(process) => format!("kill -HUP {process}"),
                None => "kill -HUP the gateway's process".to_owned(),
            }
        }
    }
}

/// What is wrong with it.
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
            let message = format!("the running gateway does not report its status: {}", escaped(why));
            findings.push(Finding::fail("answers", message, context.reload()));
        }
        None => {}
    }
    findings
}

fn port(running: &RunningGateway, context: RunContext<'_>) -> Option<Finding> {
    let (name, base) = ("port", &running.base);
    let holder = running.listener.as_ref();
    let is_gateway = holder.is_some_and(|(_, program)| program.starts_with("gateway"));
    let message = |what: &str| match holder {
        None if context.is_root => format!("{base} is held by another program: {what}"),
        Some((process, program)) => format!("{base} is held by {program} (process {process}): {what}"),
        None => format!("{base} is held by a program that only root can see: {what}"),
    };
    let stop = |process: &u32| {
        if context.is_daemon {
            "sudo ./install.sh --replace LABEL (from the package; LABEL as in: sudo launchctl list), or another GATEWAY_PORT".to_owned()
        } else {
            format!("stop it (sudo kill {process}), or set another GATEWAY_PORT")
        }
    };
    let find = format!("sudo lsof -nP -iTCP:{} -sTCP:LISTEN", base.rsplit(':').next().unwrap_or_default());
    // Who holds the port is not seen, or it is that gateway itself, which expects TLS, or does not.
    let is_earlier = context
        .unreachable_process
        .is_some_and(|earlier| holder.is_none_or(|(process, _)| *process == earlier));
    let other = || holder.map_or(find.clone(), |(process, _)| stop(process));
    Some(match &running.answer {
        Responder::Gateway(_) => Finding::ok(name, format!("a gateway answers at {base}")),
        Responder::Nobody | Responder::Other(_) | Responder::Unclear(_)
            if is_earlier && context.is_blocked =>
        {
            return None;
        }
        Responder::Nobody | Responder::Other(_) | Responder::Unclear(_) if is_earlier => Finding::warn(
            name,
            format!(
                "nothing answers as configured at {base}: process {} runs with the settings before this change",
                context.unreachable_process.unwrap_or_default()
            ),
            format!("gateway check-config, then: {}", context.restart()),
        ),
        // Why it does not run is reported already.
        Responder::Nobody if context.is_blocked => return None,
        Responder::Nobody if context.is_daemon => Finding::fail(
            name,
            format!("nothing listens at {base}"),
            format!(
                "sudo launchctl kickstart system/{LABEL}, then read /var/lib/gateway/logs/gateway.stderr.log"
            ),
        ),
        Responder::Nobody => Finding::fail(
            name,
            format!("nothing listens at {base}: the gateway is not running"),
            "gateway serve",
        ),
        Responder::Unclear(why) if is_gateway => Finding::fail(
            name,
            format!("the gateway at {base} does not answer: {}", escaped(why)),
            context.restart(),
        ),
        Responder::Other(what) | Responder::Unclear(what) => {
            Finding::fail(name, message(&escaped(what)), other())
        }
    })
}

/// A gateway whose certificate is not of this configuration.
pub(in super::super) fn unconfigured_gateway(running: &RunningGateway, context: RunContext<'_>) -> Finding {
    Finding::warn(
        "answers",
        format!("the gateway that answers at {} uses another GATEWAY_DATA_DIR or certificate", running.base),
        format!("gateway check-config, which prints the configured one; to use it: {}", context.restart()),
    )
}

fn version(status: &Value, context: RunContext<'_>) -> Option<Finding> {
    let (name, runs) = ("version", escaped(status["gateway"]["version"].as_str()?));
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
        let message = format!(
            "the last reload was refused, and the configuration before is in force: {}",
            escaped(why)
        );
        return Some(Finding::warn(name, message, format!("correct it, then: {}", context.reload())));
    }
    let loaded = config["loaded_at"].as_f64()?;
    match changed {
        // A second, since the status may tell whole ones.
        Some((at, file)) if *at > loaded + 1.0 => Some(Finding::warn(
            name,
            format!("{file} was changed since the gateway read it"),
            format!("gateway check-config && {}", context.reload()),
        )),
        _ => Some(Finding::ok(name, "the running gateway has read the files as they are")),
    }
}

/// What only the gateway itself knows of its log.
fn log(status: &Value) -> Option<Finding> {
    let warnings = status["gateway"]["warnings"].as_array()?;
    let message =
        warnings.iter().filter_map(Value::as_str).find(|message| message.starts_with("the log file"))?;
    Some(Finding::warn(
        "log",
        escaped(message),
        "make its folder writable for the gateway, or send SIGHUP once it is",
    ))
}

/// What `gateway verify` found, besides what has its own check.
pub(in super::super) fn verify_result(checks: &[(&'static str, CheckResult)], store_fails: bool) -> Finding {
    let name = "answers";
    let counts = |check: &str| check != IMAGES_BACKEND && !(store_fails && check == "readyz");
    let counted: Vec<_> = checks.iter().filter(|(check, _)| counts(check)).collect();
    let failed: Vec<_> = counted
        .iter()
        .filter_map(|(check, outcome)| Some(format!("{check}: {}", outcome.as_ref().err()?)))
        .collect();
    if failed.is_empty() {
        Finding::ok(name, format!("{} checks of `gateway verify` pass", counted.len()))
    } else {
        Finding::fail(name, failed.join("; "), "gateway verify, and read the gateway's log beside it")
    }
}

/// What a gateway elsewhere says of its backends and of itself.
pub(in super::super) fn from_status(status: &Value) -> Vec<Finding> {
    let backends = status["backend_health"].as_object().into_iter().flatten();
    let mut findings: Vec<_> = backends
        .map(|(class, seen)| {
            let class = escaped(class);
            if seen["ready"] == true {
                return Finding::ok("backend", format!("{class} is ready"));
            }
            let why = seen["error"].as_str().unwrap_or("it does not say why");
            Finding::fail(
                "backend",
                format!("{class} is not ready: {}", escaped(why)),
                "gateway doctor, on the gateway's own machine",
            )
        })
        .collect();
    let warnings = status["gateway"]["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let fix = "gateway doctor, on the gateway's own machine";
    findings.extend(warnings.map(|message| Finding::warn("gateway_warning", escaped(message), fix)));
    findings
}

#[cfg(test)]
mod tests;
