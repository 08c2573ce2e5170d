//! The sections of the configuration that are read by themselves.

use std::net::SocketAddr;

use ipnet::IpNet;
use reqwest::Url;
use service::{
    guard::Guard,
    secret::Secret,
    settings::{Settings, boolean, bytes, list, nearest_n},
};

use super::{Privacy, either, whole_number_between};
use crate::{
    config::checks::{ALWAYS_GATE, CHECKS, CardRules, HostRules},
    sandbox,
};

/// Who may come, and how they name us.
#[derive(Debug)]
pub struct AccessSettings {
    /// Who may use the engine.
    pub allow_from: Vec<IpNet>,
    /// Proxies whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Asked for on `/v1`.
    pub token: Option<Secret>,
    /// Names and origins that are ours.
    pub guard: Guard,
    /// Bytes of a body on its way to the engine; `Unitless` for no limit.
    pub max_upload: Option<u64>,
}

impl AccessSettings {
    pub(super) fn read(s: &mut Settings) -> Option<Self> {
        let allow_from = s.required("allow_from", "ranges like 192.168.0.0/16", |text| list(text, range));
        let proxies = s.optional("trusted_proxies", "ranges like 192.168.1.7/32", |text| list(text, range));
        let before = s.problems.len();
        s.secret_from_file("token", "token_file");
        sandbox::add_token_file_hint(s, before);
        let expected =
            "a token that is not empty, of printable ASCII characters (leave the setting out for none)";
        let token = s.optional("token", expected, |text| Secret::token(text).ok());
        let guard = Guard::from_settings(s, "allowed_hosts", "allowed_origins");
        let max_upload = s.required("max_upload_bytes", "a size like 4GiB, or 0", bytes);
        Some(Self {
            allow_from: allow_from?,
            trusted_proxies: proxies?.unwrap_or_default(),
            token: token?,
            guard: guard?,
            max_upload: Some(max_upload?).filter(|limit| *limit > 0),
        })
    }
}

/// Where to listen.
pub(super) fn listen(s: &mut Settings) -> Option<Vec<SocketAddr>> {
    s.required("listen", "addresses like 0.0.0.0:7860", |text| {
        list(text, |item| item.parse().ok()).filter(|all: &Vec<_>| !all.is_empty())
    })
}

/// The checks that warn where they would gate.
pub(super) fn warn_only(s: &mut Settings) -> Option<Vec<&'static str>> {
    let names = s.raw("warn_only").unwrap_or_default().to_owned();
    let mut checks = Vec::new();
    let mut sound = true;
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if let Err(problem) = parse_check(name).map(|check| checks.push(check)) {
            s.add_problem("warn_only", problem);
            sound = false;
        }
    }
    sound.then_some(checks)
}

fn parse_check(name: &str) -> Result<&'static str, String> {
    if ALWAYS_GATE.contains(&name) {
        return Err(format!("{name} always gates: without it nothing else is known"));
    }
    let known = || CHECKS.iter().copied().filter(|check| !ALWAYS_GATE.contains(check));
    known().find(|check| *check == name).ok_or_else(|| {
        let near = nearest_n(name, known(), 1).concat();
        let all = known().collect::<Vec<_>>().join(", ");
        format!("no check is named {name:?}; did you mean {near:?}? There are {all}")
    })
}

/// What the operator thinks of the card's faults.
pub(super) fn card(s: &mut Settings) -> Option<CardRules> {
    let ecc_mode = s.required("ecc_mode", "any, on or off", |text| match text {
        "any" => Some(None),
        _ => boolean(text).map(Some),
    });
    let gates = |text: &str| match text {
        "not_ready" => Some(true),
        "degraded" => Some(false),
        _ => None,
    };
    let expected = "degraded or not_ready";
    let (errors, pending) =
        (s.required("ecc_errors", expected, gates), s.required("row_remap_pending", expected, gates));
    let failure = s.required("row_remap_failure", expected, gates);
    Some(CardRules {
        ecc_mode: ecc_mode?,
        old_ecc_errors_gate: errors?,
        remap_pending_gates: pending?,
        remap_failure_gates: failure?,
    })
}

pub(super) fn privacy(s: &mut Settings) -> Option<Privacy> {
    let discard_outputs = s.required("engine_outputs", "keep or discard", either("keep", "discard"));
    let strip_metadata = s.required("png_metadata", "keep or strip", either("keep", "strip"));
    let log_prompts = s.required("log_prompts", "on or off", boolean);
    Some(Privacy {
        discard_outputs: discard_outputs?,
        strip_metadata: strip_metadata?,
        log_prompts: log_prompts?,
    })
}

pub(super) fn host(s: &mut Settings) -> Option<HostRules> {
    let disk = s.required("min_free_disk", "a size like 1GiB, or 0", bytes);
    let memory = s.required("min_free_memory", "a size like 1GiB, or 0", bytes);
    let swap = whole_number_between(s, "max_swap_used", 1, 100);
    let engine = s.required("max_engine_memory", "a size like 48GiB, or 0", bytes);
    Some(HostRules {
        min_free_disk: disk?,
        min_free_memory: memory?,
        max_swap_used: swap?,
        max_engine_memory: engine?,
    })
}

fn range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

pub(super) fn gpu_id(text: &str) -> Option<String> {
    (text.parse::<u32>().is_ok() || text.starts_with("GPU-")).then(|| text.to_owned())
}

pub(crate) fn parse_engine_url(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let plain = url.scheme() == "http" && url.has_host() && matches!(url.path(), "" | "/");
    (plain && url.query().is_none() && url.username().is_empty() && url.password().is_none()).then_some(url)
}
