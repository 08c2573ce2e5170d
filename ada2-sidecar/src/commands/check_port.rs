//! `ada2-sidecar check-port`: says who listens where the service is to listen. The socket unit runs it before systemd takes
//! its addresses, because systemd itself says only that one is in use.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::{Command, ExitCode},
};

use shared::service::settings::{EXIT_CONFIG, Problem, Source};

use super::EXIT_NO;
use crate::{config::Listen, port};

const SOCKET_UNIT: &str = "ada2-sidecar.socket";

/// Looks where this socket unit listens.
pub(super) fn unit(unit: &str) -> io::Result<ExitCode> {
    check(&addresses_of(unit)?, false)
}

/// Looks where `listen` says. Where nobody has set it, our socket unit's addresses count, if systemd knows that unit.
pub(super) fn configured(listen: Result<Listen, Vec<Problem>>) -> io::Result<ExitCode> {
    let (addresses, unread) = match listen {
        Ok(listen) if listen.source == Source::Default => {
            // A host without systemd has no such unit.
            let unit = addresses_of(SOCKET_UNIT).unwrap_or_default();
            (if unit.is_empty() { listen.addresses } else { unit }, listen.unread)
        }
        Ok(listen) => (listen.addresses, listen.unread),
        Err(problems) => (Vec::new(), problems),
    };
    for problem in unread {
        writeln!(io::stderr(), "{problem}")?;
    }
    if addresses.is_empty() { Ok(ExitCode::from(EXIT_CONFIG)) } else { check(&addresses, is_active()) }
}

/// Whether systemd listens for us now.
fn is_active() -> bool {
    let asked = Command::new("systemctl").args(["is-active", "--quiet", SOCKET_UNIT]).status();
    asked.is_ok_and(|status| status.success())
}

/// A line for each address that somebody holds. `socket_is_active`: what the socket unit holds is as it should be.
fn check(addresses: &[SocketAddr], socket_is_active: bool) -> io::Result<ExitCode> {
    let mut free = true;
    for &address in addresses {
        match port::holder(address) {
            Some(_) if socket_is_active => {
                writeln!(io::stdout(), "{address}: held by {SOCKET_UNIT}, as it should be")?;
            }
            Some(holder) => {
                free = false;
                writeln!(io::stderr(), "{address}: {}", holder.words(address))?;
            }
            None => writeln!(io::stdout(), "{address}: free")?,
        }
    }
    Ok(if free { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NO) })
}

/// The addresses of a socket unit, as `systemctl show` tells them: `0.0.0.0:7860 (Stream)`, a line each.
pub(super) fn addresses_of(unit: &str) -> io::Result<Vec<SocketAddr>> {
    let shown = Command::new("systemctl").args(["show", "--value", "--property=Listen", unit]).output()?;
    Ok(addresses_in(&String::from_utf8_lossy(&shown.stdout)))
}

/// A bare port is listened on at every address.
pub(super) fn addresses_in(text: &str) -> Vec<SocketAddr> {
    let address = |word: &str| word.parse().or_else(|_| format!("[::]:{word}").parse()).ok();
    text.split_whitespace().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_units_addresses_are_read() {
        let text = "0.0.0.0:7860 (Stream)\n[::]:7861 (Stream) /run/x.sock (Stream)\n";
        let all: Vec<_> = addresses_in(text).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["0.0.0.0:7860", "[::]:7861"]);
        assert_eq!(addresses_in(""), []);
    }
}
