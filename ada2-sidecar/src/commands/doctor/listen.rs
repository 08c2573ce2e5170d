//! Who listens where the service should.

use std::net::SocketAddr;

use service::doctor::Finding;

use super::{
    configuration::Setup,
    unit::{SERVICE, Units},
};
use crate::{commands::check_port::addresses_in, port};

const NAME: &str = "port";

/// The addresses, and who has them.
pub(super) struct Facts {
    pub(super) addresses: Vec<SocketAddr>,
    /// The first of them that somebody else holds, in words.
    taken: Option<Taken>,
    /// systemd or the service listens there.
    ours: bool,
}

struct Taken {
    address: SocketAddr,
    who: String,
    nginx: bool,
    engine: bool,
    /// How it is stopped.
    stop: String,
}

impl Facts {
    /// The socket unit's addresses count, where there is one.
    pub(super) fn look(setup: &Setup) -> Self {
        let units = setup.units.as_ref();
        let of_socket = units
            .filter(|units| units.socket.is_loaded())
            .map(|units| addresses_in(units.socket.get("Listen")));
        let addresses =
            of_socket.filter(|addresses| !addresses.is_empty()).unwrap_or_else(|| setup.listen.clone());
        // systemd or the service has bound them, so nobody else has.
        let ours = units.is_some_and(|units| units.socket.is_active() || units.service.is_active());
        let engine = setup.card.sampling.engine_unit.as_str();
        let taken =
            if ours { None } else { addresses.iter().find_map(|address| taken(*address, units, engine)) };
        Self { addresses, taken, ours }
    }

    /// Whether somebody else keeps the service from listening.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.is_some()
    }

    /// Whether it is the engine that does, and so is not where it should be.
    pub(super) fn is_taken_by_engine(&self) -> bool {
        self.taken.as_ref().is_some_and(|taken| taken.engine)
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let all: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        match &self.taken {
            Some(Taken { address, who, nginx, stop, .. }) => {
                let message = format!("{address} is held by {who}");
                let fix = if *nginx { "sudo ada2-sidecar move-in" } else { stop };
                vec![Finding::fail(NAME, message, fix)]
            }
            None if self.ours => vec![Finding::ok(NAME, format!("{} is ours", all.join(", ")))],
            // Nobody listens, which is the service's own business.
            None => Vec::new(),
        }
    }
}

fn taken(address: SocketAddr, units: Option<&Units>, engine: &str) -> Option<Taken> {
    let holder = port::holder(address)?;
    let process = holder.process();
    let is_ours = |process: &port::Process| {
        process.unit.as_deref() == Some(SERVICE) || units.is_none() && process.name == "ada2-sidecar"
    };
    if process.is_some_and(is_ours) {
        return None;
    }
    let port = address.port();
    let restart = "sudo systemctl restart ada2-sidecar";
    let (who, stop) = match process {
        // It is needed, and elsewhere.
        Some(port::Process { unit: Some(unit), name, pid }) if unit == engine => (
            format!("the engine itself, {name} (pid {pid}, {unit})"),
            format!(
                "give the engine another port, name it as engine_url, then sudo systemctl restart {unit} && {restart}"
            ),
        ),
        Some(port::Process { unit: Some(unit), name, pid }) if unit.ends_with(".service") => (
            format!("{name} (pid {pid}, {unit})"),
            format!("sudo systemctl disable --now {unit} && {restart}"),
        ),
        Some(port::Process { name, pid: 1, .. }) => (
            format!("a socket unit of systemd ({name})"),
            "systemctl list-sockets, then stop the socket that has it".to_owned(),
        ),
        Some(port::Process { name, pid, .. }) => {
            (format!("{name} (pid {pid})"), format!("sudo kill {pid} && {restart}"))
        }
        None => (
            "a process of another user".to_owned(),
            format!("sudo ss -ltnp 'sport = :{port}' names it; stop it, then {restart}"),
        ),
    };
    let nginx = process.is_some_and(|process| process.name == "nginx");
    let engine = process.is_some_and(|process| process.unit.as_deref() == Some(engine));
    Some(Taken { address, who, nginx, engine, stop })
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    #[test]
    fn whoever_holds_the_port_is_named_with_the_way_out() {
        let address: SocketAddr = "0.0.0.0:7860".parse().unwrap();
        let facts = |ours, taken| Facts { addresses: vec![address], taken, ours };
        let taken = |nginx| {
            Some(Taken { address, who: "x (pid 7)".into(), nginx, engine: false, stop: "sudo kill 7".into() })
        };
        for (facts, verdict, fix) in [
            (facts(true, None), Some(Verdict::Ok), None),
            (facts(false, None), None, None),
            (facts(false, taken(true)), Some(Verdict::Fail), Some("sudo ada2-sidecar move-in")),
            (facts(false, taken(false)), Some(Verdict::Fail), Some("sudo kill 7")),
        ] {
            let found = facts.judge();
            assert_eq!(found.first().map(|finding| finding.verdict), verdict);
            assert_eq!(found.first().and_then(|finding| finding.fix.as_deref()), fix);
        }
    }

    #[test]
    fn this_process_is_found_on_its_own_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = taken(listener.local_addr().unwrap(), None, "invokeai.service").unwrap();
        assert!(
            !found.nginx && found.stop.contains(&std::process::id().to_string())
                || found.stop.contains("systemctl")
        );
        assert!(
            port::listened_at(listener.local_addr().unwrap().port()).contains(&"127.0.0.1".parse().unwrap())
        );
        assert!(port::listeners_of(&[std::process::id()]).contains(&listener.local_addr().unwrap()));
    }
}
