use service::doctor::Verdict::{self, Fail, Ok, Skip, Warn};

use super::*;

const MINI: &str = include_str!("../../../../tests/fixtures/macos/pmset-mini.txt");
const SERVER: &str = include_str!("../../../../tests/fixtures/macos/pmset-server.txt");
const BOOK: &str = include_str!("../../../../tests/fixtures/macos/pmset-book.txt");

fn output(text: &str) -> CommandOutput {
    CommandOutput::Done { code: Some(0), text: text.to_owned() }
}

fn is(finding: &Finding, verdict: Verdict, fix: &str) {
    assert_eq!(finding.verdict, verdict, "{finding:?}");
    assert!(finding.fix.as_deref().unwrap_or_default().contains(fix), "{finding:?}");
}

#[test]
fn a_mac_that_sleeps_or_stays_off_is_reported() {
    for (pmset, sleeps, restarts) in [(MINI, Warn, Some(Warn)), (SERVER, Ok, Some(Ok)), (BOOK, Ok, None)] {
        is(&sleep(&output(pmset)), sleeps, if sleeps == Warn { "sudo pmset -a sleep 0" } else { "" });
        assert_eq!(power_restart(&output(pmset)).map(|finding| finding.verdict), restarts);
    }
    for ran in [
        CommandOutput::NotFound,
        CommandOutput::Failed,
        output(""),
        output("displaysleep 1\n Sleep On Power Button 1\n"),
    ] {
        is(&sleep(&ran), Skip, "");
        assert_eq!(power_restart(&ran), None);
    }
}

#[test]
fn filevault_is_reported_if_on() {
    for (text, verdict) in [
        ("FileVault is Off.\n", Ok),
        ("FileVault is On.\n", Warn),
        ("FileVault is On.\nEncryption in progress: Percent completed = 40\n", Warn),
        ("FileVault master keychain appears to be installed.\n", Skip),
        ("", Skip),
    ] {
        assert_eq!(filevault(&output(text)).verdict, verdict, "{text}");
    }
}

#[test]
fn a_blocking_firewall_is_reported() {
    let on = "Firewall is enabled. (State = 1)\n";
    let some = "Firewall has block all state set to disabled.\n";
    for (state, all, app, verdict, fix) in [
        (
            "Firewall is disabled. (State = 0)\n",
            some,
            "The application is not part of the firewall\n",
            Ok,
            "",
        ),
        (on, some, "Incoming connection to /usr/local/bin/gateway is permitted\n", Ok, ""),
        (
            on,
            some,
            "Incoming connection to /usr/local/bin/gateway is blocked\n",
            Fail,
            "--unblockapp /usr/local/bin/gateway",
        ),
        (on, some, "The application is not part of the firewall\n", Warn, "--add /usr/local/bin/gateway"),
        (on, "Firewall has block all state set to enabled.\n", "is permitted", Fail, "--setblockall off"),
        (
            "Firewall is blocking all non-essential incoming connections. (State = 2)\n",
            "",
            "",
            Fail,
            "--setblockall off",
        ),
        (on, some, "what", Skip, ""),
        ("what", some, "is blocked", Skip, ""),
    ] {
        let printed = MacFacts {
            pmset: CommandOutput::NotFound,
            filevault: CommandOutput::NotFound,
            firewall: output(state),
            firewall_blocks_all: output(all),
            firewall_app: CommandOutput::Done { code: Some(1), text: app.to_owned() },
            network_time: CommandOutput::NotFound,
            program: "/usr/local/bin/gateway".to_owned(),
        };
        is(&firewall(&printed), verdict, fix);
        assert!(
            !findings(&printed, false).iter().any(|finding| finding.name == "firewall"),
            "no other machine connects"
        );
    }
}

#[test]
fn only_root_learns_about_network_time() {
    for (text, verdict) in [
        ("Network Time: On\n", Ok),
        ("Network Time: Off\n", Warn),
        ("You need administrator access to run this tool... exiting!\n", Skip),
        ("what", Skip),
    ] {
        assert_eq!(network_time(&output(text)).verdict, verdict, "{text}");
    }
}
