//! Definite reasons why a connection to a backend failed, as reported by the operating system. Probes and requests share these
//! messages.

use std::{
    fmt,
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr},
};

use service::{
    guard::is_private_name,
    outbound::{io_error_kind, resolve_error},
};

/// A slow or broken connection is not one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectError {
    Refused,
    /// To an address outside the local network.
    NoRoute,
    /// To an address in the local network, which macOS may block.
    NoLocalRoute,
}

impl ConnectError {
    pub(crate) fn from_reqwest(error: &reqwest::Error) -> Option<Self> {
        match io_error_kind(error)? {
            ErrorKind::ConnectionRefused => Some(Self::Refused),
            ErrorKind::HostUnreachable => {
                let local = error.url().and_then(|url| url.host_str()).is_some_and(is_local);
                Some(if local { Self::NoLocalRoute } else { Self::NoRoute })
            }
            _ => None,
        }
    }
}

/// The message if the backend's host name did not resolve. That may be temporary, so it is not a [`ConnectError`].
pub(crate) fn dns_error(error: &reqwest::Error) -> Option<String> {
    let unresolved = resolve_error(error)?;
    let macos_hint = if is_local(&unresolved.host) {
        "; on macOS, Local Network Privacy may hide it (System Settings > Privacy & Security > Local Network)"
    } else {
        ""
    };
    Some(format!("{unresolved}: check its base_url{macos_hint}"))
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::NoRoute => "no route to host",
            Self::NoLocalRoute => {
                "no route to host: it is off or at another address; or, on macOS, Local Network Privacy blocks it: run the \
                 gateway as a LaunchDaemon, or allow it in System Settings > Privacy & Security > Local Network"
            }
        })
    }
}

/// Whether the host is in the local network, judged by its address, or by a name that public DNS does not resolve.
pub(crate) fn is_local(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_private() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => is_local_v6(address),
        Err(_) => is_private_name(host) && !host.ends_with("localhost"),
    }
}

fn is_local_v6(address: Ipv6Addr) -> bool {
    address.is_unique_local() || address.is_unicast_link_local()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use reqwest::dns::{Name, Resolve, Resolving};
    use service::outbound::{ConnectionPolicy, client_builder};

    use super::*;

    /// Fails in place of the connection, with the operating system's error.
    struct Failing<F>(F);

    impl<F: Fn() -> std::io::Error + Send + Sync> Resolve for Failing<F> {
        fn resolve(&self, _: Name) -> Resolving {
            let error = (self.0)();
            Box::pin(std::future::ready(Err(error.into())))
        }
    }

    /// A client whose connections all fail with this error.
    pub(crate) fn client_failing_with(kind: ErrorKind) -> reqwest::Client {
        client_that_fails(move || std::io::Error::from(kind))
    }

    /// The same with any error.
    pub(crate) fn client_that_fails(
        error: impl Fn() -> std::io::Error + Send + Sync + 'static,
    ) -> reqwest::Client {
        client_builder(ConnectionPolicy::Pooled).dns_resolver(Arc::new(Failing(error))).build().unwrap()
    }

    async fn connect_error(kind: ErrorKind, url: &str) -> Option<ConnectError> {
        ConnectError::from_reqwest(&client_failing_with(kind).get(url).send().await.unwrap_err())
    }

    #[tokio::test]
    async fn hosts_in_the_local_network_have_their_own_error() {
        use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable};
        assert_eq!(
            connect_error(HostUnreachable, "http://ada2.local:1/x").await,
            Some(ConnectError::NoLocalRoute)
        );
        assert_eq!(connect_error(HostUnreachable, "http://ada2/").await, Some(ConnectError::NoLocalRoute));
        assert_eq!(
            connect_error(HostUnreachable, "http://api.example.org/").await,
            Some(ConnectError::NoRoute)
        );
        assert_eq!(connect_error(ConnectionRefused, "http://ada2.local/").await, Some(ConnectError::Refused));
        assert_eq!(connect_error(ConnectionReset, "http://ada2.local/").await, None);
    }

    #[test]
    fn local_hosts() {
        for host in [
            "192.168.1.7",
            "10.0.0.1",
            "172.31.0.1",
            "169.254.3.4",
            "[fe80::1]",
            "[fd00::7]",
            "ada2",
            "ada2.local.",
            "x.lan",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["127.0.0.1", "[::1]", "localhost", "8.8.8.8", "172.32.0.1", "[2001:db8::1]", "example.org"]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn the_message_names_the_fixes() {
        let message = ConnectError::NoLocalRoute.to_string();
        for part in [
            "no route to host",
            "Local Network Privacy",
            "LaunchDaemon",
            "System Settings > Privacy & Security > Local Network",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert!(message.len() < 300, "the log truncates longer ones");
        assert!(!ConnectError::NoRoute.to_string().contains("macOS"));
    }
}
