//! The names by which clients find this host, and its firewall.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::Path,
    time::Duration,
};

use service::{doctor::Finding, subprocess::with_timeout};

use super::run_tool;
use crate::commands::systemd::SystemdUnit;

/// A resolver may wait for a server that is down.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const UFW: &str = "/etc/ufw/ufw.conf";

/// The facts.
struct HostNames {
    host: String,
    /// None if the resolver does not answer in time; empty if the name cannot be resolved.
    addresses: Option<Vec<IpAddr>>,
    local_addresses: BTreeSet<IpAddr>,
    /// The name that avahi announces, if it runs: `ada2.local`.
    mdns_name: Option<String>,
}

/// The host's own name.
pub(super) fn host_names() -> Option<Finding> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned();
    let names = HostNames {
        addresses: resolve(&host),
        local_addresses: local_addresses(),
        mdns_name: mdns_name(),
        host,
    };
    Some(names.evaluate())
}

impl HostNames {
    fn evaluate(&self) -> Finding {
        const NAME: &str = "names";
        let host = &self.host;
        let Some(addresses) = &self.addresses else {
            return Finding::skip(
                NAME,
                format!("resolving {host} took longer than {} s", RESOLVE_TIMEOUT.as_secs()),
            );
        };
        if addresses.is_empty() {
            let fix = format!("echo '127.0.1.1 {host}' | sudo tee -a /etc/hosts");
            return Finding::warn(NAME, format!("this host's own name {host} cannot be resolved here"), fix);
        }
        let is_own = |ip: &&IpAddr| ip.is_loopback() || self.local_addresses.contains(ip);
        if !self.local_addresses.is_empty() && addresses.iter().all(|ip| !is_own(&ip)) {
            let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            let message = format!(
                "{host} resolves to {}, which is not an address of this host: clients may reach another host",
                all.join(", ")
            );
            return Finding::warn(
                NAME,
                message,
                "getent hosts \"$(hostname)\" # then correct it in /etc/hosts or in the router",
            );
        }
        match &self.mdns_name {
            Some(name) if *name != format!("{host}.local") => {
                let message = format!(
                    "it is announced as {name}, because another host on the network is named {host}.local"
                );
                Finding::warn(
                    NAME,
                    message,
                    "sudo systemctl restart avahi-daemon # once the other host has another name",
                )
            }
            Some(name) => Finding::ok(
                NAME,
                format!("{host} resolves to this host, and {name} is announced on the network"),
            ),
            None => Finding::ok(
                NAME,
                format!("{host} resolves to this host; {host}.local is not announced (avahi-daemon would)"),
            ),
        }
    }
}

fn resolve(host: &str) -> Option<Vec<IpAddr>> {
    let host = host.to_owned();
    with_timeout(RESOLVE_TIMEOUT, move || {
        let addresses = (host.as_str(), 0).to_socket_addrs();
        addresses.map_or_else(|_| Vec::new(), |all| all.map(|address| address.ip()).collect())
    })
}

fn local_addresses() -> BTreeSet<IpAddr> {
    let output = run_tool("ip", &["-o", "addr", "show"]).map(|output| output.stdout).unwrap_or_default();
    let address = |line: &str| {
        let mut fields = line.split_whitespace().skip_while(|word| !matches!(*word, "inet" | "inet6"));
        fields.nth(1)?.split('/').next()?.parse().ok()
    };
    output.lines().filter_map(address).collect()
}

/// avahi puts it into its process title: `avahi-daemon: running [ada2.local]`.
fn mdns_name() -> Option<String> {
    let unit = SystemdUnit::query("avahi-daemon.service").filter(SystemdUnit::is_active)?;
    let title = fs::read_to_string(Path::new("/proc").join(unit.get("MainPID")).join("cmdline")).ok()?;
    parse_mdns_name(&title)
}

fn parse_mdns_name(title: &str) -> Option<String> {
    let (_, rest) = title.split_once("running [")?;
    rest.split(']').next().map(str::to_owned)
}

/// Whether ufw admits clients; none if it is off or not installed.
pub(super) fn firewall(addresses: &[SocketAddr], root: bool) -> Option<Finding> {
    const NAME: &str = "firewall";
    let port = addresses.iter().find(|address| !address.ip().is_loopback())?.port();
    let is_enabled = fs::read_to_string(UFW).ok()?.lines().any(|line| line.trim() == "ENABLED=yes");
    if !is_enabled {
        return None;
    }
    if !root {
        return Some(Finding::skip(NAME, "ufw is on: run with sudo to check its rules"));
    }
    evaluate_firewall(&run_tool("ufw", &["status", "verbose"])?.stdout, port)
}

