//! Finds the process that listens on an address, as far as the kernel shows it.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use service::subprocess;

use crate::gpu::processes::{innermost_unit_of, name_of};

/// `TCP_LISTEN` in the state column.
const LISTEN: &str = "0A";

const SYSTEMCTL_TIMEOUT: Duration = Duration::from_secs(5);

/// The unit that listens for the service.
pub(crate) const SOCKET_UNIT: &str = "ada2-sidecar.socket";

/// The holder of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortHolder {
    /// The socket's owner.
    uid: u32,
    /// None if we may not read its file descriptors.
    process: Option<Process>,
    /// If the process is unknown: an nginx of the same user.
    nginx: Option<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its name, without control characters.
    pub(crate) name: String,
    /// The innermost systemd unit that it is in.
    pub(crate) unit: Option<String>,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = self.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default();
        write!(f, "{} (pid {}{unit})", self.name, self.pid)
    }
}

impl PortHolder {
    /// Its process, as far as it is known.
    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_ref().or(self.nginx.as_ref())
    }

    /// Whether it is nginx, as far as that is known.
    pub(crate) fn is_nginx(&self) -> bool {
        self.process().is_some_and(|process| process.name == "nginx")
    }

    /// Describes the holder.
    pub(crate) fn describe(&self, address: SocketAddr) -> String {
        let port = address.port();
        match (&self.process, &self.nginx) {
            (Some(process), _) if process.pid == 1 => {
                "a socket unit of systemd (`systemctl list-sockets`)".to_owned()
            }
            (Some(process), _) => process.to_string(),
            (None, nginx) => {
                let uid = if self.uid == 0 { "root".to_owned() } else { format!("user {}", self.uid) };
                let nginx = nginx.as_ref().map(|nginx| format!(", probably {nginx}")).unwrap_or_default();
                format!("a process of {uid}{nginx} (`sudo ss -ltnp 'sport = :{port}'` names it)")
            }
        }
    }

    /// Describes the holder, and the next step.
    pub(crate) fn conflict_message(&self, address: SocketAddr) -> String {
        let (who, port) = (self.describe(address), address.port());
        let step = if self.is_nginx() {
            format!(
                "run `sudo ada2-sidecar move-in` to replace it, or remove `listen {port}` from nginx's site and `sudo systemctl \
                 reload nginx`"
            )
        } else {
            "stop it, or set a different listen address".to_owned()
        };
        format!("the port is held by {who}: {step}, then `sudo systemctl restart ada2-sidecar`")
    }
}

/// The holder of this address, or of all addresses of its port. Always None if this is not Linux.
pub(crate) fn find_holder(address: SocketAddr) -> Option<PortHolder> {
    let socket = tables().iter().find_map(|table| listening(table, address))?;
    let process = process_with(&socket.fd_target());
    let nginx = process.is_none().then(|| nginx_of(socket.uid)).flatten();
    // With that unit active, a socket of root is more likely systemd's.
    let nginx = nginx.filter(|_| !is_active(SOCKET_UNIT));
    Some(PortHolder { uid: socket.uid, process, nginx })
}

/// Whether this systemd unit is active.
pub(crate) fn is_active(unit: &str) -> bool {
    subprocess::run("systemctl", &["is-active", "--quiet", unit], SYSTEMCTL_TIMEOUT)
        .is_ok_and(|output| output.success())
}

/// Whether listening on one of them prevents listening on the other.
pub(crate) fn conflict(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && is_same_ip
}

/// All addresses on which this port is open.
pub(crate) fn listening_addresses(port: u16) -> Vec<IpAddr> {
    let all = tables();
    let all = all.iter().flat_map(|table| listening_sockets(table));
    all.filter(|(address, _)| address.port() == port).map(|(address, _)| address.ip()).collect()
}

/// Where these processes listen, as far as we may read their file descriptors.
pub(crate) fn listening_addresses_of(pids: &[u32]) -> Vec<SocketAddr> {
    let open: BTreeSet<String> = pids.iter().flat_map(|pid| open_files(*pid)).collect();
    let all = tables();
    let all = all.iter().flat_map(|table| listening_sockets(table));
    all.filter(|(_, socket)| open.contains(&socket.fd_target())).map(|(address, _)| address).collect()
}

/// The kernel's tables of TCP sockets.
fn tables() -> [String; 2] {
    ["tcp", "tcp6"].map(|name| fs::read_to_string(Path::new("/proc/net").join(name)).unwrap_or_default())
}

