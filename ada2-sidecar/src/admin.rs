//! The administration socket: a Unix socket in the runtime or state directory, never the TCP port. Each connection is one
//! request and one answer, a line of JSON each.

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
/// Where `RuntimeDirectory=` of the unit puts it.
const USUAL_RUNTIME_DIR: &str = "/run/ada2-sidecar";
/// Requests at once; more are not answered.
const CONNECTIONS: usize = 16;
/// For the request to arrive, and for the answer to be taken.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// For a reload: it reads files, and a disk can hang.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_REQUEST: u64 = 256;
const MAX_ANSWER: u64 = 1 << 20;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AdminRequest {
    /// Where the service listens. Everybody on this host may know.
    Addresses,
    /// To read the configuration again. For root and the service's own user.
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

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdminResponse {
    /// Whether it was done.
    pub(crate) done: bool,
    /// What was asked for, or every problem.
    pub(crate) lines: Vec<String>,
}

impl AdminResponse {
    fn error(message: &str) -> Self {
        Self { done: false, lines: vec![message.to_owned()] }
    }
}

/// Where the socket is.
#[derive(Debug, Clone, Default)]
pub struct AdminPaths {
    /// The directory that the service manager made for us, and removes when we stop.
    pub runtime_dir: Option<PathBuf>,
    /// Where the socket of a running service may be, the likeliest first.
    pub sockets: Vec<PathBuf>,
}

impl AdminPaths {
    /// A state directory that is named on the command line or in the environment names the service that is meant. One in the
    /// file is only likelier than the usual place: a unit with that file has its socket in the runtime directory.
    pub(crate) fn find(settings: &Settings, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let list = environment("RUNTIME_DIRECTORY").unwrap_or_default();
        let runtime_dir = list.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let named =
            matches!(settings.source("state_dir"), SettingSource::Flag(_) | SettingSource::Environment(_));
        let usual = (!named).then(|| PathBuf::from(USUAL_RUNTIME_DIR));
        let (systemd, home) = (environment("STATE_DIRECTORY"), environment("HOME"));
        let state = Instance::candidates(settings, systemd.as_deref(), home.as_deref());
        let mut folders: Vec<_> = usual.into_iter().chain(state).collect();
        if matches!(settings.source("state_dir"), SettingSource::File(_)) {
            folders.rotate_left(1);
        }
        let folders = runtime_dir.iter().chain(&folders);
        let sockets = folders.map(|folder| folder.join(SOCKET)).collect();
        Self { runtime_dir, sockets }
    }
}

/// Asks the first of these sockets that somebody listens on; none if nobody does.
pub(crate) fn send_request(sockets: &[PathBuf], request: AdminRequest) -> io::Result<Option<AdminResponse>> {
    for socket in sockets {
        match std::os::unix::net::UnixStream::connect(socket) {
            Ok(stream) => return exchange(stream, request).map(Some),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            // Somebody else's directory: the service that is meant may be another.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                debug!(%error, ?socket, "passed over");
            }
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", socket.display()))),
        }
    }
    Ok(None)
}

fn exchange(mut stream: std::os::unix::net::UnixStream, request: AdminRequest) -> io::Result<AdminResponse> {
    stream.set_write_timeout(Some(LINE_TIMEOUT))?;
    // The service gives up first, and says so.
    stream.set_read_timeout(Some(request.timeout() + LINE_TIMEOUT))?;
    writeln!(stream, "{}", serde_json::to_string(&request)?)?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the sidecar stopped before it answered"));
    }
    Ok(serde_json::from_str(&line)?)
}

/// Starts answering in this directory. Without the socket the service works all the same, and SIGHUP reloads it.
pub(crate) fn start(folder: &Path, addresses: Vec<SocketAddr>, reloads: ReloadHandle, lifecycle: &Lifecycle) {
    let path = folder.join(SOCKET);
    let opened = bind_socket(&path);
    let (listener, owner) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let path = path.display();
            return warn!(%error, "no administration socket at {path}: reload with `systemctl kill -s HUP`");
        }
    };
    let handler = Arc::new(AdminHandler { addresses, reloads, owner, lifecycle: lifecycle.clone() });
    let life = lifecycle.clone();
    lifecycle.spawn_worker("administration", async move {
        let _removed_at_the_end = RemoveOnDrop(path);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept administration requests; trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            let handler = handler.clone();
            life.spawn_background("administration request", async move {
                let _permit = permit;
                if let Err(error) = handler.handle_connection(stream).await {
                    debug!(%error, "an administration request was not answered");
                }
            });
        }
    });
}

/// The socket, which everybody may ask, and its owner's user id. What an earlier process left is taken away; the
/// directory is ours alone.
fn bind_socket(path: &Path) -> io::Result<(UnixListener, u32)> {
    match fs::symlink_metadata(path) {
        Ok(old) if old.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "something that is no socket is there"));
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

