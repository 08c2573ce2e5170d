use super::*;
use axum::{body::Body, http::Method};
use service::{
    guard::{Guard, WebOrigin},
    secret::Secret,
};

fn access() -> AccessConfig {
    let token = |name: &str, text| Arc::new(Token::named(name, Secret::new(text).unwrap()));
    AccessConfig {
        tokens: vec![token("alice", "0123456789abcdef"), token("bob", "fedcba9876543210")],
        auth_required: true,
        api_ranges: Vec::new(),
        ui_ranges: vec!["127.0.0.0/8".parse().unwrap()],
        trusted_proxies: Vec::new(),
        guard: Guard::default(),
    }
}

/// The status, or the caller's name.
fn passes(access: &AccessConfig, path: &str, address: &str, lines: &[(&str, &str)]) -> Result<String, u16> {
    asks(access, Method::GET, path, address, lines)
}

/// The same with another method.
fn asks(
    access: &AccessConfig,
    method: Method,
    path: &str,
    address: &str,
    lines: &[(&str, &str)],
) -> Result<String, u16> {
    let mut request = Request::builder().method(method).uri(path).header("host", "ai2");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let client =
        ClientInfo::from_request(address.parse().unwrap(), request.headers(), &access.trusted_proxies);
    let record = RequestRecord::default();
    match authorize(access, &client, &request, &record) {
        Ok(admitted) => Ok(match (record.caller(), admitted) {
            (Some(name), _) => name,
            (None, AuthOutcome::Authenticated(_)) => "unnamed".to_owned(),
            (None, AuthOutcome::Anonymous) => "anonymous".to_owned(),
            (None, AuthOutcome::Preflight) => "preflight".to_owned(),
            (None, AuthOutcome::StartPage) => "start page".to_owned(),
        }),
        Err(error) => Err(error.into_response().status().as_u16()),
    }
}

const ALICE: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");

#[test]
fn every_path_but_the_open_ones_needs_a_token() {
    let access = access();
    for path in [
        "/v1/models",
        "/v1/images/generations",
        "/",
        "/healthz/",
        "/HEALTHZ",
        "//healthz",
        "/ui/",
        "/x",
        "/metrics",
        "/ui/images/",
        "/ui/images/a/b",
        "/ui/thumbnails/a/b",
        "/ui/page/",
        "/ui/page/main",
        "/ui/page/a/b/main.js",
        "/ui/page/../main.js",
        "/ui/page/a//main.js",
        "/ui/page/Main.js",
        "/ui/page/%6dain.js",
        "/ui/page/.js",
        "/ui/page/a.",
        "/ui/page/a..js",
        "/%68ealthz",
        "/readyz/x",
    ] {
        let open = path == "/ui/images/";
        let expected = if open { Ok("anonymous".to_owned()) } else { Err(401) };
        assert_eq!(passes(&access, path, "127.0.0.1", &[]), expected, "{path}");
        assert_eq!(passes(&access, path, "127.0.0.1", &[ALICE]).as_deref(), Ok("alice"), "{path}");
    }
    for path in [
        "/healthz",
        "/readyz",
        "/ui",
        "/ui/images/x.png",
        "/ui/thumbnails/x.png",
        "/ui/page/main.js",
        "/ui/page/a-1_b/line.min.js",
    ] {
        assert_eq!(passes(&access, path, "127.0.0.1", &[]).as_deref(), Ok("anonymous"), "{path}");
    }
}

#[test]
fn no_other_credential_is_good() {
    let access = access();
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "Basic 0123456789abcdef",
        "Bearer 0123456789abcdeX",
        "0123456789abcdef",
    ] {
        assert_eq!(
            passes(&access, "/v1/models", "127.0.0.1", &[("authorization", value)]),
            Err(401),
            "{value:?}"
        );
    }
    assert_eq!(passes(&access, "/v1/models", "127.0.0.1", &[ALICE, ("authorization", "Bearer x")]), Err(401));
    let bob = ("authorization", "bearer fedcba9876543210");
    assert_eq!(passes(&access, "/v1/models", "127.0.0.1", &[bob]).as_deref(), Ok("bob"));
}

#[test]
fn addresses_are_checked_before_tokens() {
    let mut access = access();
    access.api_ranges = vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(passes(&access, "/v1/models", "192.168.1.1", &[]), Err(403));
    assert_eq!(passes(&access, "/v1/models", "192.168.1.1", &[ALICE]), Err(403));
    assert_eq!(passes(&access, "/v1/models", "10.1.1.1", &[]), Err(401));
    assert_eq!(passes(&access, "/v1/models", "10.1.1.1", &[ALICE]).as_deref(), Ok("alice"));
    assert_eq!(passes(&access, "/ui/images/x", "10.1.1.1", &[]), Err(403), "images have their own list");
    access.ui_ranges.clear();
    assert_eq!(
        passes(&access, "/ui/images/x", "127.0.0.1", &[ALICE]),
        Err(403),
        "an empty list allows nobody"
    );
}

#[test]
fn a_forwarding_header_from_a_stranger_closes_what_the_address_alone_guards() {
    let mut access = access();
    let tale = ("x-forwarded-for", "127.0.0.1");
    assert_eq!(passes(&access, "/ui/images/x", "127.0.0.1", &[tale]), Err(403));
    assert_eq!(passes(&access, "/v1/models", "127.0.0.1", &[tale, ALICE]).as_deref(), Ok("alice"));
    access.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    assert!(passes(&access, "/ui/images/x", "127.0.0.1", &[tale]).is_ok());
    assert_eq!(passes(&access, "/ui/images/x", "127.0.0.1", &[("x-forwarded-for", "8.8.8.8")]), Err(403));
}