fn evaluate_firewall(status: &str, port: u16) -> Option<Finding> {
    const NAME: &str = "firewall";
    if !status.lines().any(|line| line == "Status: active")
        || !status.contains("deny (incoming)") && !status.contains("reject (incoming)")
    {
        return None;
    }
    let rules: Vec<_> =
        status.lines().filter(|line| line.contains("ALLOW") || line.contains("LIMIT")).collect();
    // A rule that names an application may cover any port, so it gives no warning.
    let covers_port = |line: &&&str| {
        let target = line.split_whitespace().next().unwrap_or_default();
        let ports = target.split('/').next().unwrap_or_default();
        let has_port = |part: &str| match part.split_once(':') {
            Some((low, high)) => {
                low.parse().is_ok_and(|low: u16| low <= port)
                    && high.parse().is_ok_and(|high: u16| port <= high)
            }
            None => part.parse() == Ok(port),
        };
        let only_digits = !ports.is_empty() && ports.chars().all(|c| c.is_ascii_digit() || ":,".contains(c));
        // A rule for an address covers all ports.
        !only_digits
            || ports.split(',').any(has_port)
            || line.split_whitespace().any(|word| word == port.to_string())
    };
    match rules.iter().find(covers_port) {
        Some(_) => Some(Finding::ok(NAME, format!("ufw has a rule for port {port}"))),
        None => Some(Finding::fail(
            NAME,
            format!("ufw is on and has no rule for port {port}"),
            format!(
                "sudo ufw allow from 192.168.0.0/16 to any port {port} proto tcp # your own network's range"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    #[test]
    fn the_hosts_name_must_resolve_to_this_host() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let judge = |addresses: Option<Vec<IpAddr>>, mdns_name: Option<&str>| {
            let local_addresses = BTreeSet::from([ip("127.0.0.1"), ip("192.168.1.5")]);
            HostNames {
                host: "ada2".into(),
                addresses,
                local_addresses,
                mdns_name: mdns_name.map(str::to_owned),
            }
            .evaluate()
        };
        for (addresses, mdns_name, verdict, expected) in [
            (Some(vec![ip("127.0.1.1")]), None, Verdict::Ok, "ada2.local is not announced"),
            (Some(vec![ip("192.168.1.5")]), Some("ada2.local"), Verdict::Ok, "ada2.local is announced"),
            (Some(vec![ip("127.0.1.1")]), Some("ada2-2.local"), Verdict::Warn, "announced as ada2-2.local"),
            (Some(vec![ip("192.168.1.9")]), None, Verdict::Warn, "not an address of this host"),
            (Some(vec![]), None, Verdict::Warn, "cannot be resolved"),
            (None, None, Verdict::Skip, "took longer than"),
        ] {
            let finding = judge(addresses, mdns_name);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(expected), "{finding:?}");
        }
        assert_eq!(parse_mdns_name("avahi-daemon: running [ada2.local]").as_deref(), Some("ada2.local"));
        assert!(local_addresses().is_empty() || local_addresses().iter().any(IpAddr::is_loopback));
    }

    #[test]
    fn only_a_firewall_that_certainly_blocks_the_port_is_reported() {
        let status = |rules: &str| {
            format!(
                "Status: active\nLogging: on (low)\nDefault: deny (incoming), allow (outgoing)\n\nTo  Action  From\n{rules}"
            )
        };
        for (status, verdict) in [
            (status("22/tcp                     ALLOW IN    Anywhere\n"), Some(Verdict::Fail)),
            (
                status(
                    "22/tcp                     ALLOW IN    Anywhere\n7860/tcp   ALLOW IN    192.168.0.0/16\n",
                ),
                Some(Verdict::Ok),
            ),
            (status("7000:8000/tcp              ALLOW IN    Anywhere\n"), Some(Verdict::Ok)),
            (status("80,7860/tcp                ALLOW IN    Anywhere\n"), Some(Verdict::Ok)),
            (status("Anywhere                   ALLOW IN    192.168.0.0/16\n"), Some(Verdict::Ok)),
            (status("Ada2                       ALLOW IN    Anywhere\n"), Some(Verdict::Ok)),
            (status("192.168.1.5 7860/tcp       ALLOW IN    Anywhere\n"), Some(Verdict::Ok)),
            (status("").replace("deny (incoming)", "allow (incoming)"), None),
            ("Status: inactive\n".to_owned(), None),
        ] {
            assert_eq!(evaluate_firewall(&status, 7860).map(|found| found.verdict), verdict, "{status}");
        }
    }
}
