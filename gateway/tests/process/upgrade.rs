//! Data and configuration of earlier versions are read without losses or warnings.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use fakes::old_state::{copy_old_state, lost_settings};
use reqwest::{Certificate, Client, RequestBuilder};
use serde_json::Value;
use service::outbound::{ConnectionPolicy, client_builder};
use sha2::{Digest, Sha256};

use crate::running::{Running, run, text};

const ALICE: &str = "alice-0123456789abcdef";
const BOB: &str = "bob-0123456789abcdef";

fn with_old_state(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (flag, path) in [
        ("--env-file", "app/.env"),
        ("--backends", "app/backends_config.yaml"),
        ("--gateway-data-dir", "data"),
        ("--ui-image-dir", "data/ui_images"),
    ] {
        command.arg(flag).arg(dir.join(path));
    }
    command
}

#[test]
fn the_configuration_of_0_1_is_read_unchanged() {
    let dir = copy_old_state("0.1", "gateway");
    let output = run(with_old_state(&dir, &["check-config"]));
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert_eq!(lost_settings(&dir, &text(&output.stdout)), [""; 0]);
}

async fn json(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
}

/// Names of the images that a token sees.
async fn images(client: &Client, url: &str, token: &str) -> Vec<String> {
    let (status, list) = json(client.get(format!("{url}/v1/gateway/images")).bearer_auth(token)).await;
    assert_eq!(status, 200, "{list}");
    list["data"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_data_of_0_1_is_kept() {
    let dir = copy_old_state("0.1", "gateway");
    let data = dir.join("data");
    let authority = fs::read(data.join("gateway-ca.pem")).unwrap();
    let running = Running::start_with(with_old_state(&dir, &["--gateway-port", "0"]), None);
    let url = format!("https://{}", running.address);

    // Clients still trust the authority.
    let trust = Certificate::from_pem(&authority).unwrap();
    let client = client_builder(ConnectionPolicy::PerRequest).tls_certs_only([trust]).build().unwrap();
    let healthy =
        async || client.get(format!("{url}/healthz")).send().await.is_ok_and(|answer| answer.status() == 200);
    fakes::eventually("it serves", async || healthy().await.then_some(())).await;
    assert_eq!(fs::read(data.join("gateway-ca.pem")).unwrap(), authority);

    // The images keep their owners.
    let all = images(&client, &url, ALICE).await;
    let bobs = images(&client, &url, BOB).await;
    assert_eq!((all.len(), bobs.len()), (2, 1), "{all:?} {bobs:?}");
    assert!(all.contains(&bobs[0]));
    for name in &all {
        let response = client.get(format!("{url}/ui/images/{name}")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{name}");
        let hash = Sha256::digest(response.bytes().await.unwrap());
        let first: [u8; 8] = hash[..8].try_into().unwrap();
        assert!(name.contains(&format!("{:016x}", u64::from_be_bytes(first))), "{name}");
    }
    let record: Value =
        serde_json::from_slice(&fs::read(data.join(format!("ui_images/{}.json", bobs[0]))).unwrap()).unwrap();
    let id = record["request_ids"][0].as_str().unwrap();
    let (_, found) =
        json(client.get(format!("{url}/v1/gateway/images?request_id={id}")).bearer_auth(BOB)).await;
    assert_eq!(found["data"][0]["name"].as_str(), Some(bobs[0].as_str()));

    // A backend that is down keeps its models.
    let body = r#"{"model":"qwen","messages":[{"role":"user","content":"?"}]}"#;
    let chat = client.post(format!("{url}/v1/chat/completions")).bearer_auth(ALICE);
    let (status, answer) = json(chat.header("content-type", "application/json").body(body)).await;
    assert_eq!((status, answer["error"]["backend_class"].as_str()), (503, Some("local_mlx")), "{answer}");

    running.signal("-TERM");
    let first_lines = running.first_lines.clone();
    let (code, log) = running.end();
    assert_eq!(code, Some(0));
    let warnings: Vec<_> = first_lines
        .lines()
        .chain(log.lines())
        .filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""))
        // The backends are down, and the data comes from a host named ai2.
        .filter(|line| !line.contains("gpu_heavy") && !line.contains("local_mlx"))
        .filter(|line| !line.contains("the certificate does not name"))
        // The disk of the test machine may be full.
        .filter(|line| !line.contains("the disk with the images"))
        .collect();
    assert_eq!(warnings, [""; 0]);
}
