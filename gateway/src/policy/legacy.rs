//! Which paths may go to the old gateway: those that are not ours in any spelling that a server might read as ours.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What the new gateway serves, or refuses, by itself; and everything below.
const OURS: [&[&str]; 10] = [
    &["v1", "images"],
    &["v1", "chat"],
    &["v1", "completions"],
    &["v1", "embeddings"],
    &["v1", "models"],
    &["v1", "gateway"],
    &["ui"],
    &["healthz"],
    &["readyz"],
    &["metrics"],
];

/// Whether the path is the old gateway's. Servers decode paths, merge slashes, ignore parameters behind `;` and, some of
/// them, case: a path that any of this makes ours is ours. One with `..` is nobody's.
pub(crate) fn is_theirs(raw: &str) -> bool {
    let path = decoded(raw).replace('\\', "/").to_lowercase();
    let segments: Vec<_> = path
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .filter(|segment| !matches!(*segment, "" | "."))
        .collect();
    raw.starts_with('/') && !segments.contains(&"..") && !OURS.iter().any(|ours| segments.starts_with(ours))
}

/// Decoded until nothing is left to decode, as a proxy and a server behind each other would.
fn decoded(raw: &str) -> String {
    let mut path = Cow::Borrowed(raw);
    loop {
        let next = percent_decode_str(&path).decode_utf8_lossy().into_owned();
        if next == *path {
            return next;
        }
        path = Cow::Owned(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_our_paths_is_theirs() {
        for ours in [
            "/v1/images/generations",
            "/v1/images",
            "/v1/images/",
            "//v1//images/generations",
            "/v1/./images/generations",
            "/v1/%69mages/generations",
            "/v1/%2569mages/generations",
            "/v1%2Fimages/generations",
            "/V1/Images/generations",
            "/v1;x=1/images;y/generations",
            "/v1\\images",
            "/v1/x/../images/generations",
            "/v1/x/%2e%2e/images",
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/models/x",
            "/v1/gateway/status",
            "/ui",
            "/ui/x",
            "/healthz",
            "/readyz/x",
            "/metrics",
            "*",
            "",
        ] {
            assert!(!is_theirs(ours), "{ours}");
        }
        for theirs in [
            "/",
            "/v1/tools",
            "/v1/audio/speech",
            "/v1/imagesx",
            "/api/v1/images",
            "/uix",
            "/memory/a%20b",
            "/a//b",
            "/%ff",
        ] {
            assert!(is_theirs(theirs), "{theirs}");
        }
    }
}
