//! Which route a client meant by an unknown path: often its base URL has one `/v1` too many or too few, or a slash is
//! left over. Pure.

use super::settings::nearest;

/// Longer paths are not compared: no route is nearly that long, and the cost grows with the product of the lengths.
const MAX_PATH_LEN: usize = 200;

/// The most likely route, or two of them joined by "or". Routes are written as in axum: `/v1/models/{id}`.
pub fn nearest_route<'a>(path: &str, routes: &[&'a str]) -> Option<&'a str> {
    if path.len() > MAX_PATH_LEN {
        return None;
    }
    let path = path.to_ascii_lowercase();
    let given = segments(&path);
    // The longest common suffix: `/openai/v1/chat/completions` means chat.
    let suffixes = routes.iter().filter(|route| {
        let route = unversioned(route);
        !route.is_empty()
            && given.len() >= route.len()
            && matches(&given[given.len() - route.len()..], &route)
    });
    let suffix = suffixes.max_by_key(|route| {
        let route = unversioned(route);
        // A literal segment says more than a placeholder.
        (route.iter().filter(|segment| !is_placeholder(segment)).count(), route.len())
    });
    if let (None, Some(both)) = (suffix, image_routes(&given, routes)) {
        return Some(both);
    }
    suffix
        .or_else(|| {
            let normalized_path = unversioned(&path).join("/");
            let normalized: Vec<_> =
                routes.iter().map(|route| (unversioned(route).join("/"), route)).collect();
            let near = nearest(&normalized_path, normalized.iter().map(|(candidate, _)| candidate.as_str()))?;
            normalized.iter().find(|(candidate, _)| candidate == near).map(|(_, route)| *route)
        })
        .copied()
}

/// `/v1/images` and OpenAI's `/v1/images/variations`, which does not exist here, mean the other two image routes.
fn image_routes(given: &[&str], routes: &[&str]) -> Option<&'static str> {
    let is_match = given.ends_with(&["images"]) || given.ends_with(&["images", "variations"]);
    let exist = ["/v1/images/generations", "/v1/images/edits"].iter().all(|route| routes.contains(route));
    (is_match && exist).then_some("/v1/images/generations or /v1/images/edits")
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// Without leading versions, however many.
fn unversioned(path: &str) -> Vec<&str> {
    segments(path).into_iter().skip_while(|segment| *segment == "v1").collect()
}

fn matches(given: &[&str], route: &[&str]) -> bool {
    given.iter().zip(route).all(|(given, route)| is_placeholder(route) || given == route)
}

fn is_placeholder(segment: &str) -> bool {
    segment.starts_with('{')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTES: &[&str] = &[
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/images/files/{name}",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/{*id}",
        "/v1/gateway/images/{name}",
        "/healthz",
        "/readyz/{check}",
    ];

    #[test]
    fn a_suffix_or_a_typo_suggests_a_route() {
        for (path, route) in [
            ("/v1/v1/images/generations", "/v1/images/generations"),
            ("/v1/v1/v1/models", "/v1/models"),
            ("/v1/images/generations/", "/v1/images/generations"),
            ("/v1//images///edits//", "/v1/images/edits"),
            ("//v1/images/edits", "/v1/images/edits"),
            ("/images/generations", "/v1/images/generations"),
            ("/chat/completions", "/v1/chat/completions"),
            ("/completions", "/v1/completions"),
            ("/V1/Images/Generations", "/v1/images/generations"),
            ("/api/v1/chat/completions", "/v1/chat/completions"),
            ("/openai/deployments/x/images/generations", "/v1/images/generations"),
            ("/v2/models", "/v1/models"),
            ("/models/sd-v1-5", "/v1/models/{*id}"),
            ("/v1/v1/images/files/x.png", "/v1/images/files/{name}"),
            ("/v1/image/generations", "/v1/images/generations"),
            ("/v1/images/generation", "/v1/images/generations"),
            ("/v1/images/generate", "/v1/images/generations"),
            ("/v1/images/edit", "/v1/images/edits"),
            ("/v1/model", "/v1/models"),
            ("/v1/embedding", "/v1/embeddings"),
            ("/v1/chat/completion", "/v1/chat/completions"),
            ("/healthz/", "/healthz"),
            ("/v1/healthz", "/healthz"),
        ] {
            assert_eq!(nearest_route(path, ROUTES), Some(route), "{path}");
        }
        for path in
            ["/v1/images", "/v1/images/", "/images", "/v1/images/variations", "/V1/v1/images/variations/"]
        {
            assert_eq!(
                nearest_route(path, ROUTES),
                Some("/v1/images/generations or /v1/images/edits"),
                "{path}"
            );
        }
        assert_ne!(
            nearest_route("/v1/images", &["/v1/images/edits"]),
            Some("/v1/images/generations or /v1/images/edits")
        );
        for path in
            ["/", "/v1", "/v1/", "", "*", "/favicon.ico", "/v1/audio/speech", "/v1/responses", "/v1/x"]
        {
            assert_eq!(nearest_route(path, ROUTES), None, "{path}");
        }
        assert_eq!(nearest_route(&format!("/{}/v1/models", "x".repeat(MAX_PATH_LEN)), ROUTES), None);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "[/a-zV1é%{}*]{0,40}") {
            let _ = nearest_route(&path, ROUTES);
        }
    }
}
