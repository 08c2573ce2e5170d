//! What listens at the service's addresses.

use std::net::SocketAddr;

use service::doctor::Finding;

use super::configuration::DoctorContext;
use crate::{
    commands::systemd::{SERVICE, SidecarUnits, parse_listen_addresses},
    port,
};

const NAME: &str = "port";

/// The facts.
pub(super) struct PortFacts {
    pub(super) addresses: Vec<SocketAddr>,
    /// The first address that another program holds.
    conflict: Option<PortConflict>,
    /// systemd or the service listens at them.
    is_bound_by_sidecar: bool,
}

struct PortConflict {
    address: SocketAddr,
    holder: String,
    is_nginx: bool,
    is_engine: bool,
    /// How to free it.
    fix: String,
}

impl PortFacts {
    /// The socket unit's addresses count, if there is one.
    pub(super) fn gather(setup: &DoctorContext) -> Self {
        let units = setup.units.as_ref();
        let socket_addresses = units
            .filter(|units| units.socket.is_loaded())
            .map(|units| parse_listen_addresses(units.socket.get("Listen")));
        let addresses = socket_addresses
            .filter(|addresses| !addresses.is_empty())
            .unwrap_or_else(|| setup.listen.clone());
        // systemd or the service has bound them, so no other program has.
        let is_bound_by_sidecar =
            units.is_some_and(|units| units.socket.is_active() || units.service.is_active());
        let engine = setup.card.sampler.engine_unit.as_str();
        let conflict = if is_bound_by_sidecar {
            None
        } else {
            addresses.iter().find_map(|address| find_conflict(*address, units, engine))
        };
        Self { addresses, conflict, is_bound_by_sidecar }
    }

    /// Whether another program keeps the service from listening.
    pub(super) fn has_conflict(&self) -> bool {
        self.conflict.is_some()
    }

    /// Whether that program is the engine, which so listens at the wrong address.
    pub(super) fn is_taken_by_engine(&self) -> bool {
        self.conflict.as_ref().is_some_and(|conflict| conflict.is_engine)
    }

    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let all: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        match &self.conflict {
            Some(PortConflict { address, holder, is_nginx, fix, .. }) => {
                let fix = if *is_nginx { "sudo ada2-sidecar move-in" } else { fix };
                vec![Finding::fail(NAME, format!("{address} is held by {holder}"), fix)]
            }
            None if self.is_bound_by_sidecar => {
                vec![Finding::ok(NAME, format!("{} belongs to the sidecar", all.join(", ")))]
            }
            // The service's line covers an address that is free.
            None => Vec::new(),
        }
    }
}

fn find_conflict(address: SocketAddr, units: Option<&SidecarUnits>, engine: &str) -> Option<PortConflict> {
    let holder = port::find_holder(address)?;
    let process = holder.process();
    let is_sidecar = |process: &port::Process| {
        process.unit.as_deref() == Some(SERVICE) || units.is_none() && process.name == "ada2-sidecar"
    };
    if process.is_some_and(is_sidecar) {
        return None;
    }
    let port = address.port();
    let restart = "sudo systemctl restart ada2-sidecar";
    let description = holder.describe(address);
    let (holder, fix) = match process {
        // It must run, but at another address.
        Some(port::Process { unit: Some(unit), .. }) if unit == engine => (
            format!("the engine itself, {description}"),
            format!(
                "give the engine another port, name it as engine_url, then sudo systemctl restart {unit} && {restart}"
            ),
        ),
        Some(port::Process { unit: Some(unit), .. }) if unit.ends_with(".service") => {
            (description, format!("sudo systemctl disable --now {unit} && {restart}"))
        }
        Some(port::Process { pid: 1, .. }) => {
            (description, "systemctl list-sockets # then stop the socket unit that has the port".to_owned())
        }
        Some(port::Process { pid, .. }) => (description, format!("sudo kill {pid} && {restart}")),
        None => (description, format!("sudo ss -ltnp 'sport = :{port}' # names it: stop it, then {restart}")),
    };
    let is_nginx = process.is_some_and(|process| process.name == "nginx");
    let is_engine = process.is_some_and(|process| process.unit.as_deref() == Some(engine));
    Some(PortConflict { address, holder, is_nginx, is_engine, fix })
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    #[test]
    fn the_holder_of_the_port_is_named_with_a_fix() {
        let address: SocketAddr = "0.0.0.0:7860".parse().unwrap();
        let facts = |is_bound_by_sidecar, conflict| PortFacts {
            addresses: vec![address],
            conflict,
            is_bound_by_sidecar,
        };
        let conflict = |is_nginx| {
            Some(PortConflict {
                address,
                holder: "x (pid 7)".into(),
                is_nginx,
                is_engine: false,
                fix: "sudo kill 7".into(),
            })
        };
        for (facts, verdict, fix) in [
            (facts(true, None), Some(Verdict::Ok), None),
            (facts(false, None), None, None),
            (facts(false, conflict(true)), Some(Verdict::Fail), Some("sudo ada2-sidecar move-in")),
            (facts(false, conflict(false)), Some(Verdict::Fail), Some("sudo kill 7")),
        ] {
            let findings = facts.evaluate();
            assert_eq!(findings.first().map(|finding| finding.verdict), verdict);
            assert_eq!(findings.first().and_then(|finding| finding.fix.as_deref()), fix);
        }
    }

    #[test]
    fn this_process_is_found_on_its_own_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let conflict = find_conflict(listener.local_addr().unwrap(), None, "invokeai.service").unwrap();
        assert!(
            !conflict.is_nginx && conflict.fix.contains(&std::process::id().to_string())
                || conflict.fix.contains("systemctl")
        );
        assert!(
            port::listening_addresses(listener.local_addr().unwrap().port())
                .contains(&"127.0.0.1".parse().unwrap())
        );
        assert!(
            port::listening_addresses_of(&[std::process::id()]).contains(&listener.local_addr().unwrap())
        );
    }
}
