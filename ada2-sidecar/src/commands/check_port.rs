//! `ada2-sidecar check-port`: says who listens where the service is to listen. The socket unit runs it before systemd takes
//! its addresses, because systemd itself says only that one is in use.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
};

use service::settings::{EXIT_CONFIG, Problem, SettingSource};

use super::{
    EXIT_FAILURE,
    systemd::{SERVICE, SOCKET, listen_addresses},
};
use crate::{
    config::ListenSettings,
    port::{self, PortHolder, Process, is_active},
};

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
            let unit = listen_addresses(SOCKET).unwrap_or_default();
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
    let socket = is_active(SOCKET) && listen_addresses(SOCKET).is_ok_and(|all| all.iter().any(has_it));
    owning_unit(holder.process(), socket)
}

/// `socket`: the socket unit listens there, so nobody else can.
fn owning_unit(process: Option<&Process>, socket: bool) -> Option<&'static str> {
    match process {
        // The service has the socket too.
        Some(process) if process.unit.as_deref() == Some(SERVICE) => {
            Some(if socket { SOCKET } else { SERVICE })
        }
        Some(process) if process.pid != 1 => None,
        _ => socket.then_some(SOCKET),
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
            (Some(&systemd), true, Some(SOCKET)),
            (Some(&service), true, Some(SOCKET)),
            (None, true, Some(SOCKET)),
            (Some(&service), false, Some(SERVICE)),
            (Some(&systemd), false, None),
            (Some(&nginx), true, None),
            (None, false, None),
        ] {
            assert_eq!(owning_unit(holder, socket), unit, "{holder:?} {socket}");
        }
    }
}
