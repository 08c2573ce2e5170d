use super::*;

const XFF: &str = "x-forwarded-for";

fn client(peer: &str, lines: &[(&'static str, &str)]) -> ClientInfo {
    let headers = lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let proxies: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1/32".parse().unwrap()];
    ClientInfo::from_request(peer.parse().unwrap(), &headers, &proxies)
}

#[test]
fn only_proxies_are_trusted_and_from_the_right() {
    for (peer, lines, address, doubtful) in [
        ("192.168.1.7", &[][..], "192.168.1.7", false),
        ("::ffff:192.168.1.7", &[], "192.168.1.7", false),
        ("192.168.1.7", &[(XFF, "1.2.3.4")], "192.168.1.7", true),
        ("192.168.1.7", &[("forwarded", "for=1.2.3.4")], "192.168.1.7", true),
        ("192.168.1.7", &[("x-real-ip", "1.2.3.4")], "192.168.1.7", true),
        ("::1", &[(XFF, "1.2.3.4")], "::1", true),
        ("10.0.0.1", &[], "10.0.0.1", false),
        ("10.0.0.1", &[(XFF, "1.2.3.4")], "1.2.3.4", false),
        ("10.0.0.1", &[(XFF, "192.168.1.1, 1.2.3.4")], "1.2.3.4", false),
        ("10.0.0.1", &[(XFF, "192.168.1.1, 1.2.3.4, 10.9.9.9")], "1.2.3.4", false),
        ("10.0.0.1", &[(XFF, "192.168.1.1"), (XFF, "1.2.3.4")], "1.2.3.4", false),
        ("10.0.0.1", &[(XFF, "10.1.1.1")], "10.1.1.1", false),
        ("10.0.0.1", &[(XFF, "::ffff:1.2.3.4")], "1.2.3.4", false),
        ("10.0.0.1", &[(XFF, "192.168.1.1, nonsense")], "10.0.0.1", true),
        ("10.0.0.1", &[(XFF, "")], "10.0.0.1", true),
    ] {
        let client = client(peer, lines);
        assert_eq!(
            (client.address.to_string(), client.forwarding_error.is_some()),
            (address.to_owned(), doubtful),
            "{lines:?}"
        );
    }
}

#[test]
fn every_notation_of_a_forwarded_address_is_parsed() {
    for (lines, address) in [
        (&[(XFF, "1.2.3.4:567")][..], "1.2.3.4"),
        (&[(XFF, "[2001:db8::1]:80")], "2001:db8::1"),
        (&[(XFF, "\"[2001:db8::1]:4711\"")], "2001:db8::1"),
        (&[(XFF, "[::ffff:1.2.3.4]:80")], "1.2.3.4"),
        (&[(XFF, "9.9.9.9:1 ,1.2.3.4:567,  10.9.9.9:8080")], "1.2.3.4"),
        (&[(XFF, "1.2.3.4, , ,")], "1.2.3.4"),
        (&[("forwarded", "for=1.2.3.4")], "1.2.3.4"),
        (&[("forwarded", "for=9.9.9.9, For=\"1.2.3.4:567\";proto=https, for=10.9.9.9")], "1.2.3.4"),
        (&[("forwarded", "for=\"[2001:db8::1]:4711\"")], "2001:db8::1"),
        (&[("forwarded", "for=_hidden, for=1.2.3.4")], "1.2.3.4"),
        (&[("forwarded", "proto=https;host=ai2")], "10.0.0.1"),
        (&[("x-real-ip", "1.2.3.4")], "1.2.3.4"),
        (&[("x-real-ip", "[2001:db8::1]:80")], "2001:db8::1"),
        (&[(XFF, "1.2.3.4:1"), ("forwarded", "for=1.2.3.4"), ("x-real-ip", "::ffff:1.2.3.4")], "1.2.3.4"),
    ] {
        let client = client("10.0.0.1", lines);
        assert_eq!(
            (client.address.to_string(), client.forwarding_error),
            (address.to_owned(), None),
            "{lines:?}"
        );
    }
}

#[test]
fn hidden_or_contradicting_addresses_are_uncertain() {
    for (lines, doubt) in [
        (&[("forwarded", "for=_hidden")][..], ForwardingError::Malformed),
        (&[("forwarded", "for=unknown")], ForwardingError::Malformed),
        (&[("forwarded", "for=1.2.3.4, proto=https")], ForwardingError::Malformed),
        (&[("forwarded", "for=\"1.2.3.4")], ForwardingError::Malformed),
        (&[("forwarded", "x\"y=z, for=1.2.3.4")], ForwardingError::Malformed),
        (&[(XFF, "1.2.3.4:99999")], ForwardingError::Malformed),
        (&[(XFF, "1.2.3.4, unknown, 10.1.1.1")], ForwardingError::Malformed),
        (&[("x-real-ip", "ada2")], ForwardingError::Malformed),
        (&[(XFF, "1.2.3.4"), ("x-forwarded-host", "a b")], ForwardingError::Malformed),
        (&[(XFF, "1.2.3.4"), ("x-real-ip", "1.2.3.5")], ForwardingError::Conflicting),
        (&[(XFF, "1.2.3.4"), ("forwarded", "for=1.2.3.5")], ForwardingError::Conflicting),
        (&[("x-real-ip", "1.2.3.4"), ("forwarded", "for=1.2.3.5")], ForwardingError::Conflicting),
        (&[("x-real-ip", "1.2.3.4"), ("x-real-ip", "10.1.1.1")], ForwardingError::Conflicting),
        (
            &[("x-forwarded-proto", "https"), ("forwarded", "for=1.2.3.4;proto=http")],
            ForwardingError::Conflicting,
        ),
        (&[("x-forwarded-host", "ai2"), ("forwarded", "for=1.2.3.4;host=ai3")], ForwardingError::Conflicting),
    ] {
        assert_eq!(client("10.0.0.1", lines).forwarding_error, Some(doubt), "{lines:?}");
    }
}

#[test]
fn scheme_and_host_are_those_of_the_outermost_trusted_proxy() {
    let (proto, host) = ("x-forwarded-proto", "x-forwarded-host");
    for (lines, expected) in [
        (&[(proto, "https"), (host, "pics.example")][..], "https://pics.example"),
        (&[(proto, "https")], "https://ada2:7860"),
        (&[(host, "Pics.example:8443")], "http://pics.example:8443"),
        (&[("forwarded", "for=1.2.3.4;proto=https;host=\"pics.example:8443\"")], "https://pics.example:8443"),
        (&[("forwarded", "proto=https;host=pics.example")], "https://pics.example"),
        // Whatever stands left of the client's own address is the client's own.
        (
            &[(XFF, "1.2.3.4"), (proto, "http, https"), (host, "evil.example, pics.example")],
            "https://pics.example",
        ),
        (
            &[(XFF, "1.2.3.4, 10.9.9.9"), (proto, "https, http"), (host, "pics.example, ada2")],
            "https://pics.example",
        ),
        (&[(XFF, "1.2.3.4, 10.9.9.9"), (proto, "https"), (host, "pics.example")], "https://pics.example"),
        (
            &[(
                "forwarded",
                "for=6.6.6.6;host=evil.example, for=1.2.3.4;host=pics.example;proto=https, for=10.9.9.9;host=ada2",
            )],
            "https://pics.example",
        ),
        (&[(proto, "wss")], "https://ada2:7860"),
        (&[(proto, "gopher")], "http://ada2:7860"),
    ] {
        let client = client("10.0.0.1", lines);
        let headers = HeaderMap::from_iter([(header::HOST, "ada2:7860".parse().unwrap())]);
        assert_eq!(client.base_url(&headers, "http").as_deref(), Some(expected), "{lines:?}");
        assert_eq!(client.forwarding_error, None, "{lines:?}");
    }
    let stranger = client("192.168.1.7", &[(proto, "https"), (host, "evil.example")]);
    assert_eq!(
        (stranger.scheme, stranger.host, stranger.forwarding_error),
        (None, None, None),
        "nobody's business"
    );
    assert_eq!(client("10.0.0.1", &[]).base_url(&HeaderMap::new(), "http"), None);
}

#[test]
fn mapped_addresses_are_unmapped() {
    let ranges: Vec<IpNet> = PRIVATE_RANGES.split(',').map(|range| range.trim().parse().unwrap()).collect();
    for inside in ["127.0.0.1", "::1", "::ffff:192.168.1.7", "100.100.1.1", "fe80::1"] {
        assert!(is_in_ranges(inside.parse().unwrap(), &ranges), "{inside}");
    }
    for outside in ["8.8.8.8", "::ffff:8.8.8.8", "2001:db8::1", "100.128.0.1"] {
        assert!(!is_in_ranges(outside.parse().unwrap(), &ranges), "{outside}");
    }
}
