//! Which files of nginx's configuration serve a port, whether they can be moved aside, and what they do that the sidecar
//! does not. Pure.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::parse::{ConfigFile, Directive};

/// The sites that serve the port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sites {
    /// To move aside.
    pub(crate) files: Vec<PathBuf>,
    /// Shortest location first.
    pub(crate) targets: Vec<ProxyTarget>,
    /// What the sidecar does differently, each with the setting or step that replaces it.
    pub(crate) differences: Vec<(String, String)>,
}

/// A `proxy_pass`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyTarget {
    pub(crate) location: String,
    /// `127.0.0.1:9090`.
    pub(crate) address: String,
}

/// The error is a message, which names the file that cannot be moved, and a fix.
pub(crate) fn find_sites(files: &[ConfigFile], port: u16) -> Result<Sites, (String, String)> {
    let mut sites = Sites::default();
    for file in files {
        let servers = servers(&file.directives);
        let (matching, others): (Vec<_>, Vec<_>) =
            servers.into_iter().partition(|server| ports(server).contains(&port));
        let Some(first) = matching.first() else { continue };
        check_movable(files, file, first, &others, port)?;
        for server in matching {
            let expanded = expand_includes(files, server, 0);
            targets(files, &expanded, "/", &mut sites.targets);
            differences(file, &expanded, port, &mut sites.differences);
        }
        sites.files.push(file.path.clone());
    }
    sites.targets.sort_by_key(|target| target.location.len());
    Ok(sites)
}

/// All `server` blocks. The `server` of an `upstream` has no block.
fn servers(directives: &[Directive]) -> Vec<&Directive> {
    let mut found = Vec::new();
    for directive in directives {
        match (directive.name.as_str(), &directive.block) {
            ("server", Some(_)) => found.push(directive),
            (_, Some(block)) => found.extend(servers(block)),
            _ => {}
        }
    }
    found
}

fn ports(server: &Directive) -> Vec<u16> {
    let listens: Vec<_> =
        server.children("listen").filter_map(|listen| port_of(listen.argument(0))).collect();
    // nginx's default.
    if server.children("listen").next().is_none() { vec![80] } else { listens }
}

/// Of `7860`, `*:7860`, `192.168.1.5:7860`, `[::]:7860`, `localhost`; none of a Unix socket.
fn port_of(listen: &str) -> Option<u16> {
    if listen.starts_with("unix:") {
        return None;
    }
    let last = listen.rsplit(':').next().unwrap_or(listen);
    match listen.parse::<u16>() {
        Ok(port) => Some(port),
        Err(_) if listen.ends_with(']') || !listen.contains(':') => Some(80),
        Err(_) => last.parse().ok(),
    }
}

fn check_movable(
    files: &[ConfigFile],
    file: &ConfigFile,
    server_block: &Directive,
    others: &[&Directive],
    port: u16,
) -> Result<(), (String, String)> {
    let path = file.path.display();
    let position = |directive: &Directive| format!("{path}:{}", directive.line);
    let advice = format!(
        "move the server block that listens on {port} into a file of its own in /etc/nginx/sites-enabled, \
         `sudo nginx -t && sudo systemctl reload nginx`, then `sudo ada2-sidecar move-in` again"
    );
    let refuse = |reason: String| Err((reason, advice.clone()));
    if let Some(other) = others.first() {
        return refuse(format!(
            "{} listens on {port}, and {} serves something else",
            position(server_block),
            position(other)
        ));
    }
    let all = servers(&file.directives);
    let other_port = all.iter().find_map(|server| {
        let other = ports(server).into_iter().find(|other| *other != port)?;
        Some((*server, other))
    });
    if let Some((server, other)) = other_port {
        return refuse(format!("{} listens on {port} and on {other}", position(server)));
    }
    match included_by_pattern(files, &file.path) {
        Some(true) => Ok(()),
        Some(false) => refuse(format!("{path} is included by its name, so nginx would fail without it")),
        None => refuse(format!("{} is in nginx's main file", position(server_block))),
    }
}

/// Whether only patterns include the file, so that it can be moved, or its name does; none if nothing includes it.
fn included_by_pattern(files: &[ConfigFile], path: &Path) -> Option<bool> {
    let mut by_pattern = None;
    for pattern in files.iter().flat_map(|file| includes(&file.directives)) {
        if pattern.contains('*') && matches_glob(files, pattern, path) {
            by_pattern.get_or_insert(true);
        } else if absolute_path(files, pattern) == path {
            by_pattern = Some(false);
        }
    }
    by_pattern
}

fn includes(directives: &[Directive]) -> Vec<&str> {
    let mut found = Vec::new();
    for directive in directives {
        if directive.name == "include" {
            found.push(directive.argument(0));
        }
        found.extend(directive.block.iter().flat_map(|block| includes(block)));
    }
    found
}

/// Relative patterns start at the main file's directory.
fn absolute_path(files: &[ConfigFile], pattern: &str) -> PathBuf {
    let main = files.first().and_then(|file| file.path.parent()).unwrap_or(Path::new("/etc/nginx"));
    main.join(pattern)
}

/// For a pattern with `*` in its last component.
fn matches_glob(files: &[ConfigFile], pattern: &str, path: &Path) -> bool {
    let pattern = absolute_path(files, pattern);
    let (Some(pattern_name), Some(name)) = (pattern.file_name(), path.file_name()) else { return false };
    let (pattern_name, name) = (pattern_name.to_string_lossy(), name.to_string_lossy());
    let Some((before, after)) = pattern_name.split_once('*') else { return false };
    let fits = name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after);
    pattern.parent() == path.parent() && fits && !name.starts_with('.')
}

