//! Stored images and how they are served.

use e2e::gateway::{Gateway, gpu_heavy};
use fakes::upstream::Upstream;
use reqwest::{Method, Response};
use serde_json::json;

async fn stored(gateway: &Gateway) -> (String, Vec<u8>) {
    let answer = gateway.generate(&json!({"prompt": "p", "size": "64x64"})).await;
    let url = answer.json["data"][0]["url"].as_str().unwrap().to_owned();
    let bytes = gateway.image(&url).await;
    (url, bytes)
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_stored_image_is_served_with_security_headers() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let (url, bytes) = stored(&gateway).await;
    let etag = format!("\"{}\"", url.split(['_', '.']).nth(1).unwrap());
    for method in [Method::GET, Method::HEAD] {
        let response = gateway.anonymous(method.clone(), &url).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        for (name, value) in [
            ("content-type", "image/png"),
            ("content-length", &bytes.len().to_string()),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "public, max-age=31536000, immutable"),
            ("content-security-policy", "sandbox; default-src 'none'"),
            ("etag", &etag),
            ("accept-ranges", "bytes"),
        ] {
            assert_eq!(header(&response, name), value, "{name} of {method}");
        }
        let body = response.bytes().await.unwrap();
        assert_eq!(body.len(), if method == Method::HEAD { 0 } else { bytes.len() });
    }
}

#[tokio::test]
async fn range_and_conditional_requests_are_supported() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let (url, bytes) = stored(&gateway).await;
    let etag = format!("\"{}\"", url.split(['_', '.']).nth(1).unwrap());
    let stale = "\"0000000000000000\"".to_owned();
    let size = bytes.len();
    let ask = async |lines: &[(&str, &str)]| {
        let mut request = gateway.anonymous(Method::GET, &url);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    let part = ask(&[("range", "bytes=1-3")]).await;
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, format!("bytes 1-3/{size}")));
    assert_eq!(part.bytes().await.unwrap(), &bytes[1..4]);
    let end = ask(&[("range", "bytes=-4")]).await;
    assert_eq!(end.bytes().await.unwrap(), &bytes[size - 4..]);
    let beyond = ask(&[("range", &format!("bytes={size}-"))]).await;
    assert_eq!(
        (beyond.status().as_u16(), header(&beyond, "content-range")),
        (416, format!("bytes */{size}"))
    );
    for (lines, status) in [
        (&[("range", "bytes=0-1,3-4")][..], 200),
        (&[("range", "pages=1")], 200),
        (&[("range", "bytes=1-3"), ("if-range", &etag)], 206),
        (&[("range", "bytes=1-3"), ("if-range", &stale)], 200),
        (&[("if-none-match", &etag)], 304),
        (&[("if-none-match", &format!("{stale}, W/{etag}"))], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", &stale)], 200),
    ] {
        let response = ask(lines).await;
        assert_eq!(response.status().as_u16(), status, "{lines:?}");
        assert_eq!(header(&response, "etag"), etag, "{lines:?}");
    }
}

#[tokio::test]
async fn invalid_names_are_404_and_old_svg_files_are_sandboxed() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    std::fs::write(gateway.store.join("secret.txt"), b"x").unwrap();
    std::fs::write(gateway.store.join("1_00000000000000ff.svg"), b"<svg onload='alert(1)'/>").unwrap();
    for name in [
        "secret.txt",
        ".lock",
        "1_00000000000000fe.png",
        "..%2f.env",
        "%2e%2e/.env",
        "1_00000000000000ff.svg%00.png",
        "1_00000000000000ff%2esvg",
        "",
    ] {
        let response = gateway.anonymous(Method::GET, &format!("/ui/images/{name}")).send().await.unwrap();
        let status = response.status().as_u16();
        assert!(status == 404 || (name.contains('/') && status == 401), "{name}: {status}");
    }
    let drawing = gateway.anonymous(Method::GET, "/ui/images/1_00000000000000ff.svg").send().await.unwrap();
    assert_eq!(header(&drawing, "content-type"), "image/svg+xml");
    let policy = header(&drawing, "content-security-policy");
    assert_eq!(policy, "sandbox; default-src 'none'; style-src 'unsafe-inline'");
}

#[tokio::test]
async fn a_restart_keeps_images_and_removes_unfinished_files() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("restart");
    let gateway = Gateway::start_in(dir.clone(), &gpu_heavy(&upstream), &[]).await;
    let (url, bytes) = stored(&gateway).await;
    let unfinished = gateway.store.join(format!(".incoming-{}.tmp", "0a".repeat(16)));
    std::fs::write(&unfinished, b"half").unwrap();
    gateway.stop().await;
    let gateway = Gateway::start_in(dir, &gpu_heavy(&upstream), &[]).await;
    assert_eq!(gateway.image(&url).await, bytes);
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn the_same_image_has_the_same_hash_in_its_name() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let (first, _) = stored(&gateway).await;
    let (second, _) = stored(&gateway).await;
    let hash = |url: &str| url.split_once('_').unwrap().1.to_owned();
    assert_eq!(hash(&first), hash(&second));
}

#[tokio::test]
async fn a_store_locked_by_another_gateway_is_refused() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("held");
    let first = Gateway::start_in(dir.clone(), &gpu_heavy(&upstream), &[]).await;
    first.get("/v1/models").await;
    let second = Gateway::start_in(dir, &gpu_heavy(&upstream), &[]).await;
    let error = second.ended().await.unwrap_err().to_string();
    assert!(error.contains("UI_IMAGE_DIR") && error.contains("held by"), "{error}");
}
