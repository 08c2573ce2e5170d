use super::*;

/// A client without a proxy.
fn direct() -> ClientInfo {
    ClientInfo::from_request("192.168.1.7".parse().unwrap(), &HeaderMap::new(), &[])
}

/// A client that requested this host from a trusted proxy.
fn forwarded(host: &str) -> ClientInfo {
    let peer: std::net::IpAddr = "192.168.1.7".parse().unwrap();
    ClientInfo::from_request(peer, &headers(&[("x-forwarded-host", host)]), &[peer.into()])
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (name.parse::<header::HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        })
        .collect()
}

#[test]
fn hosts() {
    let allowed_hosts = ["ada2.example.org", ".fritz.box"].map(|host| HostPattern::parse(host).unwrap());
    let guard = Guard { allowed_hosts: allowed_hosts.into(), ..Guard::default() };
    let of = |version: Version, uri: &'static str, hosts: &[&str]| {
        let mut request = Request::builder().version(version).uri(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append("host", HeaderValue::from_str(host).unwrap());
        }
        guard.check_host(&request, &direct())
    };
    let check = |host: &str| of(Version::HTTP_11, "/", &[host]);
    for ours in [
        "127.0.0.1:7860",
        "[::1]:7860",
        "ada2",
        "ada2:7860",
        "ADA2.local",
        "ada2.local.:7860",
        "x.home.arpa",
        "localhost",
        "a.localhost:1",
        "ada2.example.org",
        "ada2.example.org.",
        "ADA2.Example.Org:7860",
        "ada2.fritz.box:7860",
        "ada2.lan",
        "gpu.internal",
    ] {
        assert_eq!(check(ours), Ok(()), "{ours}");
    }
    for foreign in [
        "evil.example",
        "fritz.box",
        "xfritz.box",
        "ada2.local.evil.example:7860",
        "127.0.0.1.evil.example",
        "xlocal.com",
    ] {
        assert!(matches!(check(foreign), Err(GuardError::HostNotAllowed(_))), "{foreign}");
    }
    for bad in ["", ".", ":80", "a b", "me@ada2"] {
        assert_eq!(check(bad), Err(GuardError::InvalidHost), "{bad:?}");
    }
    let (old, new) = (Version::HTTP_10, Version::HTTP_11);
    assert_eq!(of(new, "/", &[]), Err(GuardError::InvalidHost));
    assert_eq!(of(old, "/", &[]), Ok(()));
    assert_eq!(of(old, "http://ada2/x", &[]), Ok(()));
    for version in [old, new] {
        assert_eq!(of(version, "http://evil.example/x", &["ada2"]), Err(GuardError::InvalidHost));
        assert_eq!(of(version, "/", &["ada2", "evil.example"]), Err(GuardError::InvalidHost));
    }
    for (uri, hosts) in [("/", &["evil.example"][..]), ("http://evil.example/x", &[])] {
        assert!(matches!(of(old, uri, hosts), Err(GuardError::HostNotAllowed(_))), "{uri} {hosts:?}");
    }
}

#[test]
fn origins() {
    let guard =
        Guard { allowed_origins: vec![WebOrigin::parse("https://ui.example").unwrap()], ..Guard::default() };
    let check = |origin: &str, host: &str| {
        guard.check_origin(&headers(&[("origin", origin), ("host", host)]), &direct()).is_ok()
    };
    assert!(guard.check_origin(&headers(&[("host", "ada2")]), &direct()).is_ok());
    assert!(check("http://ada2:7860", "ada2:7860"));
    assert!(check("http://ADA2", "ada2:80") && check("https://ada2", "ada2"));
    assert!(check("https://ui.example", "ada2:7860") && check("https://UI.example:443", "ada2:7860"));
    assert!(check("http://ada2.local:7860", "ada2.local.:7860"));
    for (origin, host) in [
        ("http://evil.example", "ada2:7860"),
        ("http://ada2:7861", "ada2:7860"),
        ("http://ada2", "ada2:7860"),
        ("null", "ada2:7860"),
        ("", "ada2:7860"),
        ("file://", "ada2"),
        ("app://ada2", "ada2"),
        ("http://ada2:99999", "ada2"),
        ("http://ui.example", "ada2:7860"),
        ("ada2:7860", "ada2:7860"),
        ("http://ada2.evil.example:7860", "ada2:7860"),
    ] {
        assert!(!check(origin, host), "{origin} at {host}");
    }
    let long = format!("http://{}", "x".repeat(5000));
    let refusal = guard.check_origin(&headers(&[("origin", &long), ("host", "ada2")]), &direct());
    assert!(
        matches!(refusal, Err(GuardError::OriginNotAllowed(text)) if text.len() == 100),
        "foreign text is cut"
    );
    let mut twice = headers(&[("origin", "http://ada2"), ("host", "ada2")]);
    twice.append("origin", HeaderValue::from_static("http://evil.example"));
    assert!(guard.check_origin(&twice, &direct()).is_err());
}

