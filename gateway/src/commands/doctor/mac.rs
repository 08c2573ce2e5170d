//! How a Mac must be set up to serve: sleep, restart after a power cut, firewall, clock. Unexpected output of a command is
//! skipped, never judged.

use service::doctor::Finding;

use super::tools::{CommandOutput, SystemTools};

const FIREWALL: &str = "/usr/libexec/ApplicationFirewall/socketfilterfw";

/// The commands' output.
#[derive(Debug, Clone)]
pub(super) struct MacFacts {
    pmset: CommandOutput,
    filevault: CommandOutput,
    firewall: CommandOutput,
    firewall_blocks_all: CommandOutput,
    firewall_app: CommandOutput,
    network_time: CommandOutput,
    /// The gateway's program, as the firewall knows it.
    program: String,
}

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

/// `serves_others` is whether the gateway listens for other machines.
pub(super) fn findings(facts: &MacFacts, serves_others: bool) -> Vec<Finding> {
    let mut findings = vec![sleep(&facts.pmset)];
    findings.extend(power_restart(&facts.pmset));
    findings.push(filevault(&facts.filevault));
    if serves_others {
        findings.push(firewall(facts));
    }
    findings.push(network_time(&facts.network_time));
    findings
}

fn unclear(name: &'static str, command: &str, output: &CommandOutput) -> Finding {
    let why = match output {
        CommandOutput::NotFound => "command not found",
        CommandOutput::Failed => "it did not answer in time",
        CommandOutput::Done { .. } => "unexpected output",
    };
    Finding::skip(name, format!("`{command}`: {why}"))
}

/// A number in the output of `pmset -g`: ` sleep                1 (sleep prevented by powerd)`.
fn number(pmset: &str, name: &str) -> Option<u32> {
    pmset.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.next() == Some(name)).then(|| fields.next()?.parse().ok()).flatten()
    })
}

fn sleep(pmset: &CommandOutput) -> Finding {
    let name = "sleep";
    let Some(text) = pmset.text() else { return unclear(name, "pmset -g", pmset) };
    match (number(text, "SleepDisabled"), number(text, "sleep")) {
        (Some(1), _) => Finding::ok(name, "the Mac never sleeps (SleepDisabled)"),
        (_, Some(0)) => Finding::ok(name, "the Mac does not go to sleep by itself"),
        (_, Some(minutes)) => Finding::warn(
            name,
            format!("the Mac goes to sleep after {minutes} min without use, and the gateway with it"),
            "sudo pmset -a sleep 0",
        ),
        (_, None) => unclear(name, "pmset -g", pmset),
    }
}

/// None on a Mac without that setting, such as a portable.
fn power_restart(pmset: &CommandOutput) -> Option<Finding> {
    let name = "power_restart";
    Some(match number(pmset.text()?, "autorestart")? {
        0 => Finding::warn(name, "after a power cut the Mac stays off", "sudo pmset -a autorestart 1"),
        _ => Finding::ok(name, "the Mac starts by itself after a power cut"),
    })
}

fn filevault(output: &CommandOutput) -> Finding {
    let name = "filevault";
    match output.text() {
        Some(text) if text.contains("FileVault is Off") => {
            Finding::ok(name, "FileVault is off: the Mac starts without a password")
        }
        Some(text) if text.contains("FileVault is On") => Finding::warn(
            name,
            "FileVault is on: after a power cut or restart, the gateway starts only once somebody has entered a password",
            "for planned restarts: sudo fdesetup authrestart; for unattended starts: sudo fdesetup disable",
        ),
        _ => unclear(name, "fdesetup status", output),
    }
}

fn firewall(facts: &MacFacts) -> Finding {
    let name = "firewall";
    let program = &facts.program;
    let blocks_all = |text: &str| {
        text.contains("(State = 2)")
            || text.contains("block all state set to enabled")
            || text.contains("Block all ENABLED")
    };
    let Some(state) = facts.firewall.text() else {
        return unclear(name, "socketfilterfw --getglobalstate", &facts.firewall);
    };
    if state.contains("(State = 0)") {
        return Finding::ok(name, "the macOS firewall is off");
    }
    if !state.contains("(State = ") {
        return unclear(name, "socketfilterfw --getglobalstate", &facts.firewall);
    }
    if blocks_all(state) || facts.firewall_blocks_all.text().is_some_and(blocks_all) {
        return Finding::fail(
            name,
            "the macOS firewall blocks all incoming connections: no other machine reaches the gateway",
            format!("sudo {FIREWALL} --setblockall off"),
        );
    }
    // Some versions exit with an error for an unknown program.
    let CommandOutput::Done { text, .. } = &facts.firewall_app else {
        return unclear(name, "socketfilterfw --getappblocked", &facts.firewall_app);
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
        unclear(name, "socketfilterfw --getappblocked", &facts.firewall_app)
    }
}

fn network_time(output: &CommandOutput) -> Finding {
    let name = "network_time";
    let CommandOutput::Done { text, .. } = output else {
        return unclear(name, "systemsetup -getusingnetworktime", output);
    };
    if text.contains("Network Time: On") {
        Finding::ok(name, "the clock follows network time")
    } else if text.contains("Network Time: Off") {
        Finding::warn(
            name,
            "network time is off: the clock drifts, and certificate checks depend on it",
            "sudo systemsetup -setusingnetworktime on",
        )
    } else if text.contains("administrator access") {
        Finding::skip(name, "only root can read this: sudo gateway doctor")
    } else {
        unclear(name, "systemsetup -getusingnetworktime", output)
    }
}

#[cfg(test)]
mod tests;
