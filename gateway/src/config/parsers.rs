//! Parsers for settings that those of `service::settings` do not cover.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use service::settings::list;

use super::backends_file::{EXPECTED_URL, base_url};

/// What a setting with address ranges expects.
pub(super) const RANGES: &str = "addresses and CIDR ranges, comma-separated";

pub(super) fn host(text: &str) -> Option<String> {
    (text == "localhost" || text.parse::<IpAddr>().is_ok()).then(|| text.to_owned())
}

pub(super) fn socket(text: &str) -> Option<SocketAddr> {
    text.trim().parse().ok()
}

/// Without a trailing slash.
pub(super) fn public_base_url(text: &str) -> Result<String, Vec<String>> {
    match base_url(text) {
        Some(_) => Ok(text.trim().trim_end_matches('/').to_owned()),
        None => Err(vec![EXPECTED_URL.to_owned()]),
    }
}

/// A single address is a range of one.
pub(super) fn ranges(text: &str) -> Option<Vec<IpNet>> {
    list(text, |item| item.parse().ok().or_else(|| item.parse::<IpAddr>().ok().map(IpNet::from)))
}

#[expect(clippy::unnecessary_wraps, reason = "any text is a path")]
pub(super) fn path(text: &str) -> Option<PathBuf> {
    Some(text.into())
}

#[expect(clippy::unnecessary_wraps, reason = "any text is a name")]
pub(super) fn trimmed(text: &str) -> Option<String> {
    Some(text.trim().to_owned())
}

pub(super) fn positive<T: FromStr + Default + PartialOrd>(text: &str) -> Option<T> {
    text.trim().parse().ok().filter(|number| *number > T::default())
}

/// A limit in days; 0 is no limit.
#[expect(clippy::option_option, reason = "invalid, or valid without a limit")]
pub(super) fn limit_days(text: &str) -> Option<Option<Duration>> {
    let days: f64 = text.trim().parse().ok()?;
    let age = || Duration::from_secs_f64(days * 86_400.0);
    (0.0..=36_500.0).contains(&days).then(|| Some(age()).filter(|age| !age.is_zero()))
}
