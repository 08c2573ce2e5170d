//! Which route a caller meant whose path is none: base addresses with and without `/v1` end up doubled or missing, and
//! slashes are left over. Pure.

use super::settings::nearest;

/// Bytes of a path that is compared: no route is nearly that long, and comparing costs length by length.
const MAX_PATH_LEN: usize = 200;

/// The route that this path most likely means, or two of them in words. Routes are written as axum has them: `/v1/models/{id}`.
pub fn nearest_route<'a>(path: &str, routes: &[&'a str]) -> Option<&'a str> {
    if path.len() > MAX_PATH_LEN {
        return None;
    }
    let path = path.to_ascii_lowercase();
    let given = segments(&path);
    // The longest end that they have in common: `/openai/v1/chat/completions` means a chat.
    let ends = routes.iter().filter(|route| {
        let route = unversioned(route);
        !route.is_empty()
            && given.len() >= route.len()
            && matches(&given[given.len() - route.len()..], &route)
    });
    let end = ends.max_by_key(|route| {
        let route = unversioned(route);
        // A word of the route tells more than a place for any word.
        (route.iter().filter(|segment| !is_placeholder(segment)).count(), route.len())
    });
    if let (None, Some(both)) = (end, image_routes(&given, routes)) {
        return Some(both);
    }
    end.or_else(|| {
        let written = unversioned(&path).join("/");
        let normalized: Vec<_> = routes.iter().map(|route| (unversioned(route).join("/"), route)).collect();
        let near = nearest(&written, normalized.iter().map(|(known, _)| known.as_str()))?;
        normalized.iter().find(|(known, _)| known == near).map(|(_, route)| *route)
    })
    .copied()
}

/// What is meant by the folder of the images' routes, and by OpenAI's third, which has no counterpart here: the other two.
fn image_routes(given: &[&str], routes: &[&str]) -> Option<&'static str> {
    let is_meant = given.ends_with(&["images"]) || given.ends_with(&["images", "variations"]);
    let are_there = ["/v1/images/generations", "/v1/images/edits"].iter().all(|route| routes.contains(route));
    (is_meant && are_there).then_some("/v1/images/generations or /v1/images/edits")
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// Without the version at its beginning, however often it is there.
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
    fn what_a_path_means_is_told_by_its_end_or_by_a_slip() {
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
