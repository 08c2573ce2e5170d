//! `gateway verify`: what a person would try by hand against a running gateway after a change, pass or fail line by line.

mod checks;
pub(super) mod pictures;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::ArgMatches;
use serde_json::Value;

use super::{
    Environment, Trouble,
    ask::{Reply, Target, ask, shown},
    status, verdict,
};

pub(super) use self::checks::images_backend;

/// In words what was seen, or what is wrong.
pub(super) type Outcome = Result<String, String>;

/// The check that says whether pictures can be made now.
pub(super) const IMAGES_BACKEND: &str = "images backend";

pub(super) fn run(arguments: &ArgMatches, environment: Environment) -> Result<ExitCode, Trouble> {
    let target = Target::find(arguments, environment)?;
    let (generate, overload) = (arguments.get_flag("generate"), arguments.get_flag("overload"));
    ask(async {
        let mut sheet = Sheet { failed: 0, passed: 0 };
        if let Err(why) = target.reach().await {
            // The others would only repeat it.
            sheet.line("health", Err(why))?;
            return sheet.end();
        }
        let status = status::fetch(&target).await.map(|reply| reply.json());
        for (name, outcome) in costless(&target, &status).await {
            sheet.line(name, outcome)?;
        }
        let status = status.unwrap_or_default();
        if generate {
            sheet.line("generate", pictures::generate(&target, &status).await)?;
        }
        if overload {
            sheet.line("overload", pictures::overload(&target, &status).await)?;
        }
        sheet.end()
    })
}

/// The checks that cost nothing, by name.
pub(super) async fn costless(
    target: &Target,
    status: &Result<Value, String>,
) -> Vec<(&'static str, Outcome)> {
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
        ("no images there", checks::no_images_there(target, status).await),
        ("unknown backend", checks::unknown_backend(target).await),
    ]
}

/// The lines so far.
struct Sheet {
    passed: usize,
    failed: usize,
}

impl Sheet {
    fn line(&mut self, name: &str, outcome: Outcome) -> Result<(), Trouble> {
        let (word, words) = match outcome {
            Ok(words) => {
                self.passed += 1;
                ("pass", words)
            }
            Err(words) => {
                self.failed += 1;
                ("FAIL", words)
            }
        };
        Ok(writeln!(io::stdout(), "{word}  {name:15}  {words}")?)
    }

    fn end(self) -> Result<ExitCode, Trouble> {
        writeln!(io::stdout(), "{} passed, {} failed", self.passed, self.failed)?;
        Ok(verdict(self.failed == 0))
    }
}

/// Whether it is what was expected; in words what it is instead.
fn is(what: &str, seen: &str, expected: &str) -> Result<(), String> {
    if seen == expected {
        Ok(())
    } else {
        Err(format!("expected {what} {expected:?}, found \"{}\"", shown(seen)))
    }
}

/// Whether the status is the expected one; else with the answer's own words.
fn status_is(reply: &Reply, expected: u16) -> Result<(), String> {
    let status = reply.status.as_u16();
    if status == expected {
        return Ok(());
    }
    let words = reply.json()["error"]["message"].as_str().map(|words| format!(": {}", shown(words)));
    Err(format!("expected {expected}, found {status}{}", words.unwrap_or_default()))
}

/// Whether it is an error with this code.
fn error_is(reply: &Reply, status: u16, code: &str) -> Result<(), String> {
    status_is(reply, status)?;
    is("code", reply.json()["error"]["code"].as_str().unwrap_or_default(), code)
}

/// The class that pictures come from.
fn images_class(status: &Value) -> Result<&str, String> {
    status["gateway"]["images_class"].as_str().ok_or_else(|| "the status names no images_class".to_owned())
}
