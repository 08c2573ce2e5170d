//! The administration socket: a Unix socket in the runtime or state directory, never the TCP port. A connection carries one
//! request and one response, each a line of JSON.

use std::{
    fs,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use service::{
    lifecycle::Lifecycle,
    reload::ReloadHandle,
    settings::{SettingSource, Settings},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tracing::{debug, warn};

use crate::instance::Instance;

const SOCKET: &str = "admin.sock";
/// `RuntimeDirectory=` of the unit.
const DEFAULT_RUNTIME_DIR: &str = "/run/ada2-sidecar";
/// Connections at once; more are closed.
const MAX_CONNECTIONS: usize = 16;
/// For reading the request, and for writing the response.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// For a reload, which reads files: a disk can hang.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_REQUEST_BYTES: u64 = 256;
const MAX_RESPONSE_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AdminRequest {
    /// Returns where the service listens. For every user.
    Addresses,
    /// Reloads the configuration. For root and the service's own user.
    Reload,
}

impl AdminRequest {
    fn timeout(self) -> Duration {
        match self {
            Self::Addresses => LINE_TIMEOUT,
            Self::Reload => RELOAD_TIMEOUT,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdminResponse {
    pub(crate) done: bool,
    /// The result, or every problem.
    pub(crate) lines: Vec<String>,
}

impl AdminResponse {
    fn error(message: &str) -> Self {
        Self { done: false, lines: vec![message.to_owned()] }
    }
}

/// Where the socket is created and looked for.
#[derive(Debug, Clone, Default)]
pub struct AdminPaths {
    /// The service manager's directory for this process, removed when it stops.
    pub runtime_dir: Option<PathBuf>,
    /// Where a running service's socket may be, the likeliest first.
    pub sockets: Vec<PathBuf>,
}

impl AdminPaths {
    /// A state directory from the command line or the environment identifies the service. One from the file only goes before
    /// the default runtime directory, where a unit with that file has its socket.
    pub(crate) fn find(settings: &Settings, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let list = environment("RUNTIME_DIRECTORY").unwrap_or_default();
        let runtime_dir = list.split(':').next().filter(|directory| !directory.is_empty()).map(PathBuf::from);
        let is_named =
            matches!(settings.source("state_dir"), SettingSource::Flag(_) | SettingSource::Environment(_));
        let default = (!is_named).then(|| PathBuf::from(DEFAULT_RUNTIME_DIR));
        let (systemd, home) = (environment("STATE_DIRECTORY"), environment("HOME"));
        let state = Instance::candidates(settings, systemd.as_deref(), home.as_deref());
        let mut directories: Vec<_> = default.into_iter().chain(state).collect();
        if matches!(settings.source("state_dir"), SettingSource::File(_)) {
            directories.rotate_left(1);
        }
        let directories = runtime_dir.iter().chain(&directories);
        let sockets = directories.map(|directory| directory.join(SOCKET)).collect();
        Self { runtime_dir, sockets }
    }
}

/// Asks the first of the sockets that a process listens on; none if there is no such socket.
pub(crate) fn send_request(sockets: &[PathBuf], request: AdminRequest) -> io::Result<Option<AdminResponse>> {
    for socket in sockets {
        match std::os::unix::net::UnixStream::connect(socket) {
            Ok(stream) => return exchange(stream, request).map(Some),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            // The socket of another user's service.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                debug!(%error, ?socket, "skipping an administration socket that this user may not open");
            }
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", socket.display()))),
        }
    }
    Ok(None)
}

fn exchange(mut stream: std::os::unix::net::UnixStream, request: AdminRequest) -> io::Result<AdminResponse> {
    stream.set_write_timeout(Some(LINE_TIMEOUT))?;
    // Longer than the service's own timeout, which has an error message.
    stream.set_read_timeout(Some(request.timeout() + LINE_TIMEOUT))?;
    writeln!(stream, "{}", serde_json::to_string(&request)?)?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_RESPONSE_BYTES)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "the sidecar closed the connection without a response",
        ));
    }
    Ok(serde_json::from_str(&line)?)
}

/// Creates the socket and answers requests. Without the socket everything else works, and SIGHUP still reloads.
pub(crate) fn start(
    directory: &Path,
    addresses: Vec<SocketAddr>,
    reloads: ReloadHandle,
    lifecycle: &Lifecycle,
) {
    let path = directory.join(SOCKET);
    let (listener, owner) = match bind_socket(&path) {
        Ok(bound) => bound,
        Err(error) => {
            let path = path.display();
            return warn!(%error, "cannot create the administration socket {path}; to reload, use `systemctl kill -s HUP ada2-sidecar`");
        }
    };
    let handler = Arc::new(AdminHandler { addresses, reloads, owner, lifecycle: lifecycle.clone() });
    let task_lifecycle = lifecycle.clone();
    lifecycle.spawn_worker("administration", async move {
        let _remove_on_drop = RemoveOnDrop(path);
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept administration requests; trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = connections.clone().try_acquire_owned() else { continue };
            let handler = handler.clone();
            task_lifecycle.spawn_background("administration request", async move {
                let _permit = permit;
                if let Err(error) = handler.handle_connection(stream).await {
                    debug!(%error, "an administration request failed");
                }
            });
        }
    });
}

/// Returns the socket, open to every user, and its owner's user id. Replaces the socket of an earlier process, because no
/// other process uses the directory.
fn bind_socket(path: &Path) -> io::Result<(UnixListener, u32)> {
    match fs::symlink_metadata(path) {
        Ok(old) if old.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "a file that is not a socket exists at this path",
            ));
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    let owner = fs::symlink_metadata(path)?.uid();
    Ok((listener, owner))
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

