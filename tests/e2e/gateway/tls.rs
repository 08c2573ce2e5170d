//! The listener's TLS.

use e2e::{gateway::Gateway, upstream::Upstream};
use reqwest::{Certificate, Version};
use shared::service::outbound::{Connections, builder};

#[tokio::test]
async fn a_client_that_pins_the_self_made_certificate_is_served_over_http_1_1() {
    let upstream = Upstream::start().await;
    let folder = e2e::fresh_folder("tls");
    let yaml = e2e::gateway::gpu_heavy(&upstream);
    let gateway = Gateway::start_in(folder.clone(), &yaml, &["--gateway-tls", "on"]).await;
    assert!(gateway.url.starts_with("https://"));
    let strangers = builder(Connections::Fresh).build().unwrap();
    let pem =
        e2e::eventually("the certificate", async || std::fs::read(folder.join("gateway-cert.pem")).ok())
            .await;
    let pinned =
        builder(Connections::Fresh).tls_certs_only([Certificate::from_pem(&pem).unwrap()]).build().unwrap();
    let answer = pinned.get(format!("{}/healthz", gateway.url)).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
    assert!(strangers.get(format!("{}/healthz", gateway.url)).send().await.is_err());
    let port = gateway.url.rsplit(':').next().unwrap();
    let named = pinned.get(format!("https://localhost:{port}/healthz")).send().await.unwrap();
    assert_eq!(named.status().as_u16(), 200);
}
