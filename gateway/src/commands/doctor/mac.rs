//! What a Mac that serves must be set to: not to sleep, to come back after a power cut, to let callers in, to keep the time. What a
//! command prints otherwise than expected is skipped, never judged.

use service::doctor::Finding;

use super::tools::{CommandOutput, SystemTools};

const FIREWALL: &str = "/usr/libexec/ApplicationFirewall/socketfilterfw";

/// What the commands printed.
#[derive(Debug, Clone)]
pub(super) struct MacFacts {
    pmset: CommandOutput,
    filevault: CommandOutput,
    firewall: CommandOutput,
    firewall_blocks_all: CommandOutput,
    firewall_app: CommandOutput,
    network_time: CommandOutput,
    /// The program that the firewall was asked about.
    program: String,
}

/// Asks them.
pub(super) async fn gather(tools: &SystemTools, program: &str) -> MacFacts {
    let of_app = ["--getappblocked", program];
    let (pmset, filevault, firewall, firewall_blocks_all, firewall_app, network_time) = tokio::join!(
        tools.run("pmset", &["-g"]),
        tools.run("fdesetup", &["status"]),
        tools.run("socketfilterfw", &["--getglobalstate"]),
        tools.run("socketfilterfw", &["--getblockall"]),
        tools.run("socketfilterfw", &of_app),
        tools.run("systemsetup", &["-getusingnetworktime"]),
    );
    let program = program.to_owned();
    MacFacts { pmset, filevault, firewall, firewall_blocks_all, firewall_app, network_time, program }
}

/// What follows. `for_others` is whether the gateway listens for other machines.
pub(super) fn findings(printed: &MacFacts, for_others: bool) -> Vec<Finding> {
    let filevault = filevault(&printed.filevault);
    let mut findings = vec![sleep(&printed.pmset)];
    findings.extend(power_restart(&printed.pmset));
    findings.push(filevault);
    if for_others {
        findings.push(firewall(printed));
    }
    findings.push(network_time(&printed.network_time));
    findings
}

fn unclear(name: &'static str, command: &str, ran: &CommandOutput) -> Finding {
    let why = match ran {
        CommandOutput::NotFound => "there is no such command",
        CommandOutput::Failed => "it did not answer in time",
        CommandOutput::Done { .. } => "its answer is not understood",
    };
    Finding::skip(name, format!("`{command}`: {why}"))
}

/// A number that `pmset -g` prints behind a name of one word: ` sleep                1 (sleep prevented by powerd)`.
fn number(pmset: &str, name: &str) -> Option<u32> {
    pmset.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten()
    })
}

fn sleep(ran: &CommandOutput) -> Finding {
    let name = "sleep";
    let Some(text) = ran.text() else { return unclear(name, "pmset -g", ran) };
    match (number(text, "SleepDisabled"), number(text, "sleep")) {
        (Some(1), _) => Finding::ok(name, "the Mac never sleeps (SleepDisabled)"),
        (_, Some(0)) => Finding::ok(name, "the Mac does not go to sleep by itself"),
        (_, Some(minutes)) => Finding::warn(
            name,
            format!("the Mac goes to sleep after {minutes} min without use, and the gateway with it"),
            "sudo pmset -a sleep 0",
        ),
        (_, None) => unclear(name, "pmset -g", ran),
    }
}

/// No line on a Mac that has no such setting, as portable ones.
fn power_restart(ran: &CommandOutput) -> Option<Finding> {
    let name = "power_restart";
    Some(match number(ran.text()?, "autorestart")? {
        0 => Finding::warn(name, "after a power cut the Mac stays off", "sudo pmset -a autorestart 1"),
        _ => Finding::ok(name, "the Mac starts by itself after a power cut"),
    })
}

fn filevault(ran: &CommandOutput) -> Finding {
    let name = "filevault";
    match ran.text() {
        Some(text) if text.contains("FileVault is Off") => {
            Finding::ok(name, "FileVault is off: the Mac starts without a password")
        }
        Some(text) if text.contains("FileVault is On") => Finding::warn(
            name,
            "FileVault is on: after a power cut or restart the gateway starts only once somebody has entered a password",
            "restart by hand with `sudo fdesetup authrestart`; for starts without a person: sudo fdesetup disable",
        ),
        _ => unclear(name, "fdesetup status", ran),
    }
}

fn firewall(printed: &MacFacts) -> Finding {
    let name = "firewall";
    let program = &printed.program;
    let blocks_all = |text: &str| {
        text.contains("(State = 2)")
            || text.contains("block all state set to enabled")
            || text.contains("Block all ENABLED")
    };
    let Some(state) = printed.firewall.text() else {
        return unclear(name, "socketfilterfw --getglobalstate", &printed.firewall);
    };
    if state.contains("(State = 0)") {
        return Finding::ok(name, "the macOS firewall is off");
    }
    if !state.contains("(State = ") {
        return unclear(name, "socketfilterfw --getglobalstate", &printed.firewall);
    }
    if blocks_all(state) || printed.firewall_blocks_all.text().is_some_and(blocks_all) {
        return Finding::fail(
            name,
            "the macOS firewall blocks all incoming connections: no other machine reaches the gateway",
            format!("sudo {FIREWALL} --setblockall off"),
        );
    }
    // An unknown program is an error to some versions.
    let CommandOutput::Done { text, .. } = &printed.firewall_app else {
        return unclear(name, "socketfilterfw --getappblocked", &printed.firewall_app);
    };
    if text.contains("is blocked") {
        Finding::fail(
            name,
            format!("the macOS firewall blocks {program}: no other machine reaches it"),
            format!("sudo {FIREWALL} --unblockapp {program}"),
        )
    } else if text.contains("is permitted") {
        Finding::ok(name, format!("the macOS firewall allows incoming connections to {program}"))
    } else if text.contains("not part of the firewall") {
        Finding::warn(
            name,
            format!("the macOS firewall is on and has no entry for {program}: it may block it silently"),
            format!("sudo {FIREWALL} --add {program} && sudo {FIREWALL} --unblockapp {program}"),
        )
    } else {
        unclear(name, "socketfilterfw --getappblocked", &printed.firewall_app)
    }
}

fn network_time(ran: &CommandOutput) -> Finding {
    let name = "network_time";
    let said = match ran {
        CommandOutput::Done { text, .. } => text.as_str(),
        _ => return unclear(name, "systemsetup -getusingnetworktime", ran),
    };
    if said.contains("Network Time: On") {
        Finding::ok(name, "the clock follows network time")
    } else if said.contains("Network Time: Off") {
        Finding::warn(
            name,
            "network time is off: the clock drifts, and certificate checks depend on it",
            "sudo systemsetup -setusingnetworktime on",
        )
    } else if said.contains("administrator access") {
        Finding::skip(name, "only root can read this: sudo gateway doctor")
    } else {
        unclear(name, "systemsetup -getusingnetworktime", ran)
    }
}

#[cfg(test)]
mod tests;
