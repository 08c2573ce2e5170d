//! `gateway doctor`: what keeps the gateway from serving, or will, one line each with its fix. It changes nothing, and works while
//! the gateway is down or its configuration broken, and from any account: what that account cannot see is skipped with the command
//! that can.
//!
//! Each module gathers facts concurrently and within a time limit; pure functions turn them into findings. Consequences of a
//! reported problem are not reported again.

mod account;
mod backends;
mod certificate;
mod launchd;
mod local;
mod mac;
mod paths;
mod remote;
mod running;
mod settings;
mod tools;

use std::{path::Path, process::ExitCode};

use clap::ArgMatches;
use serde_json::Value;
use service::{
    doctor::{DoctorReport, Finding, Verdict},
    text::shell_quoted,
};

use super::{
    CommandError, Environment, exit_code,
    target::{GatewayTarget, block_on},
    verify::{self, CheckResult},
};
use crate::config;

/// A running gateway with its status.
type ReachableGateway = (GatewayTarget, Value);

pub(super) fn run(
    arguments: &ArgMatches,
    environment: Environment,
    names: &[String],
) -> Result<ExitCode, CommandError> {
    let mut report = DoctorReport::new(arguments.get_flag("json"));
    let url = arguments.get_one::<String>("url");
    block_on(async {
        let (findings, gateway) = if url.is_some_and(|url| !remote::is_local(url)) {
            remote::examine(GatewayTarget::from_arguments(arguments, environment)?).await
        } else {
            local::examine(&config::inspect(arguments, &environment, names), arguments, environment).await
        };
        findings.into_iter().try_for_each(|finding| report.add(finding))?;
        for check in ["generate", "overload"].into_iter().filter(|check| arguments.get_flag(check)) {
            let finding = run_gpu_check(check, gateway.as_ref(), report.findings()).await;
            report.add(finding)?;
        }
        Ok(())
    })?;
    Ok(exit_code(report.finish()?))
}

/// Runs a check that costs GPU time, unless a finding says that it would fail.
async fn run_gpu_check(
    name: &'static str,
    gateway: Option<&ReachableGateway>,
    findings: &[Finding],
) -> Finding {
    /// Why a backend is not ready.
    const BACKEND_CHECKS: [&str; 3] = ["backend", "backend_address", "local_network"];
    let Some((target, status)) = gateway else {
        return Finding::skip(name, "needs a running gateway that answers");
    };
    let is_backend_down =
        |finding: &Finding| finding.verdict == Verdict::Fail && BACKEND_CHECKS.contains(&finding.name);
    if findings.iter().any(is_backend_down) && verify::images_backend(status).is_err() {
        return Finding::skip(name, "the images backend is not ready, as reported above");
    }
    let result: CheckResult = match name {
        "generate" => verify::images::generate(target, status).await,
        _ => verify::images::overload(target, status).await,
    };
    match result {
        Ok(message) => Finding::ok(name, message),
        Err(why) => Finding::fail(name, why, "gateway status, and the logs of gateway and sidecar"),
    }
}

/// A path for a shell command, or for a message.
fn quoted(path: &Path) -> String {
    shell_quoted(&path.display().to_string()).into_owned()
}