struct AdminHandler {
    addresses: Vec<SocketAddr>,
    reloads: ReloadHandle,
    owner: u32,
    lifecycle: Lifecycle,
}

impl AdminHandler {
    async fn handle_connection(&self, mut stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        let (reader, mut writer) = stream.split();
        let mut line = String::new();
        let mut reader = tokio::io::BufReader::new(reader.take(MAX_REQUEST_BYTES));
        timeout(LINE_TIMEOUT, reader.read_line(&mut line)).await??;
        let response = match serde_json::from_str(&line) {
            Ok(request) => self.handle(request, uid).await,
            Err(_) => AdminResponse::error(
                "invalid request: send the JSON string \"addresses\" or \"reload\" on one line",
            ),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        timeout(LINE_TIMEOUT, writer.write_all(&text)).await?
    }

    async fn handle(&self, request: AdminRequest, uid: u32) -> AdminResponse {
        match request {
            AdminRequest::Addresses => {
                AdminResponse { done: true, lines: self.addresses.iter().map(ToString::to_string).collect() }
            }
            AdminRequest::Reload if uid != 0 && uid != self.owner => AdminResponse::error(
                "permission denied: only root and the service's user may reload; use sudo",
            ),
            AdminRequest::Reload => {
                match timeout(RELOAD_TIMEOUT, self.reloads.request(&self.lifecycle)).await {
                    Ok(Ok(Ok(lines))) => AdminResponse { done: true, lines },
                    Ok(Ok(Err(problems))) => AdminResponse {
                        done: false,
                        lines: problems.iter().map(ToString::to_string).collect(),
                    },
                    Ok(Err(_)) => AdminResponse::error("the sidecar is stopping"),
                    Err(_) => AdminResponse::error(
                        "timed out after 20 s reading the configuration; check for files on an unresponsive mount",
                    ),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flags: &[&str]) -> Settings {
        let flags = crate::cli::command().get_matches_from([&["ada2-sidecar"], flags].concat());
        Settings::resolve(crate::config::KEYS, &flags, &|_| None, &|_| None)
    }

    #[test]
    fn the_runtime_directory_comes_first_and_a_named_state_directory_identifies_the_service() {
        let runtime = |name: &str| (name == "RUNTIME_DIRECTORY").then(|| "/run/a:/run/b".to_owned());
        for (flags, in_unit, expected) in [
            (&[][..], false, &["/run/ada2-sidecar", "/var/lib/ada2-sidecar"][..]),
            (&[], true, &["/run/a", "/run/ada2-sidecar", "/var/lib/ada2-sidecar"]),
            (&["--state-dir", "/srv/s"], false, &["/srv/s"]),
        ] {
            let environment: &dyn Fn(&str) -> Option<String> = if in_unit { &runtime } else { &|_| None };
            let sockets = AdminPaths::find(&settings(flags), environment).sockets;
            let expected: Vec<_> =
                expected.iter().map(|directory| Path::new(directory).join(SOCKET)).collect();
            assert_eq!(sockets, expected, "{flags:?}");
        }
        let flags = crate::cli::command().get_matches_from(["ada2-sidecar"]);
        let file = |key: &service::settings::SettingSpec| {
            (key.name == "state_dir").then(|| ("/srv/f".to_owned(), SettingSource::File("f.yaml".into())))
        };
        let settings = Settings::resolve(crate::config::KEYS, &flags, &|_| None, &file);
        let expected = ["/srv/f", "/run/ada2-sidecar"].map(|directory| Path::new(directory).join(SOCKET));
        assert_eq!(AdminPaths::find(&settings, &|_| None).sockets, expected);
    }

    #[tokio::test]
    async fn only_root_and_the_owner_may_reload_and_every_user_may_read_the_addresses() {
        let lifecycle = Lifecycle::new();
        let address = "127.0.0.1:7999".parse().unwrap();
        let reloads = ReloadHandle::default();
        let worker = reloads.clone().run(lifecycle.clone(), async || Ok(vec!["a note".to_owned()]));
        lifecycle.spawn_worker("reload", worker);
        let handler =
            AdminHandler { addresses: vec![address], reloads, owner: 1000, lifecycle: lifecycle.clone() };
        for (user, allowed) in [(0, true), (1000, true), (1001, false)] {
            let response = handler.handle(AdminRequest::Reload, user).await;
            assert_eq!(response.done, allowed, "{response:?}");
            assert_eq!(handler.handle(AdminRequest::Addresses, user).await.lines, ["127.0.0.1:7999"]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stale_socket_is_replaced_and_another_file_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("ada2-admin-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        drop(std::os::unix::net::UnixListener::bind(directory.join(SOCKET)).unwrap());
        let sockets = [directory.join("absent"), directory.join(SOCKET)];
        assert_eq!(send_request(&sockets, AdminRequest::Addresses).unwrap(), None, "no process listens");
        let lifecycle = Lifecycle::new();
        let address = "127.0.0.1:7999".parse().unwrap();
        start(&directory, vec![address], ReloadHandle::default(), &lifecycle);
        let response = send_request(&sockets, AdminRequest::Addresses).unwrap().unwrap();
        assert_eq!(response, AdminResponse { done: true, lines: vec!["127.0.0.1:7999".to_owned()] });
        lifecycle.begin_drain();
        lifecycle.wait_until_stopped(Duration::ZERO).await.unwrap();
        assert!(!directory.join(SOCKET).exists(), "removed with the service");
        fs::write(directory.join(SOCKET), "mine").unwrap();
        assert!(bind_socket(&directory.join(SOCKET)).is_err());
        assert_eq!(fs::read_to_string(directory.join(SOCKET)).unwrap(), "mine");
        fs::remove_dir_all(directory).unwrap();
    }
}
