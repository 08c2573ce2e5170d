//! Which paths may go to the legacy gateway: those that no server could mistake for one of the gateway's own, however they are encoded.

/// The gateway's own paths, with everything below them.
const GATEWAY_PREFIXES: [&[&str]; 10] = [
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

/// Whether the path may go to the legacy gateway. Servers decode paths, merge slashes, ignore parameters after `;` and sometimes
/// case: a path that any of this turns into one of the gateway's own is not legacy, nor is one with `..`.
pub(crate) fn is_legacy_path(raw: &str) -> bool {
    let path = fully_decoded(raw).replace('\\', "/").to_lowercase();
    let segments: Vec<_> = path
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .filter(|segment| !matches!(*segment, "" | "."))
        .collect();
    raw.starts_with('/')
        && !segments.contains(&"..")
        && !GATEWAY_PREFIXES.iter().any(|prefix| segments.starts_with(prefix))
}

/// Decodes until no escape is left, as a chain of proxies and servers would. Linear: a decoded byte can only complete an escape
/// together with the bytes before it.
fn fully_decoded(raw: &str) -> String {
    let mut path = Vec::with_capacity(raw.len());
    for &byte in raw.as_bytes() {
        path.push(byte);
        while let [.., b'%', high, low] = path[..]
            && let Some(escaped) = hex(high).zip(hex(low))
        {
            path.truncate(path.len() - 3);
            path.push(escaped.0 << 4 | escaped.1);
        }
    }
    String::from_utf8_lossy(&path).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_spelling_of_an_own_path_is_legacy() {
        for own in [
            "/v1/images/generations",
            "/v1/images",
            "/v1/images/",
            "//v1//images/generations",
            "/v1/./images/generations",
            "/v1/%69mages/generations",
            "/v1/%2569mages/generations",
            "/v1/%25%36%39mages/generations",
            "/v1/%%36%39mages/generations",
            "/v1/%2%3569mages/generations",
            "/v1/%25252525252569mages/generations",
            "/v1/x%25252f%252e%2e%2fimages",
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
            assert!(!is_legacy_path(own), "{own}");
        }
        for legacy in [
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
            assert!(is_legacy_path(legacy), "{legacy}");
        }
    }

    #[test]
    fn a_chain_of_escapes_is_decoded_in_one_go() {
        let begin = std::time::Instant::now();
        let chain = format!("/v1/%{}69mages", "25".repeat(30_000));
        assert_eq!(fully_decoded(&chain), "/v1/images");
        assert_eq!(fully_decoded(&"%".repeat(60_000)).len(), 60_000);
        assert!(begin.elapsed() < std::time::Duration::from_millis(200), "{:?}", begin.elapsed());
    }

    proptest! {
        /// The same result as decoding repeatedly.
        #[test]
        fn the_order_of_decoding_makes_no_difference(path in "(%|2|5|3|6|9|e|/|é){0,40}") {
            let mut slowly = path.clone().into_bytes();
            loop {
                let next: Vec<u8> = percent_encoding::percent_decode(&slowly).collect();
                if next == slowly {
                    break;
                }
                slowly = next;
            }
            prop_assert_eq!(fully_decoded(&path), String::from_utf8_lossy(&slowly));
        }
    }
}
