//! Access to the sidecar: hosts, origins, bodies, tokens, paths.

use e2e::sidecar::Sidecar;
use fakes::{TestResponse, raw_http::RawClient};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Sends bytes as they are and reads to the end.
async fn raw(sidecar: &Sidecar, request: &str) -> String {
    let address = sidecar.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn only_allowed_host_names_are_answered() {
    let sidecar = Sidecar::builtin(&["--allowed-hosts", "ada2.example.org"]).await;
    for host in ["127.0.0.1", "ada2", "ada2.local:7860", "ada2.example.org"] {
        let answer = raw(&sidecar, &get("/healthz", &format!("Host: {host}\r\n"))).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    for path in ["/healthz", "/readyz", "/v1/models", "/anything"] {
        let answer = raw(&sidecar, &get(path, "Host: rebound.evil.example\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{path}: {answer}");
        assert!(answer.contains("allowed_hosts") && answer.contains("host_not_allowed"), "{answer}");
    }
    for headers in ["", "Host: ada2\r\nHost: evil.example\r\n", "Host: a@ada2\r\n"] {
        let answer = raw(&sidecar, &get("/healthz", headers)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers:?}: {answer}");
    }
}

#[tokio::test]
async fn a_request_of_http_1_0_need_not_name_a_host() {
    let sidecar = Sidecar::builtin(&["--allowed-hosts", "ada2.example.org"]).await;
    let ask = async |line: &str, headers: &str| raw(&sidecar, &format!("{line}\r\n{headers}\r\n")).await;
    for (line, headers, status) in [
        ("GET /healthz HTTP/1.0", "", "200"),
        ("GET /v1/models HTTP/1.0", "", "200"),
        ("GET http://ada2/healthz HTTP/1.0", "", "200"),
        ("GET http://evil.example/healthz HTTP/1.0", "", "421"),
        ("GET /healthz HTTP/1.0", "Host: evil.example\r\n", "421"),
        ("GET /healthz HTTP/1.0", "Host: a\r\nHost: a\r\n", "400"),
        ("GET /healthz HTTP/1.0", "Origin: http://evil.example\r\n", "403"),
        ("GET /healthz HTTP/1.1", "Connection: close\r\n", "400"),
    ] {
        let answer = ask(line, headers).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{line} {headers}: {answer}");
    }
    sidecar.until_ready().await;
    let body = r#"{"prompt":"p","size":"64x64","response_format":"url"}"#;
    let headers = format!("Content-Length: {}\r\nContent-Type: application/json\r\n", body.len());
    let request = format!("POST /v1/images/generations HTTP/1.0\r\n{headers}\r\n{body}");
    let answer = raw(&sidecar, &request).await;
    assert!(
        answer.contains(r#""url":"/v1/images/files/"#),
        "a URL with the host that the client used: {answer}"
    );
}

#[tokio::test]
async fn a_suffix_stands_for_every_name_below_it() {
    let sidecar = Sidecar::builtin(&["--allowed-hosts", ".fritz.box,ada2.example.org"]).await;
    for (host, status) in [
        ("ada2.fritz.box", "200"),
        ("ADA2.Fritz.Box:7860", "200"),
        ("a.b.fritz.box.", "200"),
        ("fritz.box", "421"),
        ("xfritz.box", "421"),
        ("ada2.fritz.box.evil.example", "421"),
        ("x.ada2.example.org", "421"),
    ] {
        let answer = raw(&sidecar, &get("/healthz", &format!("Host: {host}\r\n"))).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{host}: {answer}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_before_anything_runs() {
    let sidecar = Sidecar::builtin(&["--allowed-origins", "https://ui.example.org"]).await;
    let host = "Host: ada2:7860\r\n";
    for origin in ["http://evil.example", "null", "http://ada2:7861", "https://ada2:7860.evil.example"] {
        for path in ["/healthz", "/readyz", "/v1/models", "/anything"] {
            let answer = raw(&sidecar, &get(path, &format!("{host}Origin: {origin}\r\n"))).await;
            assert!(
                answer.starts_with("HTTP/1.1 403 ") && answer.contains("cross_origin"),
                "{origin}: {answer}"
            );
        }
    }
    for origin in ["http://ada2:7860", "https://ui.example.org"] {
        let answer = raw(&sidecar, &get("/healthz", &format!("{host}Origin: {origin}\r\n"))).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{origin}: {answer}");
    }
}

#[tokio::test]
async fn a_token_guards_v1_and_allows_any_origin() {
    let sidecar = Sidecar::builtin(&["--token", "a-long-secret-token"]).await;
    sidecar.until_ready().await;
    let models = format!("{}/v1/models", sidecar.url);
    for credential in ["", "Bearer ", "Bearer a-long-secret-toke", "Basic a-long-secret-token"] {
        let answer = TestResponse::read(
            fakes::http().get(&models).header("authorization", credential).send().await.unwrap(),
        )
        .await;
        assert_eq!((answer.status, answer.code()), (401, "invalid_api_key"), "{credential:?}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert!(!answer.json.to_string().contains("a-long-secret"));
    }
    let with = fakes::http().get(&models).header("authorization", "Bearer a-long-secret-token");
    let answer = TestResponse::read(with.header("origin", "https://any.example").send().await.unwrap()).await;
    assert_eq!(answer.status, 200);
    let bare =
        async |path: &str| fakes::http().get(format!("{}{path}", sidecar.url)).send().await.unwrap().status();
    assert_eq!(bare("/healthz").await, 200, "health is public");

    let ask = json!({"prompt": "a boat", "size": "64x64", "response_format": "url"});
    let request = fakes::http().post(format!("{}/v1/images/generations", sidecar.url)).body(ask.to_string());
    let made = TestResponse::read(
        request
            .header("content-type", "application/json")
            .bearer_auth("a-long-secret-token")
            .send()
            .await
            .unwrap(),
    )
    .await;
    let url = made.json["data"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix(&sidecar.url).unwrap();
    assert_eq!(bare(path).await, 200, "whoever has an image's URL can fetch it");
    assert_eq!(bare("/v1/images/files/0123.png").await, 404);
    assert_eq!(bare("/v1/images/files/").await, 401);
    assert_eq!(bare(&format!("{path}/..%2f..%2fmodels")).await, 401);
}

#[tokio::test]
async fn a_token_beside_another_credential_is_rejected() {
    let sidecar = Sidecar::builtin(&["--token", "a-long-secret-token"]).await;
    sidecar.until_ready().await;
    let (ours, theirs) =
        ("Authorization: Bearer a-long-secret-token\r\n", "Authorization: Basic bWU6bWU=\r\n");
    let ask = async |lines: &str| raw(&sidecar, &get("/v1/models", &format!("Host: ada2\r\n{lines}"))).await;
    assert!(ask(ours).await.starts_with("HTTP/1.1 200 "));
    for lines in [format!("{ours}{theirs}"), format!("{theirs}{ours}"), format!("{ours}{ours}")] {
        let answer = ask(&lines).await;
        assert!(
            answer.starts_with("HTTP/1.1 401 ") && answer.contains("invalid_api_key"),
            "{lines}: {answer}"
        );
    }
}

#[tokio::test]
async fn undecodable_requests_get_the_error_envelope() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    let long = format!("/v1/models/{}", "x".repeat(8000));
    for (path, status, code) in [
        ("/readyz/%ff", 404, "not_found"),
        ("/readyz/%C3%28", 404, "not_found"),
        ("/v1/models/%ff", 404, "model_not_found"),
        ("/v1/models/a/%ff/b", 404, "model_not_found"),
        (long.as_str(), 404, "model_not_found"),
        ("/v1/images/files/%ff", 404, "not_found"),
        ("/v1/images/%ff", 404, "not_found"),
        ("/v1/%ff", 404, "not_found"),
        ("/gpu/%ff", 404, "not_found"),
        ("/gpu?query=%ff", 400, "invalid_value"),
        ("/gpu?query=name&format=%ff", 400, "invalid_value"),
        ("/gpu?query=%", 400, "invalid_value"),
    ] {
        let url = format!("{}{path}", sidecar.url);
        let answer = TestResponse::read(fakes::http().get(&url).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{path:.100}");
        assert_eq!(answer.header("content-type"), "application/json", "{path:.100}");
        assert!(answer.message().len() < 2000, "{path:.100}: {}", answer.message());
        assert_eq!(answer.json["detail"], answer.json["error"]["message"], "{path:.100}");
    }
}

#[tokio::test]
async fn generation_is_limited_by_address_and_health_is_public() {
    let sidecar = Sidecar::builtin(&["--allow-from", "10.0.0.0/8"]).await;
    sidecar.until_ready().await;
    let forwarded =
        fakes::http().get(format!("{}/v1/models", sidecar.url)).header("x-forwarded-for", "10.0.0.1");
    let answer = TestResponse::read(forwarded.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code()), (403, "ip_not_allowed"), "a header is no address");
}

#[tokio::test]
async fn bodies_are_bounded_plain_and_one_json_object() {
    let sidecar = Sidecar::builtin(&["--max-request-bytes", "2KiB"]).await;
    sidecar.until_ready().await;
    let url = format!("{}/v1/images/generations", sidecar.url);
    let post = async |body: String, encoding: Option<&str>| {
        let mut request = fakes::http().post(&url).header("content-type", "application/json").body(body);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        TestResponse::read(request.send().await.unwrap()).await
    };
    let large = json!({"prompt": "x".repeat(3000)}).to_string();
    for (body, encoding, status, code) in [
        (large, None, 413, "request_too_large"),
        ("x".to_owned(), Some("gzip"), 415, "encoded_body"),
        ("[]".to_owned(), None, 400, "invalid_body"),
        (r#"{"prompt":"a","n":1,"n":4}"#.to_owned(), None, 400, "invalid_value"),
        (r#"{"prompt":"a","size":"7x7"}"#.to_owned(), None, 400, "invalid_size"),
        (r#"{"prompt":"a","n":9}"#.to_owned(), None, 400, "invalid_value"),
        (r#"{"prompt":"a","stream":"yes"}"#.to_owned(), None, 400, "invalid_value"),
    ] {
        let answer = post(body.clone(), encoding).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{body:.60}: {answer:?}");
        assert_eq!(answer.json["detail"], answer.json["error"]["message"]);
    }
}

#[tokio::test]
async fn paths_match_exactly_and_every_refusal_has_the_envelope() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    for path in [
        "/nothing",
        "/healthz/",
        "//healthz",
        "/%68ealthz",
        "/readyz/none",
        "/v1/",
        "/v1/images",
        "/V1/models",
    ] {
        let answer =
            TestResponse::read(fakes::http().get(format!("{}{path}", sidecar.url)).send().await.unwrap())
                .await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}");
    }
    let wrong = TestResponse::read(
        fakes::http().get(format!("{}/v1/images/generations", sidecar.url)).send().await.unwrap(),
    )
    .await;
    assert_eq!((wrong.status, wrong.code(), wrong.header("allow")), (405, "method_not_allowed", "POST"));
}

#[tokio::test]
async fn a_valid_request_id_is_kept_and_any_other_replaced() {
    let sidecar = Sidecar::builtin(&[]).await;
    let ask = async |id: &str| {
        let request = fakes::http().get(format!("{}/healthz", sidecar.url)).header("x-request-id", id);
        TestResponse::read(request.send().await.unwrap()).await.header("x-request-id").to_owned()
    };
    assert_eq!(ask("abc-1.2_3").await, "abc-1.2_3");
    for odd in ["a b", "a\"b", &"x".repeat(129)] {
        let id = ask(odd).await;
        assert!(id != odd && id.len() == 36, "{id}");
    }
}

#[tokio::test]
async fn headers_are_bounded_in_number_and_size() {
    let sidecar = Sidecar::builtin(&[]).await;
    let many = "X-Many: y\r\n".repeat(200);
    let answer = raw(&sidecar, &get("/healthz", &format!("Host: ada2\r\n{many}"))).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let long = "y".repeat(300_000);
    let answer = raw(&sidecar, &get("/healthz", &format!("Host: ada2\r\nX-Long: {long}\r\n"))).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{answer}");
}

#[tokio::test]
async fn stalled_bodies_do_not_block_health() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    let head = "POST /v1/images/generations HTTP/1.1\r\nHost: ada2\r\nContent-Type: application/json\r\n\
        Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n";
    let mut slow = Vec::new();
    for _ in 0..256 {
        let mut wire = RawClient::to(&sidecar.url).await;
        wire.send(head).await;
        let interim = fakes::bounded("100 Continue", wire.until(b"\r\n\r\n")).await.expect("it is admitted");
        assert!(interim.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&interim));
        wire.send("{").await;
        slow.push(wire);
    }
    let answer = raw(&sidecar, &get("/healthz", "Host: ada2\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "all slots are taken: {answer:?}");
}
