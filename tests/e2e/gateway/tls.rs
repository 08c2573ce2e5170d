//! The listener's TLS.

use std::path::Path;

use e2e::{gateway::Gateway, upstream::Upstream};
use reqwest::{Certificate, Client, Version};
use shared::service::outbound::{Connections, builder};

/// A client that trusts the authority in a folder and nobody else.
async fn trusting(folder: &Path) -> Client {
    let authority = folder.join("gateway-ca.pem");
    let pem = e2e::eventually("the authority", async || std::fs::read(&authority).ok()).await;
    builder(Connections::Fresh).tls_certs_only([Certificate::from_pem(&pem).unwrap()]).build().unwrap()
}

#[tokio::test]
async fn a_client_that_trusts_the_local_authority_is_served_over_http_1_1() {
    let upstream = Upstream::start().await;
    let folder = e2e::fresh_folder("tls");
    let yaml = e2e::gateway::gpu_heavy(&upstream);
    let gateway = Gateway::start_in(folder.clone(), &yaml, &["--gateway-tls", "on"]).await;
    assert!(gateway.url.starts_with("https://"));
    let strangers = builder(Connections::Fresh).build().unwrap();
    let client = trusting(&folder).await;
    let answer = client.get(format!("{}/healthz", gateway.url)).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
    assert!(strangers.get(format!("{}/healthz", gateway.url)).send().await.is_err());
    let port = gateway.url.rsplit(':').next().unwrap();
    let named = client.get(format!("https://localhost:{port}/healthz")).send().await.unwrap();
    assert_eq!(named.status().as_u16(), 200);
}

#[tokio::test]
async fn trust_in_the_authority_outlasts_the_certificate_that_it_signed() {
    let upstream = Upstream::start().await;
    let folder = e2e::fresh_folder("tls-again");
    let yaml = e2e::gateway::gpu_heavy(&upstream);
    let flags = ["--gateway-tls", "on"];
    let gateway = Gateway::start_in(folder.clone(), &yaml, &flags).await;
    let client = trusting(&folder).await;
    let first = std::fs::read(folder.join("gateway-cert.pem")).unwrap();
    let works = async |gateway: &Gateway| {
        client.get(format!("{}/healthz", gateway.url)).send().await.is_ok_and(|answer| answer.status() == 200)
    };
    assert!(works(&gateway).await);
    // As at its end: what is shown has to be signed anew.
    std::fs::remove_file(folder.join("gateway-cert.pem")).unwrap();
    gateway.lifecycle.request_reload();
    let signed = async || std::fs::read(folder.join("gateway-cert.pem")).ok().filter(|now| *now != first);
    e2e::eventually("another certificate", signed).await;
    assert!(works(&gateway).await, "with the trust that was given once");
    gateway.stop().await;
    let again = Gateway::start_in(folder.clone(), &yaml, &flags).await;
    e2e::eventually("the next start", async || works(&again).await.then_some(())).await;
}

#[tokio::test]
async fn a_lost_key_of_the_authority_is_told_and_no_other_authority_is_made() {
    let upstream = Upstream::start().await;
    let folder = e2e::fresh_folder("tls-lost");
    let yaml = e2e::gateway::gpu_heavy(&upstream);
    let flags = ["--gateway-tls", "on"];
    let gateway = Gateway::start_in(folder.clone(), &yaml, &flags).await;
    let client = trusting(&folder).await;
    gateway.stop().await;
    let authority = std::fs::read(folder.join("gateway-ca.pem")).unwrap();
    std::fs::remove_file(folder.join("gateway-ca-key.pem")).unwrap();
    let gateway = Gateway::start_in(folder.clone(), &yaml, &flags).await;
    let url = format!("{}/healthz", gateway.url);
    e2e::eventually("what lasts is shown", async || client.get(&url).send().await.ok()).await;
    gateway.stop().await;
    std::fs::remove_file(folder.join("gateway-cert.pem")).unwrap();
    let ended = Gateway::start_in(folder.clone(), &yaml, &flags).await.ended().await;
    let told = ended.unwrap_err().to_string();
    assert!(told.contains("GATEWAY_DATA_DIR: ") && told.contains("gateway-ca-key.pem is missing"), "{told}");
    assert_eq!(std::fs::read(folder.join("gateway-ca.pem")).unwrap(), authority);
}