#[derive(Debug, PartialEq, Eq)]
struct ListeningSocket {
    uid: u32,
    inode: u64,
}

impl ListeningSocket {
    /// Its link in `/proc/PID/fd`.
    fn fd_target(&self) -> String {
        format!("socket:[{}]", self.inode)
    }
}

/// The socket in a table of `/proc/net` that conflicts with this address.
fn listening(table: &str, address: SocketAddr) -> Option<ListeningSocket> {
    listening_sockets(table).find(|(other, _)| conflict(*other, address)).map(|(_, socket)| socket)
}

/// All listening sockets in a table of `/proc/net`.
fn listening_sockets(table: &str) -> impl Iterator<Item = (SocketAddr, ListeningSocket)> {
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, uid, _, inode, ..] = fields[..] else { return None };
        let (ip, port) = parse_address(local)?;
        let socket = ListeningSocket { uid: uid.parse().ok()?, inode: inode.parse().ok()? };
        (state == LISTEN).then_some((SocketAddr::new(ip, port), socket))
    })
}

/// `0100007F:1EB4`: 32-bit words in native byte order, then the port.
fn parse_address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = if ip.len() == 8 {
        IpAddr::from(Ipv4Addr::from(word(0)?))
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?))
    };
    Some((ip.to_canonical(), port))
}

/// The first process that has this file open: the master, because it is older than its workers.
fn process_with(file: &str) -> Option<Process> {
    pids().into_iter().find(|pid| open_files(*pid).any(|open| open == file)).map(process)
}

/// The open files of a process; none if we may not read them.
fn open_files(pid: u32) -> impl Iterator<Item = String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
}

fn nginx_of(uid: u32) -> Option<Process> {
    let is_owned = |pid: &u32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|dir| dir.uid() == uid);
    pids().into_iter().filter(is_owned).map(process).find(|process| process.name == "nginx")
}

fn process(pid: u32) -> Process {
    let proc = Path::new("/proc");
    Process { pid, name: name_of(pid, proc), unit: innermost_unit_of(pid, proc) }
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        \x20  0: 0100007F:1EB4 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4711 1 0 100 0 0 10 0\n\
        \x20  1: 00000000:1EB5 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
        \x20  2: 0100007F:1EB6 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";

    #[cfg(target_endian = "little")]
    #[test]
    fn only_conflicting_listeners_are_found() {
        let find = |address: &str| listening(TABLE, address.parse().unwrap()).map(|socket| socket.inode);
        for (address, inode) in [
            ("127.0.0.1:7860", Some(4711)),
            ("0.0.0.0:7860", Some(4711)),
            ("192.168.1.7:7860", None),
            ("192.168.1.7:7861", Some(4712)),
            ("127.0.0.1:7862", None),
            ("127.0.0.1:7863", None),
        ] {
            assert_eq!(find(address), inode, "{address}");
        }
        assert_eq!(
            listening(TABLE, "[::]:7861".parse().unwrap()),
            Some(ListeningSocket { uid: 0, inode: 4712 })
        );
        let (ip, port) = parse_address("00000000000000000000000001000000:1EB4").unwrap();
        assert_eq!((ip.to_string().as_str(), port), ("::1", 7860));
    }

    #[test]
    fn every_holder_gets_a_next_step() {
        let process = |pid, name: &str, unit: Option<&str>| {
            Some(Process { pid, name: name.to_owned(), unit: unit.map(str::to_owned) })
        };
        let nginx = || process(812, "nginx", Some("nginx.service"));
        for (uid, process, nginx, expected) in [
            (
                0,
                nginx(),
                None,
                "held by nginx (pid 812, nginx.service): run `sudo ada2-sidecar move-in` to replace it",
            ),
            (0, None, nginx(), "a process of root, probably nginx (pid 812, nginx.service) (`sudo ss"),
            (33, None, None, "a process of user 33 (`sudo ss -ltnp 'sport = :7860'` names it): stop it"),
            (0, process(1, "systemd", None), None, "a socket unit of systemd"),
            (
                7,
                process(9, "python3", None),
                None,
                "held by python3 (pid 9): stop it, or set a different listen address, then",
            ),
        ] {
            let message =
                PortHolder { uid, process, nginx }.conflict_message("0.0.0.0:7860".parse().unwrap());
            assert!(message.contains(expected), "{message}");
        }
    }
}