/// The block with each `include` replaced by what it includes.
fn expand_includes(files: &[ConfigFile], directive: &Directive, depth: usize) -> Directive {
    let mut expanded = directive.clone();
    let inner = std::mem::take(&mut expanded.block);
    expanded.block = inner.map(|inner| {
        let parts = inner.iter().flat_map(|part| {
            if part.name == "include" && depth < 8 {
                let pattern = part.argument(0);
                let is_included = |file: &&ConfigFile| {
                    absolute_path(files, pattern) == file.path || matches_glob(files, pattern, &file.path)
                };
                let included = files.iter().filter(is_included).flat_map(|file| &file.directives);
                included.map(|part| expand_includes(files, part, depth + 1)).collect()
            } else {
                vec![expand_includes(files, part, depth)]
            }
        });
        parts.collect()
    });
    expanded
}

fn targets(files: &[ConfigFile], block: &Directive, location: &str, found: &mut Vec<ProxyTarget>) {
    for part in block.block.iter().flatten() {
        if part.name == "proxy_pass" {
            found.extend(
                addresses(files, part.argument(0))
                    .into_iter()
                    .map(|address| ProxyTarget { location: location.to_owned(), address }),
            );
        }
        let inner = if part.name == "location" { part.arguments.last() } else { None };
        targets(files, part, inner.map_or(location, String::as_str), found);
    }
}

/// The address of an `http` URL, or those of the `upstream` that it names. None if it contains variables.
fn addresses(files: &[ConfigFile], proxy_pass: &str) -> Vec<String> {
    let Some(rest) = proxy_pass.strip_prefix("http://") else { return Vec::new() };
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('$') || host.starts_with("unix:") {
        return Vec::new();
    }
    let upstream =
        files.iter().flat_map(|file| upstreams(&file.directives)).find(|one| one.argument(0) == host);
    match upstream {
        Some(upstream) => {
            upstream.children("server").map(|server| with_default_port(server.argument(0))).collect()
        }
        None => vec![with_default_port(host)],
    }
}

fn upstreams(directives: &[Directive]) -> Vec<&Directive> {
    let mut found = Vec::new();
    for directive in directives {
        if directive.name == "upstream" {
            found.push(directive);
        } else {
            found.extend(directive.block.iter().flat_map(|block| upstreams(block)));
        }
    }
    found
}

fn with_default_port(host: &str) -> String {
    let has_port = host.parse::<SocketAddr>().is_ok() || (!host.ends_with(']') && host.contains(':'));
    if has_port { host.to_owned() } else { format!("{host}:80") }
}

/// Collects what the site does that the sidecar does not, or does by another setting.
fn differences(file: &ConfigFile, block: &Directive, port: u16, found: &mut Vec<(String, String)>) {
    for part in block.block.iter().flatten() {
        let line =
            format!("{}:{}: {} {}", file.path.display(), part.line, part.name, part.arguments.join(" "));
        let value = part.argument(0);
        let fix = match part.name.as_str() {
            "listen" => listen_difference(part, port),
            "ssl_certificate" => Some("the sidecar speaks plain HTTP: point clients at http://".to_owned()),
            "auth_basic" if value == "off" => None,
            "auth_basic" | "auth_request" => {
                Some("set `token` (a bearer token on /v1) and `allow_from` in the configuration".to_owned())
            }
            "allow" | "deny" if value == "all" => None,
            "allow" | "deny" => Some("`allow_from` takes its place (--allow-from)".to_owned()),
            // No limit to replace.
            "client_max_body_size" if value == "0" => None,
            "client_max_body_size" => {
                Some("`max_upload_bytes` (engine) and `max_request_bytes` (/v1) take its place".to_owned())
            }
            "limit_req" | "limit_conn" => {
                Some("`max_inflight` and `max_engine_queue` take its place".to_owned())
            }
            "server_name" => server_name_difference(&part.arguments),
            "add_header" if value.eq_ignore_ascii_case("Access-Control-Allow-Origin") => {
                Some("`allowed_origins` takes its place".to_owned())
            }
            "root" | "alias" => Some("the sidecar serves no files: serve them from another port".to_owned()),
            _ => None,
        };
        let is_new = |fix: &String| !found.iter().any(|(_, other)| other == fix);
        if let Some(fix) = fix.filter(is_new) {
            found.push((line, fix));
        }
        differences(file, part, port, found);
    }
}

fn listen_difference(listen: &Directive, port: u16) -> Option<String> {
    let address = listen.argument(0);
    if listen.arguments.iter().any(|word| word == "ssl" || word == "quic") {
        return Some("the sidecar speaks plain HTTP: point clients at http://".to_owned());
    }
    let everywhere = [port.to_string(), format!("*:{port}"), format!("0.0.0.0:{port}")];
    if everywhere.iter().any(|other| other == address) || address.starts_with("unix:") {
        return None;
    }
    Some(format!(
        "the socket unit listens on 0.0.0.0:{port}: for other addresses `sudo systemctl edit ada2-sidecar.socket` \
         and add `ListenStream={address}` under [Socket]"
    ))
}

/// The sidecar answers to private names without configuration.
fn server_name_difference(names: &[String]) -> Option<String> {
    let suffixes = [".local", ".lan", ".home.arpa", ".internal", ".localhost"];
    let is_private = |name: &&String| {
        !name.contains('.')
            || name.parse::<std::net::IpAddr>().is_ok()
            || suffixes.iter().any(|suffix| name.to_ascii_lowercase().ends_with(suffix))
    };
    let foreign: Vec<_> = names.iter().filter(|name| !is_private(name)).map(String::as_str).collect();
    (!foreign.is_empty())
        .then(|| format!("set `allowed_hosts` to {} if clients use that name", foreign.join(", ")))
}

#[cfg(test)]
mod tests;