/// What requests are answered from.
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
        let mut reader = tokio::io::BufReader::new(reader.take(MAX_REQUEST));
        timeout(LINE_TIMEOUT, reader.read_line(&mut line)).await??;
        let answer = match serde_json::from_str(&line) {
            Ok(request) => self.handle(request, uid).await,
            Err(_) => AdminResponse::error("expected \"addresses\" or \"reload\", in quotes and on one line"),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        timeout(LINE_TIMEOUT, writer.write_all(&text)).await?
    }

    async fn handle(&self, request: AdminRequest, uid: u32) -> AdminResponse {
        match request {
            AdminRequest::Addresses => {
                AdminResponse { done: true, lines: self.addresses.iter().map(ToString::to_string).collect() }
            }
            AdminRequest::Reload if uid != 0 && uid != self.owner => {
                AdminResponse::error("only root and the service's own user may reload: use sudo")
            }
            AdminRequest::Reload => {
                match timeout(RELOAD_TIMEOUT, self.reloads.request(&self.lifecycle)).await {
                    Ok(Ok(Ok(lines))) => AdminResponse { done: true, lines },
                    Ok(Ok(Err(problems))) => AdminResponse {
                        done: false,
                        lines: problems.iter().map(ToString::to_string).collect(),
                    },
                    Ok(Err(_)) => AdminResponse::error("the sidecar is stopping"),
                    Err(_) => AdminResponse::error(
                        "the configuration could not be read within 20 s; look for a file on a dead mount",
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
    fn the_runtime_directory_comes_first_and_a_named_state_directory_means_that_service() {
        let runtime = |name: &str| (name == "RUNTIME_DIRECTORY").then(|| "/run/a:/run/b".to_owned());
        for (flags, in_unit, expected) in [
            (&[][..], false, &["/run/ada2-sidecar", "/var/lib/ada2-sidecar"][..]),
            (&[], true, &["/run/a", "/run/ada2-sidecar", "/var/lib/ada2-sidecar"]),
            (&["--state-dir", "/srv/s"], false, &["/srv/s"]),
        ] {
            let environment: &dyn Fn(&str) -> Option<String> = if in_unit { &runtime } else { &|_| None };
            let found = AdminPaths::find(&settings(flags), environment).sockets;
            let expected: Vec<_> = expected.iter().map(|folder| Path::new(folder).join(SOCKET)).collect();
            assert_eq!(found, expected, "{flags:?}");
        }
        let flags = crate::cli::command().get_matches_from(["ada2-sidecar"]);
        let file = |key: &service::settings::SettingSpec| {
            (key.name == "state_dir").then(|| ("/srv/f".to_owned(), SettingSource::File("f.yaml".into())))
        };
        let settings = Settings::resolve(crate::config::KEYS, &flags, &|_| None, &file);
        let expected = ["/srv/f", "/run/ada2-sidecar"].map(|folder| Path::new(folder).join(SOCKET));
        assert_eq!(AdminPaths::find(&settings, &|_| None).sockets, expected);
    }

    #[tokio::test]
    async fn only_root_and_the_owner_may_reload_and_anybody_may_ask_for_the_addresses() {
        let lifecycle = Lifecycle::new();
        let address = "127.0.0.1:7999".parse().unwrap();
        let reloads = ReloadHandle::default();
        let worker = reloads.clone().run(lifecycle.clone(), async || Ok(vec!["a note".to_owned()]));
        lifecycle.spawn_worker("reload", worker);
        let handler =
            AdminHandler { addresses: vec![address], reloads, owner: 1000, lifecycle: lifecycle.clone() };
        for (user, may) in [(0, true), (1000, true), (1001, false)] {
            let answer = handler.handle(AdminRequest::Reload, user).await;
            assert_eq!(answer.done, may, "{answer:?}");
            assert_eq!(handler.handle(AdminRequest::Addresses, user).await.lines, ["127.0.0.1:7999"]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_socket_left_by_a_dead_process_is_replaced_and_another_file_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("ada2-admin-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.join(SOCKET)).unwrap());
        let sockets = [folder.join("nobody"), folder.join(SOCKET)];
        assert_eq!(send_request(&sockets, AdminRequest::Addresses).unwrap(), None, "nobody listens");
        let lifecycle = Lifecycle::new();
        let address = "127.0.0.1:7999".parse().unwrap();
        start(&folder, vec![address], ReloadHandle::default(), &lifecycle);
        let answer = send_request(&sockets, AdminRequest::Addresses).unwrap().unwrap();
        assert_eq!(answer, AdminResponse { done: true, lines: vec!["127.0.0.1:7999".to_owned()] });
        lifecycle.begin_drain();
        lifecycle.wait_until_stopped(Duration::ZERO).await.unwrap();
        assert!(!folder.join(SOCKET).exists(), "gone with the service");
        fs::write(folder.join(SOCKET), "mine").unwrap();
        assert!(bind_socket(&folder.join(SOCKET)).is_err());
        assert_eq!(fs::read_to_string(folder.join(SOCKET)).unwrap(), "mine");
        fs::remove_dir_all(folder).unwrap();
    }
}
