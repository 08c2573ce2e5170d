//! A gateway on another machine, of which only it itself can tell.

use std::net::IpAddr;

use reqwest::Url;
use serde_json::Value;
use service::{doctor::Finding, secret::redact_url};

use super::{escaped, running};
use crate::{commands::target::GatewayTarget, tls::host_names::host_names};

/// Whether an address is this machine's.
pub(super) fn is_local(url: &str) -> bool {
    let Ok(url) = url.parse::<Url>() else { return false };
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || host == "localhost"
        || host_names().contains(&host)
}

/// Asks it.
pub(super) async fn examine(target: &GatewayTarget) -> (Vec<Finding>, Option<Value>) {
    let (status, checks) = running::check_gateway(target).await;
    match status {
        Some(Ok(status)) => {
            let place = format!("a gateway answers at {}", escaped(&redact_url(&target.base)));
            let mut findings = vec![Finding::ok("port", place), running::verify_result(&checks, false)];
            findings.extend(running::from_status(&status));
            (findings, Some(status))
        }
        Some(Err(why)) => {
            let message = format!("{}: {}", escaped(&redact_url(&target.base)), escaped(&why));
            (vec![Finding::fail("port", message, "gateway doctor, on that machine")], None)
        }
        None => (Vec::new(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told_from_others() {
        for here in ["https://127.0.0.1:8800", "http://[::1]/", "https://LOCALHOST:1", "https://localhost.:1"]
        {
            assert!(is_local(here), "{here}");
        }
        for other in ["https://192.0.2.7:8800", "https://example.org", "what"] {
            assert!(!is_local(other), "{other}");
        }
    }
}
