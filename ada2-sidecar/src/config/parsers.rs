//! From the text of a setting to its value, where no parser of `service::settings` does it.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use reqwest::Url;
use service::settings::{Parser, boolean, bytes, list};

/// `listen`, which some commands read alone.
pub(super) const LISTEN: Parser<Vec<SocketAddr>> = Parser::expecting("addresses like 0.0.0.0:7860", |text| {
    list(text, |item| item.parse().ok()).filter(|addresses| !addresses.is_empty())
});

/// Whether the text is `yes` rather than `no`, the two values of the setting.
pub(super) fn either(text: &str, no: &str, yes: &str) -> Option<bool> {
    (text == yes).then_some(true).or((text == no).then_some(false))
}

/// Whether a condition gates (`not_ready`) or only degrades.
pub(super) fn gates(text: &str) -> Option<bool> {
    either(text, "degraded", "not_ready")
}

#[expect(clippy::option_option, reason = "not a value, or the value that there is none")]
pub(super) fn any_or_boolean(text: &str) -> Option<Option<bool>> {
    if text == "any" { Some(None) } else { boolean(text).map(Some) }
}

pub(super) fn absolute(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

pub(super) fn non_empty(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

pub(super) fn log_filter(text: &str) -> Option<String> {
    service::telemetry::is_filter(text).then(|| text.to_owned())
}

/// Ranges, and addresses as the range of themselves alone.
pub(super) fn ranges(text: &str) -> Option<Vec<IpNet>> {
    list(text, |item| item.parse().ok().or_else(|| item.parse::<IpAddr>().ok().map(IpNet::from)))
}

pub(super) fn gpu_id(text: &str) -> Option<String> {
    (text.parse::<u32>().is_ok() || text.starts_with("GPU-")).then(|| text.to_owned())
}

pub(super) fn request_bytes(text: &str) -> Option<usize> {
    bytes(text).filter(|bytes| (1 << 10..=256 << 20).contains(bytes))?.try_into().ok()
}

pub(crate) fn parse_engine_url(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let is_origin = url.scheme() == "http" && url.has_host() && matches!(url.path(), "" | "/");
    (is_origin && url.query().is_none() && url.username().is_empty() && url.password().is_none())
        .then_some(url)
}
