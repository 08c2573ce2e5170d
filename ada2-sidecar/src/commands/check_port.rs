//! `ada2-sidecar check-port`: says what listens at the service's addresses. The socket unit runs it before systemd binds
//! them, because systemd itself says only that an address is in use.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
};

use service::settings::{EXIT_CONFIG, Problem, SettingSource};

use super::{
    exit_code,
    systemd::{SERVICE, SOCKET, listen_addresses},
};
use crate::{
    config::ListenSettings,
    port::{self, PortHolder, Process, is_active},
};

/// Checks the addresses of this socket unit.
pub(super) fn check_unit(unit: &str) -> io::Result<ExitCode> {
    // Before the socket unit has bound them, no holder is the right one.
    report_addresses(&listen_addresses(unit)?, |_, _| None)
}

/// Checks the addresses of `listen`. If that is not set, the sidecar's socket unit counts, if systemd knows it.
pub(super) fn check_configured(listen: Result<ListenSettings, Vec<Problem>>) -> io::Result<ExitCode> {
    let (addresses, problems) = match listen {
        Ok(listen) if listen.source == SettingSource::Default => {
            // A host without systemd has no such unit.
            let addresses = listen_addresses(SOCKET).unwrap_or_default();
            (if addresses.is_empty() { listen.addresses } else { addresses }, listen.file_problems)
        }
        Ok(listen) => (listen.addresses, listen.file_problems),
        Err(problems) => (Vec::new(), problems),
    };
    for problem in problems {
        writeln!(io::stderr(), "{problem}")?;
    }
    if addresses.is_empty() {
        Ok(ExitCode::from(EXIT_CONFIG))
    } else {
        report_addresses(&addresses, own_unit)
    }
}

/// The sidecar's unit that holds this address, if one does.
fn own_unit(address: SocketAddr, holder: &PortHolder) -> Option<&'static str> {
    let conflicts = |own: &SocketAddr| port::conflict(*own, address);
    let socket_listens =
        is_active(SOCKET) && listen_addresses(SOCKET).is_ok_and(|all| all.iter().any(conflicts));
    owning_unit(holder.process(), socket_listens)
}

/// `socket_listens`: the socket unit has the address, so no other program can.
fn owning_unit(process: Option<&Process>, socket_listens: bool) -> Option<&'static str> {
    match process {
        // The service inherits the socket.
        Some(process) if process.unit.as_deref() == Some(SERVICE) => {
            Some(if socket_listens { SOCKET } else { SERVICE })
        }
        Some(process) if process.pid != 1 => None,
        _ => socket_listens.then_some(SOCKET),
    }
}

/// One line for each address. `own_unit` names the unit of a holder that may have it.
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
    Ok(exit_code(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sidecars_units_may_hold_its_addresses() {
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