#[test]
fn origins_are_checked_where_no_token_is_and_hosts_everywhere() {
    let mut access = access();
    let evil = ("origin", "https://evil.example");
    for path in ["/healthz", "/readyz", "/ui", "/ui/images/x.png"] {
        assert_eq!(passes(&access, path, "127.0.0.1", &[evil, ALICE]), Err(403), "{path}");
        assert!(passes(&access, path, "127.0.0.1", &[("origin", "http://ai2")]).is_ok(), "{path}");
    }
    assert!(passes(&access, "/v1/models", "127.0.0.1", &[evil, ALICE]).is_ok());
    access.auth_required = false;
    assert_eq!(passes(&access, "/v1/models", "127.0.0.1", &[evil]), Err(403));
    assert_eq!(passes(&access, "/v1/models", "127.0.0.1", &[]).as_deref(), Ok("unnamed"));
    let request =
        Request::builder().uri("/v1/models").header("host", "evil.example").body(Body::empty()).unwrap();
    let client = ClientInfo::from_request("127.0.0.1".parse().unwrap(), request.headers(), &[]);
    let refused =
        authorize(&access, &client, &request, &RequestRecord::default()).unwrap_err().into_response();
    assert_eq!(refused.status().as_u16(), 421);
}

#[test]
fn a_preflight_of_an_allowed_origin_needs_no_token() {
    let mut access = access();
    access.guard.allowed_origins = vec![WebOrigin::parse("https://ui.example").unwrap()];
    access.api_ranges = vec!["127.0.0.0/8".parse().unwrap()];
    let asks = |method: Method, path: &str, address: &str, origin: &str| {
        let lines = [("origin", origin), ("access-control-request-method", "POST")];
        asks(&access, method, path, address, &lines)
    };
    let ui = "https://ui.example";
    for path in ["/v1/models", "/v1/nothing", "/ui/images/x.png", "/healthz"] {
        assert_eq!(asks(Method::OPTIONS, path, "127.0.0.1", ui).as_deref(), Ok("preflight"), "{path}");
        for evil in ["https://evil.example", "null", "http://ui.example"] {
            assert_eq!(asks(Method::OPTIONS, path, "127.0.0.1", evil), Err(403), "{path} {evil}");
        }
    }
    assert_eq!(asks(Method::OPTIONS, "/v1/models", "192.168.1.1", ui), Err(403), "addresses first");
    assert_eq!(asks(Method::POST, "/v1/models", "127.0.0.1", ui), Err(401));
    assert_eq!(asks(Method::OPTIONS, "/tools", "127.0.0.1", ui), Err(401), "not ours");
}

#[test]
fn a_person_at_the_bare_address_is_sent_to_the_page() {
    let access = access();
    let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let document = ("sec-fetch-dest", "document");
    for method in [Method::GET, Method::HEAD] {
        for line in [html, document] {
            let sent = asks(&access, method.clone(), "/", "8.8.8.8", &[line]);
            assert_eq!(sent.as_deref(), Ok("start page"), "{method} {line:?}");
        }
    }
    assert_eq!(asks(&access, Method::POST, "/", "127.0.0.1", &[html]), Err(401));
    for (path, lines) in [
        ("/", &[("accept", "*/*")][..]),
        ("/", &[("accept", "application/json")]),
        ("/x", &[html]),
        ("/v1/models", &[html, document]),
    ] {
        assert_eq!(passes(&access, path, "127.0.0.1", lines), Err(401), "{path} {lines:?}");
    }
    assert_eq!(passes(&access, "/", "127.0.0.1", &[html, ("origin", "https://evil.example")]), Err(403));
}

#[test]
fn a_trusted_proxy_must_name_the_client_where_addresses_are_checked() {
    let mut access = access();
    access.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let hidden = ("forwarded", "for=_hidden");
    let differ = [("x-forwarded-for", "10.1.1.1"), ("x-real-ip", "10.1.1.2"), ALICE];
    let ask =
        |access: &AccessConfig, path: &str, lines: &[(&str, &str)]| passes(access, path, "127.0.0.1", lines);
    assert_eq!(
        ask(&access, "/v1/models", &[hidden, ALICE]).as_deref(),
        Ok("alice"),
        "any address is allowed"
    );
    assert_eq!(ask(&access, "/v1/models", &differ), Err(403));
    assert_eq!(ask(&access, "/ui/images/x", &[hidden, ALICE]), Err(403));
    assert!(ask(&access, "/healthz", &differ).is_ok(), "health answers everybody");
    access.api_ranges = vec!["127.0.0.0/8".parse().unwrap()];
    assert_eq!(
        ask(&access, "/v1/models", &[hidden, ALICE]),
        Err(403),
        "the proxy's own address is not the caller's"
    );
    access.auth_required = false;
    access.api_ranges.clear();
    access.trusted_proxies.clear();
    assert_eq!(
        ask(&access, "/v1/models", &[("x-forwarded-for", "127.0.0.1")]),
        Err(403),
        "nothing else guards it"
    );
}
