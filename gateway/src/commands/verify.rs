//! `gateway verify`: checks of a running gateway after a change, one line each.

mod checks;
pub(super) mod images;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::ArgMatches;
use serde_json::Value;
use service::text::{ellipsize, printable};

use super::{
    CommandError, Environment, exit_code, status,
    target::{GatewayTarget, Reply, block_on},
};

pub(super) use self::checks::images_backend;

/// The observation or the failure. May contain foreign text: printing escapes it.
pub(super) type CheckResult = Result<String, String>;

/// Characters of foreign text in a message.
const MAX_CHARS: usize = 300;
const MAX_LINE_CHARS: usize = 600;

/// The check whether images can be made now.
pub(super) const IMAGES_BACKEND: &str = "images backend";

pub(super) fn run(arguments: &ArgMatches, environment: Environment) -> Result<ExitCode, CommandError> {
    let target = GatewayTarget::from_arguments(arguments, environment)?;
    let (generate, overload) = (arguments.get_flag("generate"), arguments.get_flag("overload"));
    block_on(async {
        let mut summary = CheckSummary { failed: 0, passed: 0 };
        if let Err(why) = target.check_reachable().await {
            // The other checks would only repeat it.
            summary.add("health", Err(why))?;
            return summary.finish();
        }
        let status = status::fetch(&target).await.map(|reply| reply.json());
        for (name, result) in run_free_checks(&target, &status).await {
            summary.add(name, result)?;
        }
        let status = status.unwrap_or_default();
        if generate {
            summary.add("generate", images::generate(&target, &status).await)?;
        }
        if overload {
            summary.add("overload", images::overload(&target, &status).await)?;
        }
        summary.finish()
    })
}

/// The checks that need no GPU time, by name.
pub(super) async fn run_free_checks(
    target: &GatewayTarget,
    status: &Result<Value, String>,
) -> Vec<(&'static str, CheckResult)> {
    let keys = status.as_ref().map_err(Clone::clone).and_then(checks::status_keys);
    let none = Value::Null;
    let status = status.as_ref().unwrap_or(&none);
    vec![
        ("health", checks::health(target).await),
        ("readyz", checks::readyz(target).await),
        ("no token", checks::without_token(target).await),
        ("wrong token", checks::wrong_token(target).await),
        ("models", checks::models(target).await),
        ("status", keys),
        (IMAGES_BACKEND, checks::images_backend(status)),
        ("no images there", checks::other_backend_refuses_images(target, status).await),
        ("unknown backend", checks::unknown_backend(target).await),
    ]
}

/// Prints results and counts them.
struct CheckSummary {
    passed: usize,
    failed: usize,
}

impl CheckSummary {
    fn add(&mut self, name: &str, result: CheckResult) -> Result<(), CommandError> {
        let (label, message) = match result {
            Ok(message) => {
                self.passed += 1;
                ("pass", message)
            }
            Err(message) => {
                self.failed += 1;
                ("FAIL", message)
            }
        };
        let message = printable(&ellipsize(&message, MAX_LINE_CHARS));
        Ok(writeln!(io::stdout(), "{label}  {name:15}  {message}")?)
    }

    fn finish(self) -> Result<ExitCode, CommandError> {
        writeln!(io::stdout(), "{} passed, {} failed", self.passed, self.failed)?;
        Ok(exit_code(self.failed == 0))
    }
}

fn expect_equal(what: &str, found: &str, expected: &str) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("expected {what} {expected:?}, found \"{}\"", ellipsize(found, MAX_CHARS)))
    }
}

/// An error contains the answer's own message.
fn expect_status(reply: &Reply, expected: u16) -> Result<(), String> {
    let status = reply.status.as_u16();
    if status == expected {
        return Ok(());
    }
    let body = reply.json();
    let message = body["error"]["message"].as_str().map(|text| format!(": {}", ellipsize(text, MAX_CHARS)));
    Err(format!("expected {expected}, found {status}{}", message.unwrap_or_default()))
}

fn expect_error(reply: &Reply, status: u16, code: &str) -> Result<(), String> {
    expect_status(reply, status)?;
    expect_equal("code", reply.json()["error"]["code"].as_str().unwrap_or_default(), code)
}

/// The class that makes images.
fn images_class(status: &Value) -> Result<&str, String> {
    status["gateway"]["images_class"].as_str().ok_or_else(|| "the status names no images_class".to_owned())
}