#[test]
fn a_trusted_x_forwarded_host_replaces_host() {
    let guard = Guard {
        allowed_hosts: vec![HostPattern::parse("pics.example").unwrap()],
        allowed_origins: Vec::new(),
    };
    let host = |host: &str| {
        let request = Request::builder().uri("/").header("host", "ada2:7860").body(()).unwrap();
        guard.check_host(&request, &forwarded(host))
    };
    assert_eq!((host("pics.example"), host("ai2.local:8800")), (Ok(()), Ok(())));
    assert_eq!(host("evil.example"), Err(GuardError::HostNotAllowed("evil.example".to_owned())));
    let check = |origin: &str, host: &str| {
        guard.check_origin(&headers(&[("origin", origin), ("host", "ada2:7860")]), &forwarded(host)).is_ok()
    };
    assert!(
        check("https://pics.example", "pics.example") && check("https://pics.example", "pics.example:443")
    );
    assert!(check("http://pics.example", "pics.example:80"));
    for (origin, host) in [
        ("http://ada2:7860", "pics.example"),
        ("https://pics.example:8443", "pics.example"),
        ("https://evil.example", "pics.example"),
    ] {
        assert!(!check(origin, host), "{origin} at {host}");
    }
}

#[test]
fn a_list_is_split_at_commas_but_not_within_a_password() {
    for (text, items) in [
        ("", &[][..]),
        (" a.example, ,http://ui:8080,b", &["a.example", "http://ui:8080", "b"]),
        ("ada2,http://me:x,y@ui,b", &["ada2", "http://me:x,y@ui", "b"]),
        ("http://a:1,http://me@b", &["http://a:1", "http://me@b"]),
    ] {
        assert_eq!(split_entries(text), items, "{text}");
    }
}

#[test]
fn both_lists_are_read_and_an_entry_that_could_never_match_is_a_problem() {
    use crate::settings::SettingSpec;
    const KEYS: &[SettingSpec] =
        &[SettingSpec::new("hosts", "T_HOSTS", ""), SettingSpec::new("origins", "T_ORIGINS", "")];
    let read = |hosts: &str, origins: &str| {
        let flags = clap::Command::new("t").get_matches_from(["t"]);
        let env = |name: &str| Some(if name == "T_HOSTS" { hosts } else { origins }.to_owned());
        let mut settings = Settings::resolve(KEYS, &flags, &env, &|_| None);
        let guard = Guard::from_settings(&mut settings, "hosts", "origins");
        (guard, settings.problems.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (guard, problems) = read("ada2.example, .fritz.box", "https://ui.example");
    let guard = guard.unwrap();
    assert!(guard.allowed_hosts[0].matches("ada2.example") && guard.allowed_hosts[1].matches("a.fritz.box"));
    assert_eq!(guard.allowed_origins, [WebOrigin::parse("https://ui.example").unwrap()]);
    assert_eq!(problems, [""; 0]);
    let (guard, problems) = read("ada2.example", "http://me:hu,sh@ui, ui");
    assert!(guard.is_none() && problems.len() == 2, "{problems:?}");
    assert!(problems[0].contains("no user name or password") && !problems[0].contains("sh"), "{problems:?}");
    assert!(problems[1].contains("found \"ui\""), "{problems:?}");
}
