//! `gateway verify`: what a person would try by hand against a running gateway after a change, pass or fail line by line.

mod checks;
pub(super) mod images;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::ArgMatches;
use serde_json::Value;

use super::{
    CommandError, Environment, exit_code, status,
    target::{GatewayTarget, Reply, block_on, escaped},
};

pub(super) use self::checks::images_backend;

/// In words what was seen, or what is wrong.
pub(super) type CheckResult = Result<String, String>;

/// The check that says whether pictures can be made now.
pub(super) const IMAGES_BACKEND: &str = "images backend";

pub(super) fn run(arguments: &ArgMatches, environment: Environment) -> Result<ExitCode, CommandError> {
    let target = GatewayTarget::from_arguments(arguments, environment)?;
    let (generate, overload) = (arguments.get_flag("generate"), arguments.get_flag("overload"));
    block_on(async {
        let mut sheet = CheckSummary { failed: 0, passed: 0 };
        if let Err(why) = target.check_reachable().await {
            // The others would only repeat it.
            sheet.line("health", Err(why))?;
            return sheet.end();
        }
        let status = status::fetch(&target).await.map(|reply| reply.json());
        for (name, outcome) in run_free_checks(&target, &status).await {
            sheet.line(name, outcome)?;
        }
        let status = status.unwrap_or_default();
        if generate {
            sheet.line("generate", images::generate(&target, &status).await)?;
        }
        if overload {
            sheet.line("overload", images::overload(&target, &status).await)?;
        }
        sheet.end()
    })
}

/// The checks that cost nothing, by name.
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

/// The lines so far.
struct CheckSummary {
    passed: usize,
    failed: usize,
}

impl CheckSummary {
    fn line(&mut self, name: &str, outcome: CheckResult) -> Result<(), CommandError> {
        let (word, message) = match outcome {
            Ok(message) => {
                self.passed += 1;
                ("pass", message)
            }
            Err(message) => {
                self.failed += 1;
                ("FAIL", message)
            }
        };
        Ok(writeln!(io::stdout(), "{word}  {name:15}  {message}")?)
    }

    fn end(self) -> Result<ExitCode, CommandError> {
        writeln!(io::stdout(), "{} passed, {} failed", self.passed, self.failed)?;
        Ok(exit_code(self.failed == 0))
    }
}

/// Whether it is what was expected; in words what it is instead.
fn expect_equal(what: &str, seen: &str, expected: &str) -> Result<(), String> {
    if seen == expected {
        Ok(())
    } else {
        Err(format!("expected {what} {expected:?}, found \"{}\"", escaped(seen)))
    }
}

/// Whether the status is the expected one; else with the answer's own words.
fn expect_status(reply: &Reply, expected: u16) -> Result<(), String> {
    let status = reply.status.as_u16();
    if status == expected {
        return Ok(());
    }
    let message = reply.json()["error"]["message"].as_str().map(|words| format!(": {}", escaped(words)));
    Err(format!("expected {expected}, found {status}{}", message.unwrap_or_default()))
}

/// Whether it is an error with this code.
fn expect_error(reply: &Reply, status: u16, code: &str) -> Result<(), String> {
    expect_status(reply, status)?;
    expect_equal("code", reply.json()["error"]["code"].as_str().unwrap_or_default(), code)
}

/// The class that pictures come from.
fn images_class(status: &Value) -> Result<&str, String> {
    status["gateway"]["images_class"].as_str().ok_or_else(|| "the status names no images_class".to_owned())
}
