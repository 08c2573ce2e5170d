//! Reloads of the configuration: all of it or nothing.

use e2e::gateway::{Gateway, TOKEN, gpu_heavy};
use fakes::{
    TestResponse,
    upstream::{Upstream, UpstreamReply},
};
use reqwest::{Certificate, Method};
use serde_json::{Value, json};
use service::outbound::{ConnectionPolicy, client_builder};

const KEY: &str = "gpu_heavy.images";

fn image() -> Value {
    json!({"prompt": "p", "size": "64x64"})
}

fn one_place(upstream: &Upstream) -> String {
    gpu_heavy(upstream).replace("images: 2", "images: 1")
}

async fn until_status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_changed_limit_counts_requests_in_flight() {
    let upstream = Upstream::start().await;
    upstream.set_images(UpstreamReply::Hold);
    let gateway = Gateway::with_backends(&one_place(&upstream), &[]).await;
    let (first, second) = tokio::join!(until_status(gateway.image_request(&image())), async {
        upstream.until_held(1).await;
        assert_eq!(gateway.generate(&image()).await.status, 429);
        gateway.set_backends(&gpu_heavy(&upstream));
        assert_eq!(gateway.reload(TOKEN).await["last_error"], Value::Null);
        let (second, ()) = tokio::join!(until_status(gateway.image_request(&image())), async {
            upstream.until_held(2).await;
            let status = gateway.get("/v1/gateway/status").await;
            let slots = &status.json["admission_control"][KEY];
            assert_eq!(slots, &json!({"limit": 2, "available": 0, "inflight": 2}));
            assert_eq!(gateway.generate(&image()).await.status, 429);
            upstream.release();
        });
        second
    });
    assert_eq!((first, second), (200, 200));
    gateway.until_inflight(KEY, 0).await;
}

#[tokio::test]
async fn an_invalid_file_keeps_the_configuration_in_force_and_the_status_says_why() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    gateway.set_env("GATEWAY_BEARER_TOKEN=another-token-012345\nIMAGES_MAX_PIXELS=lots\n");
    gateway.set_backends("backends: [");
    let config = gateway.reload(TOKEN).await;
    let error = config["last_error"].as_str().unwrap();
    assert!(
        error.contains("IMAGES_MAX_PIXELS: expected") && error.contains("backends_config.yaml"),
        "{error}"
    );
    assert!(!error.contains("another-token"), "{error}");
    assert_eq!(gateway.generate(&image()).await.status, 200, "the old token and the old backend");
    gateway.set_env(&format!("GATEWAY_BEARER_TOKEN={TOKEN}\nIMAGES_MAX_PIXELS=4096\n"));
    gateway.set_backends(&gpu_heavy(&upstream));
    let config = gateway.reload(TOKEN).await;
    assert_eq!((&config["last_error"], &config["reloads"]), (&Value::Null, &json!(2)));
    let refused = gateway.generate(&json!({"prompt": "p", "size": "128x128"})).await;
    assert_eq!((refused.status, refused.code()), (400, "invalid_size"));
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_what_it_began_is_finished() {
    let upstream = Upstream::start().await;
    upstream.set_images(UpstreamReply::Hold);
    let gateway = Gateway::start(&upstream, &[]).await;
    let (old, new) = ("old-token-0123456789", "new-token-0123456789");
    gateway.set_env(&format!("GATEWAY_BEARER_TOKENS={TOKEN},old={old}\n"));
    assert_eq!(gateway.reload(TOKEN).await["last_error"], Value::Null);
    let send = |token: &str| {
        let request = gateway.anonymous(Method::POST, "/v1/images/generations").bearer_auth(token);
        request.header("content-type", "application/json").body(image().to_string())
    };
    let (begun, ()) = tokio::join!(until_status(send(old)), async {
        upstream.until_held(1).await;
        gateway.set_env(&format!("GATEWAY_BEARER_TOKENS={TOKEN},new={new}\n"));
        assert_eq!(gateway.reload(TOKEN).await["last_error"], Value::Null);
        assert_eq!(until_status(send(old)).await, 401);
        upstream.release();
        assert_eq!(until_status(send(new)).await, 200);
    });
    assert_eq!(begun, 200);
}

#[tokio::test]
async fn a_setting_that_needs_a_restart_is_named_and_nothing_changes() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    gateway.set_env("GATEWAY_BEARER_TOKEN=another-token-012345\nGATEWAY_PORT=8801\nGATEWAY_HOST=localhost\n");
    let error = gateway.reload(TOKEN).await["last_error"].clone();
    let error = error.as_str().unwrap();
    for part in [
        "GATEWAY_HOST: expected \"127.0.0.1\" as at start, found \"localhost\"",
        "GATEWAY_PORT: expected \"8800\" as at start, found \"8801\"",
        "restart to apply",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(gateway.generate(&image()).await.status, 200, "the token that was in force");
}

