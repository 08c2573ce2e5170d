//! `ada2-sidecar check-port`: says who listens where the service is to listen. The socket unit runs it before systemd takes
//! its addresses, because systemd itself says only that one is in use.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::{Command, ExitCode},
};

use service::settings::{EXIT_CONFIG, Problem, SettingSource};

use super::EXIT_FAILURE;
use crate::{
    config::ListenSettings,
    port::{self, PortHolder, Process, SOCKET_UNIT, is_active},
};

const SERVICE: &str = "ada2-sidecar.service";

/// Looks where this socket unit listens.
pub(super) fn check_unit(unit: &str) -> io::Result<ExitCode> {
    // Before it listens, nothing of ours is as it should be.
    report_addresses(&listen_addresses(unit)?, |_, _| None)
}

/// Looks where `listen` says. Where nobody has set it, our socket unit's addresses count, if systemd knows that unit.
pub(super) fn check_configured(listen: Result<ListenSettings, Vec<Problem>>) -> io::Result<ExitCode> {
    let (addresses, unread) = match listen {
        Ok(listen) if listen.source == SettingSource::Default => {
            // A host without systemd has no such unit.
            let unit = listen_addresses(SOCKET_UNIT).unwrap_or_default();
            (if unit.is_empty() { listen.addresses } else { unit }, listen.file_problems)
        }
        Ok(listen) => (listen.addresses, listen.file_problems),
        Err(problems) => (Vec::new(), problems),
    };
    for problem in unread {
        writeln!(io::stderr(), "{problem}")?;
    }
    if addresses.is_empty() {
        Ok(ExitCode::from(EXIT_CONFIG))
    } else {
        report_addresses(&addresses, own_unit)
    }
}

/// The unit of ours that has this address, if it is one of them that does.
fn own_unit(address: SocketAddr, holder: &PortHolder) -> Option<&'static str> {
    let has_it = |own: &SocketAddr| port::conflict(*own, address);
    let socket =
        is_active(SOCKET_UNIT) && listen_addresses(SOCKET_UNIT).is_ok_and(|all| all.iter().any(has_it));
    owning_unit(holder.process(), socket)
}

/// `socket`: the socket unit listens there, so nobody else can.
fn owning_unit(process: Option<&Process>, socket: bool) -> Option<&'static str> {
    match process {
        // The service has the socket too.
        Some(process) if process.unit.as_deref() == Some(SERVICE) => {
            Some(if socket { SOCKET_UNIT } else { SERVICE })
        }
        Some(process) if process.pid != 1 => None,
        _ => socket.then_some(SOCKET_UNIT),
    }
}

/// A line for each address that somebody holds. `ours` names the unit where that is as it should be.
fn report_addresses(
    addresses: &[SocketAddr],
    own_unit: impl Fn(SocketAddr, &PortHolder) -> Option<&'static str>,
) -> io::Result<ExitCode> {
    let mut free = true;
    for &address in addresses {
        match port::find_holder(address) {
            Some(holder) => {
                if let Some(unit) = own_unit(address, &holder) {
                    writeln!(io::stdout(), "{address}: held by {unit}, as it should be")?;
                } else {
                    free = false;
                    writeln!(io::stderr(), "{address}: {}", holder.conflict_message(address))?;
                }
            }
            None => writeln!(io::stdout(), "{address}: free")?,
        }
    }
    Ok(if free { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

/// The addresses of a socket unit, as `systemctl show` tells them: `0.0.0.0:7860 (Stream)`, a line each.
pub(super) fn listen_addresses(unit: &str) -> io::Result<Vec<SocketAddr>> {
    let output = Command::new("systemctl").args(["show", "--value", "--property=Listen", unit]).output()?;
    Ok(parse_listen_addresses(&String::from_utf8_lossy(&output.stdout)))
}

/// A bare port is listened on at every address.
pub(super) fn parse_listen_addresses(text: &str) -> Vec<SocketAddr> {
    let address = |word: &str| word.parse().or_else(|_| format!("[::]:{word}").parse()).ok();
    text.split_whitespace().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_as_it_should_be() {
        let process = |pid, name: &str, unit: Option<&str>| Process {
            pid,
            name: name.to_owned(),
            unit: unit.map(str::to_owned),
        };
        let (systemd, service) = (process(1, "systemd", None), process(7, "ada2-sidecar", Some(SERVICE)));
        let nginx = process(8, "nginx", Some("nginx.service"));
        for (holder, socket, unit) in [
            (Some(&systemd), true, Some(SOCKET_UNIT)),
            (Some(&service), true, Some(SOCKET_UNIT)),
            (None, true, Some(SOCKET_UNIT)),
            (Some(&service), false, Some(SERVICE)),
            (Some(&systemd), false, None),
            (Some(&nginx), true, None),
            (None, false, None),
        ] {
            assert_eq!(owning_unit(holder, socket), unit, "{holder:?} {socket}");
        }
    }

    #[test]
    fn a_socket_units_addresses_are_read() {
        let text = "0.0.0.0:7860 (Stream)\n[::]:7861 (Stream) /run/x.sock (Stream)\n";
        let all: Vec<_> = parse_listen_addresses(text).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["0.0.0.0:7860", "[::]:7861"]);
        assert_eq!(parse_listen_addresses(""), []);
    }
}
