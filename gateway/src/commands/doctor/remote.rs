//! A gateway on another machine: all that is known is its status.

use std::net::IpAddr;

use reqwest::Url;
use service::{doctor::Finding, secret::redact_url};

use super::{ReachableGateway, running};
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

pub(super) async fn examine(target: GatewayTarget) -> (Vec<Finding>, Option<ReachableGateway>) {
    let (status, checks) = running::check_gateway(&target).await;
    let base = redact_url(&target.base);
    match status {
        Ok(status) => {
            let mut findings = vec![
                Finding::ok("port", format!("a gateway answers at {base}")),
                running::verify_result(&checks, false),
            ];
            findings.extend(running::from_status(&status));
            (findings, Some((target, status)))
        }
        Err(why) => {
            let fix = "gateway doctor, on that machine";
            (vec![Finding::fail("port", format!("{base}: {why}"), fix)], None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_distinguished_from_others() {
        for here in ["https://127.0.0.1:8800", "http://[::1]/", "https://LOCALHOST:1", "https://localhost.:1"]
        {
            assert!(is_local(here), "{here}");
        }
        for other in ["https://192.0.2.7:8800", "https://example.org", "what"] {
            assert!(!is_local(other), "{other}");
        }
    }
}