#[tokio::test]
async fn a_backend_that_moved_is_probed_at_its_new_address_and_no_longer_at_the_old() {
    let (old, new) = (Upstream::start().await, Upstream::start().await);
    old.set_images(UpstreamReply::Hold);
    let gateway = Gateway::start(&old, &["--health-check-interval-sec", "0.05"]).await;
    let (begun, ()) = tokio::join!(until_status(gateway.image_request(&image())), async {
        old.until_held(1).await;
        gateway.set_backends(&gpu_heavy(&new));
        assert_eq!(gateway.reload(TOKEN).await["last_error"], Value::Null);
        assert_eq!(gateway.generate(&image()).await.status, 200, "ready at once: it was probed before");
        old.release();
    });
    assert_eq!((begun, new.images().len(), old.images().len()), (200, 1, 1));
    let (probes, others) = (old.requests("/readyz").len(), new.requests("/readyz").len());
    fakes::eventually("probes of the new address", async || {
        (new.requests("/readyz").len() > others + 3).then_some(())
    })
    .await;
    assert!(old.requests("/readyz").len() <= probes + 1, "the old loop has ended");
    gateway.stop().await;
}

#[tokio::test]
async fn new_connections_get_the_new_certificate() {
    let upstream = Upstream::start().await;
    let yaml = gpu_heavy(&upstream);
    let made = async |name: &str| {
        let dir = fakes::fresh_dir(name);
        let _maker = Gateway::start_in(dir.clone(), &yaml, &["--gateway-tls", "on"]).await;
        fakes::eventually("a certificate", async || dir.join("gateway-cert.pem").exists().then_some(()))
            .await;
        dir
    };
    let (one, other) = (made("one").await, made("other").await);
    let dir = fakes::fresh_dir("swapped");
    let place = |from: &std::path::Path| {
        for name in ["gateway-cert.pem", "gateway-key.pem"] {
            std::fs::copy(from.join(name), dir.join(format!("given-{name}"))).unwrap();
        }
    };
    place(&one);
    let (certificate, key) = (dir.join("given-gateway-cert.pem"), dir.join("given-gateway-key.pem"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let flags =
        ["--gateway-tls", "on", "--gateway-tls-cert-path", &certificate, "--gateway-tls-key-path", &key];
    let gateway = Gateway::start_in(dir.clone(), &yaml, &flags).await;
    let is_served = async |dir: &std::path::Path| {
        let pem = std::fs::read(dir.join("gateway-ca.pem")).unwrap();
        let trust = Certificate::from_pem(&pem).unwrap();
        let client = client_builder(ConnectionPolicy::PerRequest).tls_certs_only([trust]).build().unwrap();
        client.get(format!("{}/healthz", gateway.url)).send().await.is_ok()
    };
    assert!(is_served(&one).await && !is_served(&other).await);
    place(&other);
    gateway.lifecycle.request_reload();
    fakes::eventually("the other certificate", async || is_served(&other).await.then_some(())).await;
    assert!(!is_served(&one).await);
    std::fs::write(dir.join("given-gateway-key.pem"), "no key").unwrap();
    gateway.lifecycle.request_reload();
    gateway.lifecycle.request_reload();
    assert!(is_served(&other).await, "a broken pair changes nothing");
}

#[tokio::test]
async fn metrics_and_images_outlast_a_reload() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--gateway-metrics-listen", "127.0.0.1:0"]).await;
    let made = gateway.generate(&image()).await;
    gateway.set_env(&format!("GATEWAY_BEARER_TOKEN={TOKEN}\nPUBLIC_BASE_URL=https://ai2.local:8800\n"));
    gateway.reload(TOKEN).await;
    gateway.image(made.json["data"][0]["url"].as_str().unwrap()).await;
    let url = format!("{}/metrics", gateway.metrics_url.as_ref().unwrap());
    let scrape = fakes::http().get(url).send().await.unwrap().text().await.unwrap();
    assert!(scrape.contains("gateway_pictures_stored_total 1"), "{scrape}");
    let next = TestResponse::read(gateway.image_request(&image()).send().await.unwrap()).await;
    assert!(next.json["data"][0]["url"].as_str().unwrap().starts_with("https://ai2.local:8800/ui/images/"));
}
