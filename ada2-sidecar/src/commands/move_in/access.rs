//! Who has access: the one thing that only a person knows.

use std::io::{self, IsTerminal, Write};

use ipnet::IpNet;
use service::{client_info::PRIVATE_RANGES, settings::list};

use super::{
    record::Plan,
    reporter::{MoveError, StepReporter},
    settings::{ACCESS_STEP as STEP, CurrentConfig, allow_from},
};

const KEY: &str = "allow_from";
const PRIVATE_ADDRESSES: &str = "loopback, private and 100.64/10 addresses";
const QUESTION: &str = "\nWhich clients may use the engine through this host?\n  \
    1  only the Mac that runs the gateway\n  \
    2  every private address (loopback, private and 100.64/10 ranges)\n";

/// Keeps what is configured. Otherwise `--yes` means every private address, and without it the user is asked.
pub(crate) fn choose_access(
    existing: &CurrentConfig,
    assume_yes: bool,
    plan: &mut Plan,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    if let Some((_, ranges)) = plan.settings.iter().find(|(key, _)| key == KEY) {
        reporter.ok(STEP, ranges);
        return Ok(());
    }
    let current = &existing.config.allow_from;
    let private: Option<Vec<IpNet>> = list(PRIVATE_RANGES, |range| range.parse().ok());
    if Some(current) != private.as_ref() {
        let ranges: Vec<_> = current.iter().map(ToString::to_string).collect();
        let with_loopback = allow_from(&ranges.join(","))?;
        let has_loopback =
            current.iter().any(|range| range.contains(&std::net::IpAddr::from([127, 0, 0, 1])));
        if !has_loopback {
            plan.settings.push((KEY.to_owned(), with_loopback.clone()));
        }
        reporter.ok(
            STEP,
            &format!("{}, as configured", if has_loopback { ranges.join(",") } else { with_loopback }),
        );
        return Ok(());
    }
    if !assume_yes && let Some(ranges) = ask()? {
        reporter.ok(STEP, &ranges);
        plan.settings.push((KEY.to_owned(), ranges));
        return Ok(());
    }
    reporter.ok(STEP, PRIVATE_ADDRESSES);
    Ok(())
}

/// None for every private address.
fn ask() -> Result<Option<String>, MoveError> {
    if !io::stdin().is_terminal() {
        let message = "standard input is not a terminal, so you cannot be asked";
        return Err(MoveError::new(
            STEP,
            message,
            "`sudo ada2-sidecar move-in --allow-from ADDRESS` (the Mac's), or `--yes` (every private address)",
        ));
    }
    let mut out = io::stdout();
    let _ = writeln!(out, "{QUESTION}");
    loop {
        let line = prompt(&mut out, "1 or 2 [2]: ")?;
        match line.as_str() {
            "" | "2" => return Ok(None),
            "1" => break,
            _ => {}
        }
    }
    loop {
        let line = prompt(&mut out, "the Mac's address (on it: `ipconfig getifaddr en0`): ")?;
        match allow_from(&line) {
            Ok(ranges) => return Ok(Some(ranges)),
            Err(error) => {
                let _ = writeln!(out, "{}: {}", error.message, error.fix);
            }
        }
    }
}

fn prompt(out: &mut io::Stdout, question: &str) -> Result<String, MoveError> {
    let mut line = String::new();
    let _ = write!(out, "{question}").and_then(|()| out.flush());
    match io::stdin().read_line(&mut line) {
        Ok(0) | Err(_) => Err(MoveError::new(STEP, "no answer", "run the command again, or with --yes")),
        Ok(_) => Ok(line.trim().to_owned()),
    }
}
